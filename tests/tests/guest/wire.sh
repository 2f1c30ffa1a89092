# For scripts in a guest whose first Ethernet NIC is here and whose second is in the namespace `peer`.

MTU=4200
PEER="ip netns exec peer"

# setup DEVICE: both ends, with the far one called DEVICE; soft-RoCE is made if it is to be that.
setup() {
    far=$1
    refault-net peer
    ip link set eth0 mtu $MTU
    $PEER ip link set eth1 mtu $MTU
    modprobe -a rdma_ucm 8021q
    [ "$far" != rxe0 ] || { modprobe rdma_rxe; $PEER rdma link add rxe0 type rxe netdev eth1; }
    await_gids "$far" 0000:0000:0000:0000:0000:ffff:0a4d:0002
    meet
}

# Each end looks for the other until it has found it: over a lossy link the kernel may give up when a program connects.
meet() {
    here=$(ip -6 -o address show eth0 scope link | awk '{ sub("/.*", "", $4); print $4 }')
    there=$($PEER ip -6 -o address show eth1 scope link | awk '{ sub("/.*", "", $4); print $4 }')
    # -w ends with the first answer, and otherwise after so many seconds.
    for address in 10.77.0.2 $there%eth0; do ping -q -c 1 -w 300 $address >/dev/null; done
    for address in 10.77.0.1 $here%eth1; do $PEER ping -q -c 1 -w 300 $address >/dev/null; done
}

await_gids() {
    until cat /sys/class/infiniband/"$1"/ports/1/gids/* 2>/dev/null | grep -q "$2"; do sleep 0.05; done
}

# Index of a GID.
gid_index() {
    grep -l "$2" /sys/class/infiniband/"$1"/ports/1/gids/* 2>/dev/null | sed 's,.*/,,'
}

# Waits until a server listens at the far end, by TCP or by rdma_cm. One that ended already will be noticed by its client.
listening() {
    for try in $(seq 3000); do
        if $PEER grep -q ' 0A ' /proc/net/tcp /proc/net/tcp6 || rdma resource show cm_id | grep -q LISTEN; then return; fi
        kill -0 $server 2>/dev/null || return 0
        sleep 0.05
    done
}

# across 'SERVER' 'CLIENT': runs a server at the far end and a client here, and prints what became of both.
across() {
    $PEER timeout 900 $1 >/tmp/server 2>&1 &
    server=$!
    listening
    client=0
    timeout 900 $2 >/tmp/client 2>&1 || client=$?
    wait $server || client="$client, server $?"
    echo "program $client: $2"
    cat /tmp/client
    [ "$client" = 0 ] || cat /tmp/server
}

# vlan ID: interfaces of a VLAN with addresses 10.77.ID.1 and .2 on both ends.
vlan() {
    ip link add link eth0 name eth0.$1 type vlan id $1
    ip address add 10.77.$1.1/24 dev eth0.$1
    ip link set eth0.$1 up
    $PEER ip link add link eth1 name eth1.$1 type vlan id $1
    $PEER ip address add 10.77.$1.2/24 dev eth1.$1
    $PEER ip link set eth1.$1 up
    await_gids refault_0 $(printf 'ffff:0a4d:%02x01' $1)
    await_gids $far $(printf 'ffff:0a4d:%02x02' $1)
}
