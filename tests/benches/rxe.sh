#!/bin/sh
# The NIC compared with the kernel's own soft-RoCE (rdma_rxe): same guest, same kernel, same programs, in turns.
#
#   cargo refault run --cpus 2 --add tests/benches/rxe.sh:/rxe.sh -- sh /rxe.sh [ROUNDS]
#
# perftest's ib_write_bw with 1 MiB and ib_write_lat with 4 KiB, both ends in this guest. Every round runs every kind
# once; the table has the medians. Bandwidth is taken after a warm-up, latency is perftest's typical one, its median.
set -eu
rounds=${1:-3}
# Seconds that one program may take.
timeout=60
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# soft-RoCE needs an interface with an address; frames to oneself never reach its other end.
modprobe rdma_rxe
ip link set lo up
ip link add rxe-a type veth peer name rxe-b
ip link set rxe-a up
ip link set rxe-b up
ip addr add 192.0.2.1/24 dev rxe-a
rdma link add rxe0 type rxe netdev rxe-a

# The index of the GID made from the address.
gid_of() {
	for index in $(seq 0 15); do
		case $(cat "/sys/class/infiniband/rxe0/ports/1/gids/$index" 2> /dev/null) in
			*ffff:c000:0201) echo "$index"; return ;;
		esac
	done
}
for try in $(seq 100); do
	gid=$(gid_of)
	[ -n "$gid" ] && break
	sleep 0.1
done

listening() {
	for try in $(seq 300); do
		if grep -q ':4853 .* 0A ' /proc/net/tcp /proc/net/tcp6; then return; fi
		sleep 0.1
	done
}

# Runs both ends of a program, and prints a column of its last line of figures, or 0 if there is none in time.
measure() {
	column=$1
	shift
	timeout -s KILL "$timeout" "$@" > "$scratch/server" 2>&1 &
	server=$!
	listening
	timeout -s KILL "$timeout" "$@" localhost > "$scratch/client" 2>&1 || true
	wait $server || true
	awk -v column="$column" '/^ *[0-9]+ +[0-9]+ / { value = $column } END { print value + 0 }' "$scratch/client"
}

bandwidth() { measure 4 ib_write_bw -s 1048576 -n 100 -F --perform_warm_up "$@"; }
latency() { measure 5 ib_write_lat -s 4096 -n 500 -F "$@"; }

# One kind: a name, then further arguments of perftest.
kinds="pinned pasid odp rxe rxe-odp"
options() {
	case $1 in
		pinned) echo "-d refault_0 -x 0" ;;
		pasid | odp) echo "-d refault_0 -x 0 --odp" ;;
		rxe) echo "-d rxe0 -x $gid" ;;
		rxe-odp) echo "-d rxe0 -x $gid --odp" ;;
	esac
}

round=0
while [ "$round" -lt "$rounds" ]; do
	for kind in $kinds; do
		export REFAULT_ODP_MODE=pasid
		[ "$kind" = odp ] && REFAULT_ODP_MODE=odp
		for figure in bandwidth latency; do
			# A program that has timed out once is not run again.
			grep -qx 0 "$scratch/$figure-$kind" 2> /dev/null && continue
			# shellcheck disable=SC2046 # Several words are meant.
			$figure $(options "$kind") >> "$scratch/$figure-$kind"
		done
		echo "$kind: $(tail -n 1 "$scratch/bandwidth-$kind") MiB/s, $(tail -n 1 "$scratch/latency-$kind") us"
	done
	round=$((round + 1))
done

median() { sort -n "$1" | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }
printf '%-8s %18s %9s %18s %9s\n' "" "1 MiB, MiB/s" "to rxe" "4 KiB, us" "to rxe"
base_bw=$(median "$scratch/bandwidth-rxe")
base_lat=$(median "$scratch/latency-rxe")
for kind in $kinds; do
	awk -v name="$kind" -v bw="$(median "$scratch/bandwidth-$kind")" \
		-v lat="$(median "$scratch/latency-$kind")" -v base_bw="$base_bw" -v base_lat="$base_lat" '
		function shown(value, format) { return value > 0 ? sprintf(format, value) : "none in time" }
		BEGIN { printf "%-8s %18s %9s %18s %9s\n", name, shown(bw, "%.1f"), shown(base_bw ? bw / base_bw : 0, "%.2fx"),
			shown(lat, "%.1f"), shown(lat ? base_lat / lat : 0, "%.2fx") }'
done
