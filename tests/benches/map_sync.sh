#!/bin/sh
# Does a store through MAP_SYNC into a shared block of XFS survive the end of the machine? The CPU stores; no device takes part.
# Runs on the host, with the path of refault:
#
#   sh tests/benches/map_sync.sh target/quick/refault
#
# A file gets a store in each of its first blocks, the machine is killed, and the next one mounts the filesystem and counts the
# blocks that do not have it: for blocks that were holes, and for blocks that another file shared.
set -eu
refault=${1:?usage: map_sync.sh REFAULT}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/store.py" <<'PROGRAM'
import mmap, os, subprocess, sys, time

PATH, BLOCK, STORES = "/mnt/files/file", 4096, int(sys.argv[2])
SHARED_VALIDATE, SYNC = 3, 0x80000

if sys.argv[1] == "check":
    blocks = open(PATH, "rb").read()
    missing = [i for i in range(STORES) if not blocks[i * BLOCK:].startswith(b"new")]
    print(f"missing {len(missing)} of {STORES}: {missing}")
    sys.exit()
file = os.open(PATH, os.O_RDWR | os.O_CREAT)
if sys.argv[1] == "shared":
    os.write(file, bytes(STORES * BLOCK))
    subprocess.run(["cp", "--reflink=always", PATH, "/mnt/files/copy"], check=True)
os.ftruncate(file, STORES * BLOCK)
os.sync()
memory = mmap.mmap(file, STORES * BLOCK, flags=SHARED_VALIDATE | SYNC)
for block in range(STORES):
    memory[block * BLOCK:block * BLOCK + 3] = b"new"
print("stored", flush=True)
time.sleep(1000000)
PROGRAM

for kind in holes shared; do
    for stores in 19 20; do
        pmem=$folder/pmem-$kind-$stores
        mounted="mkdir -p /mnt/files && mount -o dax=always /dev/pmem0 /mnt/files && exec python3 /store.py"
        "$refault" run --pmem "$pmem,size=512M" --add "$folder/store.py:/store.py" -- \
            sh -c "mkfs.xfs -q /dev/pmem0 && $mounted $kind $stores" > "$folder/out" 2> "$folder/err" &
        machine=$!
        until grep -q stored "$folder/out"; do
            kill -0 $machine 2>/dev/null || { cat "$folder/err"; exit 1; }
            sleep 0.1
        done
        # No process of the machine outlives the first.
        kill -9 $machine
        wait $machine 2>/dev/null || true
        sleep 1
        "$refault" run --pmem "$pmem" --add "$folder/store.py:/store.py" -- sh -c "$mounted check $stores" \
            > "$folder/out" 2> "$folder/err" || { cat "$folder/err"; exit 1; }
        echo "$kind: $(cat "$folder/out")"
    done
done
