#!/bin/sh
# Compares the two hosts that need no KVM, in turns: QEMU with the devices beside it, and our own VMM one level down.
#
#   tests/benches/hosts.sh REFAULT [ROUNDS]
#
# REFAULT is target/release/refault. Times are medians, measured from outside unless stated otherwise. The whole demo on both
# hosts, which takes some minutes, is left out with DEMO=no.
set -eu
refault=$1
rounds=${2:-3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

now() { date +%s%N; }
median() { sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

# Milliseconds from the start of refault to the first command's output.
boot() {
	start=$(now)
	"$refault" run --host "$1" -- echo up < /dev/null 2> /dev/null | head -n 1 > /dev/null
	echo $((($(now) - start) / 1000000))
}

# Microseconds: the median fault of a stream into a file whose pages are taken away, in mode $2.
fault() {
	"$refault" demo --host "$1" --scenario fsync --mapping 4k --mode "$2" --cpus 2 --out "$scratch/demo" > /dev/null 2>&1
	awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "total_ns") column = i; next } { print $column / 1000 }' \
		"$scratch/demo/latest/faults.csv" | median
}

# Microseconds, by perftest in the guest: its typical latency of a 4 KiB write from and to present memory.
latency() {
	"$refault" run --host "$1" --cpus 2 -- sh -c '
		ib_write_lat -s 4096 -n 2000 > /dev/null 2>&1 &
		sleep 3
		ib_write_lat -s 4096 -n 2000 localhost | awk "\$1 == 4096 { print \$5 }"' 2> /dev/null
}

# Seconds for all scenarios in all modes.
seconds_of_demo() {
	start=$(now)
	"$refault" demo --host "$1" --cpus 2 --out "$scratch/whole" > "$scratch/said" 2>&1 || cat "$scratch/said"
	echo $((($(now) - start) / 1000000000))
}

compare() {
	name=$1
	shift
	for round in $(seq "$rounds"); do
		for host in qemu nested; do
			"$1" "$host" ${2:-} >> "$scratch/$name.$host"
		done
	done
	ours=$(median < "$scratch/$name.qemu")
	theirs=$(median < "$scratch/$name.nested")
	echo "$name: qemu $ours, nested $theirs, ratio $(awk "BEGIN { printf \"%.2f\", $ours / $theirs }")"
}

compare boot_ms boot
compare fault_pasid_us fault pasid
compare fault_odp_us fault odp
compare write_lat_us latency
[ "${DEMO:-yes}" = no ] && exit 0
rounds=1
compare demo_s seconds_of_demo
