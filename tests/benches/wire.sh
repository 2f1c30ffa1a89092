#!/bin/sh
# Two ports of the NIC on a link compared with soft-RoCE at both ends of another: same guest, same programs, in turns.
#
#   cargo refault run --cpus 2 --nic roce --nic roce --nic ether --nic ether --add tests/benches/wire.sh:/wire.sh \
#     -- sh /wire.sh [ROUNDS]
#
# perftest's ib_write_bw with 64 KiB in packets of 4 KiB. The other end of each link is in the network namespace "peer". Every
# round runs both; the table has each round, and what is left of the ratios is their median.
set -eu
rounds=${1:-3}
# Seconds that one program may take.
timeout=300

refault-net peer
ip link set eth3 netns peer
for device in eth0 eth2; do ip link set $device mtu 4200; done
for device in eth1 eth3; do ip -netns peer link set $device mtu 4200; done
ip address flush dev eth2
ip address add 10.78.0.1/24 dev eth2
ip link set eth2 up
ip -netns peer address add 10.78.0.2/24 dev eth3
ip -netns peer link set eth3 up
modprobe rdma_rxe
rdma link add rxe0 type rxe netdev eth2
ip netns exec peer rdma link add rxe1 type rxe netdev eth3
for address in 10.77.0.2 10.78.0.2; do
	until ping -c 1 -W 1 $address > /dev/null; do :; done
done

listening() {
	for try in $(seq 300); do
		if ip netns exec peer grep -q ':4853 .* 0A ' /proc/net/tcp /proc/net/tcp6; then return; fi
		sleep 0.1
	done
}

# measure SERVER CLIENT ADDRESS COUNT: prints MiB a second, or 0 if there is no figure in time.
measure() {
	ip netns exec peer timeout -s KILL $timeout ib_write_bw -d "$1" -x 1 -F -m 4096 -s 65536 -n "$4" > /dev/null 2>&1 &
	listening
	timeout -s KILL $timeout ib_write_bw -d "$2" -x 1 -F -m 4096 -s 65536 -n "$4" "$3" 2> /dev/null |
		awk '/^ *65536 / { value = $4 } END { print value + 0 }'
	wait
}

printf '%-6s %12s %12s %8s\n' round 'NIC MiB/s' 'rxe MiB/s' ratio
for round in $(seq "$rounds"); do
	ours=$(measure refault_1 refault_0 10.77.0.2 2000)
	theirs=$(measure rxe1 rxe0 10.78.0.2 200)
	echo "$round $ours $theirs" | awk '{ printf "%-6s %12.1f %12.1f %8.1f\n", $1, $2, $3, $3 ? $2 / $3 : 0 }'
done
