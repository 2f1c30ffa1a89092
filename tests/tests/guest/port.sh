# Functions for two ports of one guest, the second one in the namespace "peer". Sourced with `sh -e`.

peer="ip netns exec peer"
near=$(basename "$(dirname "$(ls -d /sys/bus/pci/devices/*/net | sed -n 1p)")")
far=$(basename "$(dirname "$(ls -d /sys/bus/pci/devices/*/net | sed -n 2p)")")

# Ends the script if the command succeeds.
refused() {
    if "$@" 2>/dev/null; then
        echo "not refused: $*" >&2
        exit 1
    fi
}

# until_is WANTED COMMAND: runs it until it says that; a minute at most.
until_is() {
    wanted=$1
    shift
    for tries in $(seq 600); do
        said=$("$@" 2>/dev/null) || true
        [ "$said" != "$wanted" ] || return 0
        sleep 0.1
    done
    echo "$* says $said, not $wanted" >&2
    exit 1
}

# The netdev, and the RDMA device, of a PCI function.
netdev_of() { ls /sys/bus/pci/devices/$1/net; }
rdma_of() { ls /sys/bus/pci/devices/$1/infiniband; }

# has_gid FUNCTION GID: whether it is in its table.
has_gid() {
    cat /sys/bus/pci/devices/$1/infiniband/*/ports/1/gids/* 2>/dev/null | grep -qi "$2" && echo yes || echo no
}

port_state() { cat /sys/bus/pci/devices/$1/infiniband/*/ports/1/state; }

# counter FUNCTION NAME
counter() { cat /sys/bus/pci/devices/$1/infiniband/*/ports/1/hw_counters/$2; }

# rounds ADDRESS COUNT: rping, which checks its data, to a server at that address of the peer.
rounds() {
    $peer timeout 100 rping -s -a $1 -C $2 -V >/tmp/server 2>&1 &
    server=$!
    until_is yes sh -c "$peer rdma resource show cm_id | grep -q LISTEN && echo yes"
    timeout 100 rping -c -a $1 -C $2 -V
    wait $server
}
