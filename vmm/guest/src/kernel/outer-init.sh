#!/bin/busybox sh
# Init of the nested machine, which QEMU emulates where there is no hardware virtualization: loads KVM, enters the
# host's root folder, and starts refault there. Only the kernel's own file systems are mounted over the host's.
export PATH=/bin
busybox mount -t proc proc /proc
while read -r module; do busybox insmod "/modules/$module"; done < /modules/order
busybox mount -t 9p -o trans=virtio,version=9p2000.L,access=any,cache=loose,msize=512000 root /host ||
	{ echo "refault: the host's root folder cannot be mounted"; busybox poweroff -f; }
busybox mount -t proc proc /host/proc
busybox mount -t sysfs sys /host/sys
busybox mount -t devtmpfs dev /host/dev
busybox mkdir -p /host/dev/shm /host/dev/pts
# The machine was given enough memory for everything in it.
busybox mount -t tmpfs -o size=100% shm /host/dev/shm
busybox mount -t devpts pts /host/dev/pts
busybox ip link set lo up

# The path of the program is in hex on the kernel's command line, so it may contain any character.
hex=$(busybox sed -n 's/.*refault\.program=\([0-9a-f]*\).*/\1/p' /proc/cmdline)
program=$(printf "$(echo "$hex" | busybox sed 's/../\\x&/g')")
busybox chroot /host "$program" agent
echo "refault: $program ended without reporting a result"
busybox poweroff -f
