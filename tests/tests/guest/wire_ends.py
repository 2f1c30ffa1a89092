"""Two ends of a wire, in one program: devices, memory of each kind, connected queue pairs."""

import ctypes
import mmap
import random
import time

from pyverbs.addr import AH, AHAttr, GID, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsError
from pyverbs.qp import QPAttr, QPCap, QPEx, QPInitAttrEx
from pyverbs.srq import SRQ, SrqAttr, SrqInitAttr
from pyverbs.wr import SGE, RecvWR
import pyverbs.enums as e

# Half of it is the side's own, half is for the other side's requests.
BYTES = 1 << 17
HALF = BYTES // 2
GRH = 40
INLINE = 64
READS = 16
QKEY = 0x1234
# Only so that a hang ends.
PATIENCE_S = 900
# Of connections, 0.5 s: on some wires frames are lost, and on slow machines pages take long.
TIMEOUT, RETRIES = 17, 7

RIGHTS = (e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
          | e.IBV_ACCESS_FLUSH_GLOBAL)
# Of an on-demand region of refault: translate it by the NIC's table, or in the process' address space.
BY_TABLE, BY_PROCESS = 1 << 28, 1 << 29
# Rights, and whether the region is all of the process' memory.
REGIONS = {
    "pinned": (0, False),
    "on demand": (e.IBV_ACCESS_ON_DEMAND, False),
    "odp": (e.IBV_ACCESS_ON_DEMAND | BY_TABLE, False),
    "pasid": (e.IBV_ACCESS_ON_DEMAND | BY_PROCESS, False),
    "odp, implicit": (e.IBV_ACCESS_ON_DEMAND | BY_TABLE, True),
    "pasid, implicit": (e.IBV_ACCESS_ON_DEMAND | BY_PROCESS, True),
}
KINDS = {"refault": [name for name in REGIONS if name != "on demand"], "rxe": ["pinned", "on demand"]}

CONNECTED = (e.IBV_QP_EX_WITH_RDMA_WRITE | e.IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | e.IBV_QP_EX_WITH_SEND
             | e.IBV_QP_EX_WITH_SEND_WITH_IMM | e.IBV_QP_EX_WITH_RDMA_READ | e.IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
             | e.IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | e.IBV_QP_EX_WITH_ATOMIC_WRITE | e.IBV_QP_EX_WITH_FLUSH)
DATAGRAM = e.IBV_QP_EX_WITH_SEND | e.IBV_QP_EX_WITH_SEND_WITH_IMM

chance = random.Random(1)


class End:
    """A device of the wire."""

    def __init__(self, name):
        self.name, self.kind = name, name.rstrip("0123456789").rstrip("_")
        self.context = Context(name=name)
        self.pd = PD(self.context)

    def await_port(self):
        while self.context.query_port(1).state != e.IBV_PORT_ACTIVE:
            time.sleep(0.01)

    def gid(self, family):
        """Index and text of a GID: an IPv4 address, or the link-local one."""
        start = {"v4": "0000:0000:0000:0000:0000:ffff:0a4d", "v6": "fe80:"}[family]
        for index in range(self.context.query_port(1).gid_tbl_len):
            try:
                gid = self.context.query_gid(1, index).gid
            except PyverbsError:
                continue
            if gid.startswith(start):
                return index, gid
        raise AssertionError(f"{self.name} has no GID that begins with {start}")


class Side:
    """A queue pair with its memory."""

    def __init__(self, end, kind="pinned", transport=e.IBV_QPT_RC, shared=False):
        self.end, self.name = end, f"{end.name} ({kind})"
        self.cq = CQ(end.context, 64)
        self.srq = SRQ(end.pd, SrqInitAttr(SrqAttr(max_wr=16))) if shared else None
        cap = QPCap(max_send_wr=64, max_recv_wr=16, max_inline_data=INLINE)
        ops = DATAGRAM if transport == e.IBV_QPT_UD else CONNECTED
        init = QPInitAttrEx(qp_type=transport, scq=self.cq, rcq=self.cq, pd=end.pd, cap=cap, srq=self.srq,
                            send_ops_flags=ops, comp_mask=e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
        self.qp = QPEx(end.context, init)
        # Shared, so that pages which were taken away keep what they hold.
        self.mapping = mmap.mmap(-1, BYTES)
        self.own = ctypes.addressof(ctypes.c_char.from_buffer(self.mapping))
        self.target = self.own + HALF
        rights, whole = REGIONS[kind]
        self.pages_come_and_go = rights != 0
        self.region = self.register(RIGHTS | rights, whole)
        self.ah = None

    def register(self, rights, whole):
        if whole:
            return MR(self.end.pd, 0, rights, implicit=True)
        return MR(self.end.pd, BYTES, rights, address=self.own)

    def put(self, offset, data):
        self.mapping[offset:offset + len(data)] = data

    def get(self, offset, size):
        return self.mapping[offset:offset + size]

    def forget(self):
        """Takes the pages away from the process, so that on-demand regions have to ask for them."""
        if self.pages_come_and_go:
            self.mapping.madvise(mmap.MADV_DONTNEED)

    def receive(self, size):
        wr = RecvWR(num_sge=1, sg=[SGE(self.target, size, self.region.lkey)])
        (self.srq or self.qp).post_recv(wr)

    def post(self, begin, size, inline=False):
        """One request with the first bytes of the own half."""
        qp = self.qp
        qp.wr_start()
        # The provider of soft-RoCE leaves it to the flag whether data is inline.
        flags = e.IBV_SEND_SIGNALED | (e.IBV_SEND_INLINE if inline and self.end.kind == "rxe" else 0)
        qp.wr_id, qp.wr_flags = 7, flags
        begin(qp)
        if inline:
            qp.wr_set_inline_data(self.own, size)
        elif size:
            qp.wr_set_sge(SGE(self.own, size, self.region.lkey))
        qp.wr_complete()

    def completion(self, wanted=(e.IBV_WC_SUCCESS,)):
        """The next completion, which must have one of these statuses."""
        limit = time.monotonic() + PATIENCE_S
        while True:
            count, entries = self.cq.poll()
            if count:
                assert entries[0].status in wanted, f"{self.name}: {entries[0]}"
                return entries[0]
            assert time.monotonic() < limit, f"{self.name}: no completion"

    def route(self, other, family):
        index, _ = self.end.gid(family)
        _, gid = other.end.gid(family)
        # UCX has these 32 bits for every queue pair; 20 are the label.
        label = 0xffffffff if family == "v6" else 0
        route = GlobalRoute(dgid=GID(gid), sgid_index=index, hop_limit=64, flow_label=label)
        return AHAttr(port_num=1, is_global=1, gr=route)


def text(size):
    return chance.randbytes(size)


def connect(ends, family, mtu, kinds=("pinned", "pinned"), shared=False, retries=RETRIES):
    """Two sides with connected queue pairs."""
    sides = [Side(end, kind, shared=shared) for end, kind in zip(ends, kinds)]
    for side, other in [sides, sides[::-1]]:
        attr = QPAttr(port_num=1, path_mtu=mtu)
        attr.qp_access_flags = RIGHTS | e.IBV_ACCESS_FLUSH_PERSISTENT
        attr.ah_attr = side.route(other, family)
        attr.dest_qp_num = other.qp.qp_num
        attr.max_rd_atomic, attr.max_dest_rd_atomic, attr.min_rnr_timer = READS, READS, 12
        attr.timeout, attr.retry_cnt, attr.rnr_retry = TIMEOUT, retries, 7
        attr.rq_psn = attr.sq_psn = 0xfffff0
        side.qp.to_rts(attr)
    return sides


def datagram_pair(ends, family):
    """Two sides with datagram queue pairs, and paths to each other."""
    sides = [Side(end, transport=e.IBV_QPT_UD) for end in ends]
    for side, other in [sides, sides[::-1]]:
        attr = QPAttr(port_num=1)
        attr.qkey = QKEY
        side.qp.to_rts(attr)
        side.ah = AH(side.end.pd, attr=side.route(other, family))
    return sides
