"""Makes records durable in a file on DAX from another device, by RDMA WRITE and FLUSH, while its blocks move. In a guest.

usage: remote_flush.py FILE

It goes on without end, with a line `flushed N` when record N is durable.
"""

import ctypes
import fcntl
import mmap
import os
import sys

from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QPAttr, QPCap, QPEx, QPInitAttrEx
from pyverbs.wr import SGE
import pyverbs.enums as e

BLOCK = 4096
BLOCKS = 1024
FICLONE = 0x40049409
ODP_BY_PASID = 1 << 29
FLUSH = e.IBV_ACCESS_FLUSH_GLOBAL | e.IBV_ACCESS_FLUSH_PERSISTENT
REMOTE = e.IBV_ACCESS_REMOTE_WRITE | FLUSH


def record(number):
    return f"record {number} in block {number % BLOCKS}\n".encode()


class End:
    """A device with a queue pair."""

    def __init__(self, name):
        self.context = Context(name=name)
        self.pd = PD(self.context)
        self.cq = CQ(self.context, 16)
        ops = e.IBV_QP_EX_WITH_RDMA_WRITE | e.IBV_QP_EX_WITH_FLUSH
        init = QPInitAttrEx(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, pd=self.pd,
                            cap=QPCap(max_send_wr=4, max_recv_wr=4),
                            comp_mask=e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, send_ops_flags=ops)
        self.qp = QPEx(self.context, init)

    def connect(self, peer):
        attr = QPAttr(port_num=1, path_mtu=self.context.query_port(1).active_mtu)
        attr.qp_access_flags = REMOTE
        route = GlobalRoute(dgid=peer.context.query_gid(1, 0), sgid_index=0)
        attr.ah_attr = AHAttr(gr=route, is_global=1, port_num=1)
        attr.dest_qp_num = peer.qp.qp_num
        attr.max_rd_atomic, attr.max_dest_rd_atomic, attr.min_rnr_timer = 1, 1, 12
        attr.timeout, attr.retry_cnt, attr.rnr_retry = 19, 7, 7
        self.qp.to_rts(attr)

    def write_and_flush(self, source, length, target, address):
        self.qp.wr_start()
        self.qp.wr_id, self.qp.wr_flags = 1, 0
        self.qp.wr_rdma_write(target.rkey, address)
        self.qp.wr_set_sge(SGE(source.buf, length, source.lkey))
        self.qp.wr_id, self.qp.wr_flags = 2, e.IBV_SEND_SIGNALED
        self.qp.wr_flush(target.rkey, address, length, e.IBV_FLUSH_PERSISTENT, e.IBV_FLUSH_RANGE)
        self.qp.wr_complete()
        while True:
            count, entries = self.cq.poll()
            if count:
                assert entries[0].status == e.IBV_WC_SUCCESS and entries[0].wr_id == 2, entries[0]
                return


def write(path):
    server, writer = End("refault_0"), End("refault_1")
    server.connect(writer)
    writer.connect(server)
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(file, bytes(BLOCK * BLOCKS))
    os.fsync(file)
    mapping = mmap.mmap(file, BLOCK * BLOCKS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    target = MR(server.pd, BLOCK * BLOCKS, e.IBV_ACCESS_LOCAL_WRITE | REMOTE | e.IBV_ACCESS_ON_DEMAND | ODP_BY_PASID,
                address=start)
    source = MR(writer.pd, BLOCK, e.IBV_ACCESS_LOCAL_WRITE)
    number = 0
    while True:
        if number % 64 == 0:
            # All blocks are shared with a copy now, so what is written moves to another one.
            copy = os.open(path + ".copy", os.O_RDWR | os.O_CREAT)
            fcntl.ioctl(copy, FICLONE, file)
            os.close(copy)
        text = record(number)
        source.write(text.decode(), len(text))
        writer.write_and_flush(source, len(text), target, start + number % BLOCKS * BLOCK)
        print("flushed", number, flush=True)
        number += 1


write(sys.argv[1])
