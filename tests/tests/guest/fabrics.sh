# NVMe over Fabrics between two ports, in both directions. With RXE the second one is soft-RoCE's. Runs behind port.sh.

nvmet=/sys/kernel/config/nvmet
driver=/sys/bus/pci/drivers/refault_rdma

# The kernel's storage protocols are of the first namespace only, which knows both addresses as its own. With these rules
# what goes to the other port takes the wire nevertheless.
route_by_wire() {
    refault-net
    ip route replace 10.77.0.2 dev $(netdev_of $near) src 10.77.0.1 table 101
    ip route replace 10.77.0.1 dev $(netdev_of $far) src 10.77.0.2 table 102
    for name in all default $(netdev_of $near) $(netdev_of $far); do
        echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter
        echo 1 >/proc/sys/net/ipv4/conf/$name/accept_local
        echo 1 >/proc/sys/net/ipv4/conf/$name/arp_ignore
    done
    ping -c 2 -W 10 10.77.0.2
}

# serve ADDRESS: the target listens there.
serve() {
    mkdir $nvmet/ports/1
    echo rdma >$nvmet/ports/1/addr_trtype
    echo ipv4 >$nvmet/ports/1/addr_adrfam
    echo $1 >$nvmet/ports/1/addr_traddr
    echo 4420 >$nvmet/ports/1/addr_trsvcid
    ln -s $nvmet/subsystems/disk $nvmet/ports/1/subsystems/disk
}

stop_serving() {
    rm $nvmet/ports/1/subsystems/disk
    rmdir $nvmet/ports/1
}

# connect FROM TO: $disk is the disk at TO.
connect() {
    serve $2
    nvme connect -t rdma -w $1 -a $2 -s 4420 -n disk -i 1 -c 1 -l 2
    until_is yes sh -c 'ls /dev/nvme*n1 >/dev/null && echo yes'
    disk=$(ls /dev/nvme*n1)
}

# holds FROM TO: whether a disk gives back what was written.
holds() {
    connect $1 $2
    before=$(counter $near sent_bytes)
    dd if=/tmp/data of=$disk bs=1M oflag=direct
    dd if=$disk of=/tmp/back bs=1M iflag=direct count=8
    cmp /tmp/data /tmp/back
    dd if=/tmp/data of=$disk bs=4k oflag=direct seek=4001 count=100
    dd if=$disk of=/tmp/back bs=4k iflag=direct skip=4001 count=100
    cmp -n 409600 /tmp/data /tmp/back
    test $(($(counter $near sent_bytes) - before)) -gt 8000000
    nvme disconnect -n disk
    stop_serving
}

# dies FROM TO: the first port's NIC stops while the disk is written, and is taken away.
dies() {
    connect $1 $2
    before=$(counter $near sent_pkts)
    dd if=/dev/zero of=$disk bs=64k oflag=direct count=1500 2>/dev/null &
    writer=$!
    until_is yes sh -c "test \$(cat /sys/bus/pci/devices/$near/infiniband/*/ports/1/hw_counters/sent_pkts) -gt $((before + 500)) && echo yes"
    setpci -s $near COMMAND=0:4
    echo $near >$driver/unbind
    test ! -e /sys/bus/pci/devices/$near/infiniband
    until_is '' ls /sys/class/nvme
    wait $writer || true
    stop_serving
    echo $near >$driver/bind
    route_by_wire
}

modprobe nvmet-rdma
modprobe nvme-rdma
modprobe zram
for what in io admin; do echo 5 >/sys/module/nvme_core/parameters/${what}_timeout; done
test -d $nvmet || mount -t configfs none /sys/kernel/config
for name in lo eth0; do ip rule add pref 10 iif $name to 10.77.0.2 lookup 101; done
for name in lo eth1; do ip rule add pref 11 iif $name to 10.77.0.1 lookup 102; done
ip rule add pref 100 lookup local
ip rule delete pref 0
route_by_wire
if [ "${RXE-}" ]; then
    modprobe rdma_rxe
    rdma link add rxe0 type rxe netdev $(netdev_of $far)
fi

echo 64M >/sys/block/zram0/disksize
mkdir $nvmet/subsystems/disk
echo 1 >$nvmet/subsystems/disk/attr_allow_any_host
mkdir $nvmet/subsystems/disk/namespaces/1
echo /dev/zram0 >$nvmet/subsystems/disk/namespaces/1/device_path
echo 1 >$nvmet/subsystems/disk/namespaces/1/enable
head -c 8388608 /dev/urandom >/tmp/data

holds 10.77.0.1 10.77.0.2
holds 10.77.0.2 10.77.0.1
dies 10.77.0.1 10.77.0.2
holds 10.77.0.1 10.77.0.2
dies 10.77.0.2 10.77.0.1
holds 10.77.0.2 10.77.0.1
rdma statistic show link
test -z "$(rdma resource show mr)"
rmmod nvme-rdma
rmmod nvmet-rdma
rmmod refault_rdma
echo all done
