#!/bin/sh
# The time of a small write by thread: how long each of the VMM's threads runs and waits for a CPU while perftest's
# ib_write_lat polls at both ends in a guest of two CPUs.
#
#   tests/benches/latency-profile.sh REFAULT IMAGE                       where /dev/kvm works
#   REFAULT outer -- $PWD/tests/benches/latency-profile.sh REFAULT IMAGE    where it does not
#
# REFAULT is target/release/refault, IMAGE the folder that `refault guest path` prints. The figures are the kernel's
# (/proc/PID/task/*/schedstat), over four seconds each.
set -eu
refault=$1
export REFAULT_IMAGE="$2"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cat > "$scratch/latency.sh" <<'GUEST'
ip link set lo up
for round in 1 2 3; do
	ib_write_lat -s 4096 -n 20000 -F -d refault_0 -x 0 > /dev/null 2>&1 &
	sleep 2
	ib_write_lat -s 4096 -n 20000 -F -d refault_0 -x 0 localhost 2>&1 | tail -3
	wait
done
GUEST

sample() {
	for task in /proc/"$pid"/task/*; do
		echo "$(cat "$task/comm") $(cat "$task/schedstat")"
	done | sort
}

"$refault" run --host refault --cpus 2 --add "$scratch/latency.sh:/latency.sh" -- sh /latency.sh &
pid=$!
sleep 25
for round in 1 2 3 4 5 6; do
	sample > "$scratch/before"
	sleep 4
	sample > "$scratch/after"
	join "$scratch/before" "$scratch/after" | awk '$7 > $4 {
		slices = $7 - $4
		printf "%-8s %6d slices, each ran %4.0f us and had waited %4.0f us for a CPU\n",
			$1, slices, ($5 - $2) / 1e3 / slices, ($6 - $3) / 1e3 / slices
	}'
done
wait "$pid"
