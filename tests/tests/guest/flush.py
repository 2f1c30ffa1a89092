"""RDMA WRITE, then FLUSH to persistence, into a file on DAX; and into volatile memory. Runs in a guest.

usage: flush.py FILE TEXT
"""

import ctypes
import mmap
import os
import sys

from pyverbs.addr import AHAttr
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QPAttr, QPCap, QPEx, QPInitAttrEx
from pyverbs.wr import SGE
import pyverbs.enums as e

BYTES = 1 << 16
FLUSH = e.IBV_ACCESS_FLUSH_GLOBAL | e.IBV_ACCESS_FLUSH_PERSISTENT
REMOTE = e.IBV_ACCESS_REMOTE_WRITE | FLUSH
# Of an on-demand region: translate it by the NIC's table, or in the process' address space.
MODES = {"odp": 1 << 28, "pasid": 1 << 29}
CAUSE_NOT_PERSISTENT = 12

context = Context(name="refault_0")
pd = PD(context)
cq = CQ(context, 16)
lid = context.query_port(1).lid


def queue_pair():
    ops = e.IBV_QP_EX_WITH_RDMA_WRITE | e.IBV_QP_EX_WITH_FLUSH
    init = QPInitAttrEx(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, pd=pd, cap=QPCap(max_send_wr=4, max_recv_wr=4),
                        comp_mask=e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, send_ops_flags=ops)
    return QPEx(context, init)


def connect(qp, peer):
    attr = QPAttr(port_num=1, path_mtu=e.IBV_MTU_4096)
    attr.qp_access_flags = REMOTE
    attr.ah_attr = AHAttr(dlid=lid, port_num=1)
    attr.dest_qp_num = peer.qp_num
    attr.max_rd_atomic, attr.max_dest_rd_atomic, attr.min_rnr_timer = 1, 1, 12
    attr.timeout, attr.retry_cnt, attr.rnr_retry = 0, 7, 7
    qp.to_rts(attr)


def completion():
    while True:
        count, entries = cq.poll()
        if count:
            return entries[0]


def write_and_flush(target, text):
    """Completions of a WRITE of `text` to the region's start, and of a FLUSH of it."""
    sender, receiver = queue_pair(), queue_pair()
    connect(receiver, sender)
    connect(sender, receiver)
    source = MR(pd, BYTES, e.IBV_ACCESS_LOCAL_WRITE)
    source.write(text, len(text))
    sender.wr_start()
    sender.wr_id, sender.wr_flags = 1, e.IBV_SEND_SIGNALED
    sender.wr_rdma_write(target.rkey, target.buf)
    sender.wr_set_sge_list(1, [SGE(source.buf, len(text), source.lkey)])
    sender.wr_id, sender.wr_flags = 2, e.IBV_SEND_SIGNALED
    sender.wr_flush(target.rkey, target.buf, len(text), e.IBV_FLUSH_PERSISTENT, e.IBV_FLUSH_RANGE)
    sender.wr_complete()
    return completion(), completion()


def file_mapping(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, BYTES)
    mapping = mmap.mmap(fd, BYTES)
    return mapping, ctypes.addressof(ctypes.c_char.from_buffer(mapping))


path, text = sys.argv[1:]
for mode, flag in MODES.items():
    mapping, address = file_mapping(path + "." + mode)
    access = e.IBV_ACCESS_LOCAL_WRITE | REMOTE | e.IBV_ACCESS_ON_DEMAND | flag
    region = MR(pd, BYTES, access, address=address)
    line = f"{text} {mode}"
    for entry in write_and_flush(region, line):
        assert entry.status == e.IBV_WC_SUCCESS, (mode, entry)
    assert open(path + "." + mode, "rb").read(len(line)) == line.encode()
    print(f"{mode}: written and flushed")

region = MR(pd, BYTES, e.IBV_ACCESS_LOCAL_WRITE | REMOTE)
written, flushed = write_and_flush(region, text)
assert written.status == e.IBV_WC_SUCCESS, written
assert flushed.status == e.IBV_WC_REM_ACCESS_ERR and flushed.vendor_err == CAUSE_NOT_PERSISTENT, flushed
print("memory that does not survive: refused")
