"""Two machines: a client writes by RDMA into a file of a server whose file system moves its blocks. Runs in both guests.

usage: machines.py server FILE | client SERVER
"""

import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import random
import socket
import subprocess
import sys
import threading
import time

from pyverbs.addr import AHAttr, GID, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, SendWR
import pyverbs.enums as e

PORT = 7777
SLOT = 1 << 16
SLOTS = 64
BYTES = SLOT * SLOTS
WRITES = 300
# Translate an on-demand region in the process' address space.
PASID = 1 << 29
FICLONE = 0x40049409
TIMEOUT, RETRIES = 14, 7
# Of the port's GIDs the one of its IPv4 address.
MAPPED = "0000:0000:0000:0000:0000:ffff:"

context = Context(name="refault_0")
pd = PD(context)
cq = CQ(context, 16)


def own_gid():
    for index in range(16):
        gid = str(context.query_gid(1, index).gid)
        if gid.startswith(MAPPED):
            return index, gid
    raise SystemExit("the port has no IPv4 address")


def queue_pair():
    return QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(max_send_wr=16, max_recv_wr=1)))


def connect(qp, peer):
    index, _ = own_gid()
    attr = QPAttr(port_num=1, path_mtu=e.IBV_MTU_1024)
    attr.qp_access_flags = e.IBV_ACCESS_REMOTE_WRITE
    route = GlobalRoute(dgid=GID(peer["gid"]), sgid_index=index, hop_limit=64)
    attr.ah_attr = AHAttr(gr=route, is_global=1, port_num=1)
    attr.dest_qp_num = peer["qpn"]
    attr.max_rd_atomic, attr.max_dest_rd_atomic, attr.min_rnr_timer = 1, 1, 12
    attr.timeout, attr.retry_cnt, attr.rnr_retry = TIMEOUT, RETRIES, 7
    qp.to_rts(attr)


def completion():
    while True:
        count, entries = cq.poll()
        if count:
            return entries[0]


def record(number, length):
    """What write `number` leaves."""
    seed = hashlib.sha256(str(number).encode()).digest()
    return (seed * (length // len(seed) + 1))[:length]


def talk(line, message=None):
    if message is not None:
        line.sendall(json.dumps(message).encode() + b"\n")
    text = b""
    while not text.endswith(b"\n"):
        piece = line.recv(65536)
        if not piece:
            raise SystemExit("the other side has hung up")
        text += piece
    return json.loads(text)


def blocks(path):
    return subprocess.run(["xfs_io", "-r", "-c", "bmap", path], capture_output=True, check=True).stdout


class Mover(threading.Thread):
    """Shares the file's blocks with a copy again and again, so that each later write needs new ones."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.stop, self.rounds, self.moved = path, False, 0, 0

    def run(self):
        before = blocks(self.path)
        while not self.stop:
            copy = self.path + ".copy"
            with open(self.path, "rb") as source, open(copy, "wb") as target:
                fcntl.ioctl(target, FICLONE, source.fileno())
            time.sleep(0.02)
            os.unlink(copy)
            now = blocks(self.path)
            self.moved += now != before
            before, self.rounds = now, self.rounds + 1


def server(path):
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(file, bytes(BYTES), 0)
    os.fsync(file)
    mapping = mmap.mmap(file, BYTES)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    access = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_ON_DEMAND | PASID
    region = MR(pd, BYTES, access, address=address)
    qp = queue_pair()
    listener = socket.create_server(("", PORT))
    line, _ = listener.accept()
    peer = talk(line)
    connect(qp, peer)
    mover = Mover(path)
    mover.start()
    own = {"qpn": qp.qp_num, "gid": own_gid()[1], "address": address, "rkey": region.rkey}
    ledger = talk(line, own)
    mover.stop = True
    mover.join()
    found = os.pread(file, BYTES, 0)
    wrong = 0
    for slot in range(SLOTS):
        number, length = ledger.get(str(slot), (0, 0))
        wanted = record(number, length) + bytes(SLOT - length)
        wrong += sum(one != other for one, other in zip(found[slot * SLOT:(slot + 1) * SLOT], wanted))
    assert mover.moved > 0, "the file was never moved"
    print(f"{len(ledger)} slots, {wrong} wrong bytes, moved: {mover.moved > 0}", flush=True)
    line.sendall(json.dumps({"wrong": wrong}).encode() + b"\n")
    time.sleep(100000)


def write(qp, source, target, rkey, data, number):
    source.write(data, len(data))
    request = SendWR(wr_id=number, opcode=e.IBV_WR_RDMA_WRITE, num_sge=1,
                     sg=[SGE(source.buf, len(data), source.lkey)], send_flags=e.IBV_SEND_SIGNALED)
    request.set_wr_rdma(rkey, target)
    qp.post_send(request)
    return completion()


def client(address):
    deadline = time.monotonic() + 3000
    while True:
        try:
            line = socket.create_connection((address, PORT), timeout=3000)
            break
        except OSError:
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.5)
    qp = queue_pair()
    peer = talk(line, {"qpn": qp.qp_num, "gid": own_gid()[1]})
    connect(qp, peer)
    source = MR(pd, SLOT, e.IBV_ACCESS_LOCAL_WRITE)
    numbers, ledger = random.Random(1), {}
    for number in range(1, WRITES + 1):
        slot, length = numbers.randrange(SLOTS), numbers.randrange(1, SLOT)
        # A slot holds the last write alone: what is behind it is zero again.
        data = record(number, length) + bytes(SLOT - length)
        done = write(qp, source, peer["address"] + slot * SLOT, peer["rkey"], data, number)
        assert done.status == e.IBV_WC_SUCCESS, done
        ledger[slot] = (number, length)
    assert talk(line, ledger) == {"wrong": 0}
    print("writing on", flush=True)
    number, start = WRITES, time.monotonic()
    while True:
        number += 1
        start = time.monotonic()
        done = write(qp, source, peer["address"], peer["rkey"], record(number, SLOT), number)
        if done.status != e.IBV_WC_SUCCESS:
            break
    waited = time.monotonic() - start
    least = (RETRIES + 1) * 4.096e-6 * 2 ** TIMEOUT
    assert done.status == e.IBV_WC_RETRY_EXC_ERR, done
    assert waited >= least, (waited, least)
    carrier = open("/sys/class/net/eth0/carrier").read().strip()
    print(f"the server is gone: retries exceeded, not before their time; carrier {carrier}", flush=True)


if sys.argv[1] == "server":
    server(sys.argv[2])
else:
    client(sys.argv[2])
