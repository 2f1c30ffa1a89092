"""Every verb over a wire between two devices of one guest, driven at both ends by this program. Runs in a guest.

usage: wire.py ONE OTHER [PART]...

A device is refault_N or a soft-RoCE device, which is called rxeN. Without parts, all of
PARTS run.
"""

import subprocess
import sys
import traceback

from wire_ends import End, KINDS, connect, datagram_pair
from wire_verbs import (ATOMICS, MESSAGES, VERBS, atomic_write, datagrams, flushes, send, send_immediate, write,
                        write_immediate)
import pyverbs.enums as e

MTUS = {256: e.IBV_MTU_256, 512: e.IBV_MTU_512, 1024: e.IBV_MTU_1024, 2048: e.IBV_MTU_2048, 4096: e.IBV_MTU_4096}
# Of the first device.
INTERFACE = "eth0"
FAMILIES = ["v4", "v6"]


def ways(ends):
    """Both directions."""
    return [ends, ends[::-1]]


def mtus(ends, lossy=False):
    """Each verb at each MTU, with both versions of IP: one packet, exactly one, a little more, several."""
    done = 0
    for family in FAMILIES:
        for mtu, code in MTUS.items():
            pair = connect(ends, family, code)
            for sender, receiver in ways(pair):
                for verb in MESSAGES:
                    for size in [1, mtu, mtu + 1, 5 * mtu - 3]:
                        verb(sender, receiver, size)
                        done += 1
                for verb in ATOMICS:
                    # Soft-RoCE (Linux 7.2) repeats an ATOMIC WRITE with address 0.
                    if not (lossy and sender.end.kind == "rxe" and verb is atomic_write):
                        verb(sender, receiver, 8)
                        done += 1
    return done


def mtus_with_loss(ends):
    """Those that both ends repeat properly."""
    return mtus(ends, lossy=True)


def memory(ends):
    """Each verb with each kind of memory at each end."""
    # Soft-RoCE (Linux 7.2) takes a packet in the middle of a page of an on-demand region for one at its start: at this MTU
    # every packet begins a page.
    mtu = e.IBV_MTU_4096 if "rxe" in [end.kind for end in ends] else e.IBV_MTU_1024
    done = 0
    for kinds in [(one, other) for one in KINDS[ends[0].kind] for other in KINDS[ends[1].kind]]:
        pair = connect(ends, "v4", mtu, kinds)
        for sender, receiver in ways(pair):
            for verb in VERBS:
                verb(sender, receiver, 8 if verb in ATOMICS else 9000)
                done += 1
    return done


def shared(ends):
    """Messages that take a receive request of a shared queue."""
    pair = connect(ends, "v4", e.IBV_MTU_1024, shared=True)
    done = 0
    for sender, receiver in ways(pair):
        for verb in [send, send_immediate, write_immediate]:
            for size in [1, 5000]:
                verb(sender, receiver, size)
                done += 1
    return done


def flush_to(ends):
    """FLUSH of a range and of a region, after a WRITE, from the first end to the other."""
    return sum(flushes(*connect(ends, family, e.IBV_MTU_1024)) for family in FAMILIES)


def flush_from(ends):
    """And in the other direction."""
    return flush_to(ends[::-1])


def datagrams_both_ways(ends):
    done = 0
    for family in FAMILIES:
        pair = datagram_pair(ends, family)
        done += sum(datagrams(sender, receiver) for sender, receiver in ways(pair))
    return done


def outage(ends):
    """What the far end sends while the interface of the first is down fails, and not what it sends afterwards."""
    # Soft-RoCE may also stop its queue pair when it loses the signal.
    failures = [e.IBV_WC_RETRY_EXC_ERR] + ([e.IBV_WC_WR_FLUSH_ERR] if ends[1].kind == "rxe" else [])
    near, far = connect(ends, "v4", e.IBV_MTU_1024, retries=2)
    write(far, near, 5000)
    subprocess.run(["ip", "link", "set", INTERFACE, "down"], check=True)
    try:
        far.post(lambda qp: qp.wr_rdma_write(near.region.rkey, near.target), 5000)
        far.completion(failures)
    finally:
        subprocess.run(["ip", "link", "set", INTERFACE, "up"], check=True)
    for end in ends:
        end.await_port()
    near, far = connect(ends, "v4", e.IBV_MTU_1024)
    write(far, near, 5000)
    return 3


PARTS = {"mtus": mtus, "memory": memory, "shared": shared, "datagrams": datagrams_both_ways, "flush_to": flush_to,
         "flush_from": flush_from, "outage": outage}
ON_REQUEST = {"mtus_with_loss": mtus_with_loss}


def main():
    names = sys.argv[1:3]
    ends = [End(name) for name in names]
    failed = False
    for name in sys.argv[3:] or PARTS:
        try:
            print(f"ok - {' '.join(names)} {name}: {(PARTS | ON_REQUEST)[name](ends)} operations", flush=True)
        except Exception:
            traceback.print_exc()
            failed = True
    sys.exit(failed)


main()
