#!/bin/sh
# The cost of a guest, measured from outside and compared with QEMU: time to init, memory of the VMM, CPU time of an idle guest.
#
#   tests/benches/guest.sh REFAULT IMAGE                       where /dev/kvm works
#   REFAULT outer -- tests/benches/guest.sh REFAULT IMAGE      where it does not: both VMMs run one level down
#
# REFAULT is target/release/refault, IMAGE the folder that `refault guest path` prints. Both VMMs boot the same kernel
# and initramfs with one CPU of the plain x86-64 model and 512 MiB; the time is that from starting the VMM to the kernel's line "Run /init".
set -eu
refault=$1
image=$2
rounds=5
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export REFAULT_IMAGE="$image"

now() { date +%s%N; }

# Starts "$@", which writes the guest's log to its output, prints the milliseconds until init is run, and ends it.
until_init() {
	start=$(now)
	mkfifo "$scratch/log"
	timeout 120 "$@" > "$scratch/log" 2>&1 < /dev/null &
	pid=$!
	while read -r line; do
		case $line in *"Run /init as init process"*) echo $((($(now) - start) / 1000000)); break ;; esac
	done < "$scratch/log"
	kill "$pid" 2> /dev/null || true
	wait "$pid" 2> /dev/null || true
	rm "$scratch/log"
}

by_refault() {
	until_init "$refault" run --host refault --cpus 1 --memory 512M --verbose -- sleep 60
}

by_qemu() {
	until_init qemu-system-x86_64 -accel kvm -cpu qemu64 -nodefaults -no-user-config -display none -no-reboot -smp 1 \
		-m 512M -kernel "$image/$1" -initrd "$image/boot.cpio" -append "console=ttyS0 panic=-1 loglevel=7" -serial stdio
}

median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }

round=0
while [ $round -lt $rounds ]; do
	by_refault >> "$scratch/refault"
	by_qemu vmlinuz >> "$scratch/qemu"
	by_qemu vmlinux >> "$scratch/qemu-elf"
	round=$((round + 1))
done
ours=$(median < "$scratch/refault")
for other in qemu qemu-elf; do
	theirs=$(median < "$scratch/$other")
	[ -n "$theirs" ] || { echo "init: $other never came to init"; continue; }
	echo "init: refault $ours ms, $other $theirs ms, ratio $((100 * ours / theirs)) %"
done

# An idle guest: from the tenth second after its start on.
"$refault" run --host refault --cpus 1 --memory 512M -- sleep 100 < /dev/null > /dev/null 2>&1 &
pid=$!
sleep 25
ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }
first=$(ticks)
sleep 20
echo "idle: $(($(ticks) - first)) ticks of CPU time in 2000"
# Guest RAM, the image and pmem are mappings of 64 MiB and more; all else is the VMM's own.
awk '/^[0-9a-f]+-/ { next } $1 == "Size:" { large = $2 >= 65536 } $1 == "Pss:" && !large { own += $2 }
	END { printf "memory: %d KiB besides RAM, image and pmem\n", own }' "/proc/$pid/smaps"
kill "$pid"
wait "$pid" 2> /dev/null || true
