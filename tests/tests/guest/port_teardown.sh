driver=/sys/bus/pci/drivers/refault_rdma

works() {
    refault-net peer
    ping -c 2 -W 10 10.77.0.2
    rounds 10.77.0.2 5
}

# Runs verbs, management and frames until stop_load, and returns when they run.
load() {
    before=$(counter $near sent_pkts)
    $peer rping -s -a 10.77.0.2 -C 100000000 >/dev/null 2>&1 &
    $peer ibv_rc_pingpong -d $(rdma_of $far) -g 1 -n 100000000 >/dev/null 2>&1 &
    until_is yes sh -c "$peer rdma resource show cm_id | grep -q LISTEN && echo yes"
    until_is yes sh -c "$peer ss -ltn | grep -q :18515 && echo yes"
    rping -c -a 10.77.0.2 -C 100000000 >/dev/null 2>&1 &
    ibv_rc_pingpong -d $(rdma_of $near) -g 1 -n 100000000 10.77.0.2 >/dev/null 2>&1 &
    ping -f -s 1400 10.77.0.2 >/dev/null 2>&1 &
    until_is yes sh -c "test \$(cat /sys/bus/pci/devices/$near/infiniband/*/ports/1/hw_counters/sent_pkts) -gt $((before + 200)) && echo yes"
    until_is 2 sh -c "rdma resource show qp link $(rdma_of $near)/1 | grep -c 'type RC state RTS'"
}

stop_load() {
    pkill -9 -x 'rping|ibv_rc_pingpong|ping' || true
    wait || true
}

works
load
echo $near >$driver/unbind
test ! -e /sys/bus/pci/devices/$near/infiniband
test ! -e /sys/bus/pci/devices/$near/net
stop_load
echo $near >$driver/bind
works

load
echo 1 >/sys/bus/pci/devices/$near/reset
stop_load
works

# Its processes keep the namespace until they have ended. Then the netdev comes back.
load
ip netns delete peer
stop_load
until_is yes sh -c "test -d /sys/bus/pci/devices/$far/net/e* && echo yes"
works

load
echo $far >$driver/unbind
stop_load
echo $far >$driver/bind
works

# Without bus mastering the NIC stops. What waits for it must end nevertheless.
load
setpci -s $near COMMAND=0:4
ip link set $(netdev_of $near) mtu 1400
ip link set $(netdev_of $near) down
stop_load
echo $near >$driver/unbind
echo $near >$driver/bind
works

load
rmmod refault_rdma
stop_load
depmod
modprobe refault_rdma
works
test -z "$(rdma resource show mr)"
echo all done
