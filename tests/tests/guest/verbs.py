"""What verbs must refuse, and that refusing changes nothing. Runs in a guest."""

import errno
import sys
import traceback

from pyverbs.addr import AH, AHAttr, GlobalRoute
from pyverbs.cq import CQ, CQEX, CqInitAttrEx, PollCqAttr
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsRDMAError
from pyverbs.qp import QP, QPAttr, QPCap, QPEx, QPInitAttr, QPInitAttrEx
from pyverbs.srq import SRQ, SrqAttr, SrqInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR
import pyverbs.enums as e

RESET, INIT, RTR, RTS, SQD, SQE, ERR = range(7)
NAMES = ["RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"]

# The InfiniBand specification's table of transitions (10.3.1, 11.2.5.2): what each requires, and what may come with it.
RC = {
    (RESET, INIT): ("PKEY_INDEX PORT ACCESS_FLAGS", ""),
    (INIT, INIT): ("", "PKEY_INDEX PORT ACCESS_FLAGS"),
    (INIT, RTR): ("AV PATH_MTU DEST_QPN RQ_PSN MAX_DEST_RD_ATOMIC MIN_RNR_TIMER", "ACCESS_FLAGS PKEY_INDEX"),
    (RTR, RTS): ("TIMEOUT RETRY_CNT RNR_RETRY SQ_PSN MAX_QP_RD_ATOMIC", "CUR_STATE ACCESS_FLAGS MIN_RNR_TIMER"),
    (RTS, RTS): ("", "CUR_STATE ACCESS_FLAGS MIN_RNR_TIMER"),
    (RTS, SQD): ("", "EN_SQD_ASYNC_NOTIFY"),
    (SQD, RTS): ("", "CUR_STATE ACCESS_FLAGS MIN_RNR_TIMER"),
    (SQD, SQD): ("", "PORT AV TIMEOUT RETRY_CNT RNR_RETRY MAX_QP_RD_ATOMIC MAX_DEST_RD_ATOMIC PKEY_INDEX "
                 "ACCESS_FLAGS MIN_RNR_TIMER"),
}
UD = {
    (RESET, INIT): ("PKEY_INDEX PORT QKEY", ""),
    (INIT, INIT): ("", "PKEY_INDEX PORT QKEY"),
    (INIT, RTR): ("", "PKEY_INDEX QKEY"),
    (RTR, RTS): ("SQ_PSN", "CUR_STATE QKEY"),
    (RTS, RTS): ("", "CUR_STATE QKEY"),
    (RTS, SQD): ("", "EN_SQD_ASYNC_NOTIFY"),
    (SQD, RTS): ("", "CUR_STATE QKEY"),
    (SQD, SQD): ("", "PKEY_INDEX QKEY"),
    (SQE, RTS): ("", "CUR_STATE QKEY"),
}
ATTRIBUTES = ("PKEY_INDEX PORT ACCESS_FLAGS QKEY AV PATH_MTU DEST_QPN RQ_PSN SQ_PSN MAX_DEST_RD_ATOMIC MAX_QP_RD_ATOMIC "
              "MIN_RNR_TIMER TIMEOUT RETRY_CNT RNR_RETRY").split()


def bit(name):
    return getattr(e, "IBV_QP_" + name)


def mask(names):
    bits = 0
    for name in names:
        bits |= bit(name)
    return bits


def refused(what, call, *codes):
    try:
        call()
    except PyverbsRDMAError as error:
        assert not codes or error.error_code in codes, f"{what}: {error}"
        return
    raise AssertionError(f"{what} was not refused")


def attributes(state, current=RTS):
    attr = QPAttr(qp_state=state, cur_qp_state=current, port_num=1, path_mtu=e.IBV_MTU_1024)
    attr.ah_attr = AHAttr(dlid=LID, port_num=1)
    attr.dest_qp_num, attr.rq_psn, attr.sq_psn, attr.qkey = 0x123, 7, 8, 0x11
    attr.max_rd_atomic, attr.max_dest_rd_atomic, attr.min_rnr_timer = 1, 1, 12
    attr.timeout, attr.retry_cnt, attr.rnr_retry = 14, 7, 7
    return attr


class Bench:
    """One queue pair and what it needs."""

    def __init__(self, kind, srq=None):
        self.cq = CQ(context, 16)
        cap = QPCap(max_send_wr=4, max_recv_wr=4)
        self.qp = QP(pd, QPInitAttr(qp_type=kind, scq=self.cq, rcq=self.cq, cap=cap, srq=srq))
        self.table = UD if kind == e.IBV_QPT_UD else RC

    def state(self):
        return self.qp.query(e.IBV_QP_STATE)[0].qp_state

    def move(self, state):
        self.qp.modify(attributes(state), mask(["STATE"] + self.table.get((self.state(), state), ("", ""))[0].split()))

    def bring(self, state):
        self.move(RESET)
        path = {RESET: [], ERR: [INIT, ERR], SQD: [INIT, RTR, RTS, SQD], SQE: [INIT, RTR, RTS]}
        for step in path.get(state, range(INIT, state + 1)):
            self.move(step)
        if state == SQE:
            self.fail_send()
        assert self.state() == state, f"{NAMES[self.state()]}, not {NAMES[state]}"

    def fail_send(self):
        """A datagram longer than the MTU is the sender's fault: its send queue stops."""
        mr = MR(pd, 8192, e.IBV_ACCESS_LOCAL_WRITE)
        wr = SendWR(num_sge=1, sg=[SGE(mr.buf, 8000, mr.lkey)])
        ah = AH(pd, attr=AHAttr(dlid=LID, port_num=1))
        wr.set_wr_ud(ah, 1, 0x11)
        self.qp.post_send(wr)
        assert poll(self.cq).status == e.IBV_WC_LOC_LEN_ERR


def poll(cq):
    while True:
        count, wcs = cq.poll()
        if count:
            return wcs[0]


def transitions(kind, states):
    bench = Bench(kind)
    tried = 0

    def attempt(source, target, names, legal):
        nonlocal tried
        tried += 1
        if bench.state() != source:
            bench.bring(source)
        attr = attributes(target, source)
        what = f"{NAMES[source]} to {NAMES[target]} with {' '.join(names)}"
        if legal:
            try:
                bench.qp.modify(attr, mask(names))
            except PyverbsRDMAError as error:
                raise AssertionError(f"{what}: {error}") from error
            assert bench.state() == target, what
        else:
            refused(what, lambda: bench.qp.modify(attr, mask(names)), errno.EINVAL)
            assert bench.state() == source, what

    for source in states:
        for target in range(7):
            entry = bench.table.get((source, target))
            # Linux has no way from RESET to ERR.
            always = target == RESET or (target == ERR and source != RESET)
            required, optional = [names.split() for names in entry or ("", "")]
            attempt(source, target, ["STATE"] + required, always or entry is not None)
            if not entry:
                continue
            for name in required:
                attempt(source, target, ["STATE"] + [other for other in required if other != name], False)
            for name in optional:
                attempt(source, target, ["STATE"] + required + [name], True)
            for name in set(ATTRIBUTES) - set(required) - set(optional):
                attempt(source, target, ["STATE"] + required + [name], False)
    print(f"{tried} transitions of QP type {kind}")


def connected_transitions():
    transitions(e.IBV_QPT_RC, [RESET, INIT, RTR, RTS, SQD, ERR])


def datagram_transitions():
    transitions(e.IBV_QPT_UD, range(7))


def bad_values():
    bench = Bench(e.IBV_QPT_RC)
    for name, field, value in [("PORT", "port_num", 2), ("PKEY_INDEX", "pkey_index", 1)]:
        attr = attributes(INIT)
        setattr(attr, field, value)
        refused(field, lambda: bench.qp.modify(attr, mask(["STATE"] + RC[RESET, INIT][0].split())), errno.EINVAL)
    bench.move(INIT)
    for field, value in [("path_mtu", 6), ("path_mtu", 0), ("max_dest_rd_atomic", 17), ("min_rnr_timer", 32)]:
        attr = attributes(RTR)
        setattr(attr, field, value)
        refused(field, lambda: bench.qp.modify(attr, mask(["STATE"] + RC[INIT, RTR][0].split())), errno.EINVAL)
    attr = attributes(RTR)
    attr.ah_attr = AHAttr(dlid=LID, port_num=1, is_global=1, gr=GlobalRoute(sgid_index=9))
    refused("own GID 9", lambda: bench.qp.modify(attr, mask(["STATE"] + RC[INIT, RTR][0].split())))
    bench.move(RTR)
    for field, value in [("timeout", 32), ("retry_cnt", 8), ("rnr_retry", 8), ("max_rd_atomic", 17)]:
        attr = attributes(RTS)
        setattr(attr, field, value)
        refused(field, lambda: bench.qp.modify(attr, mask(["STATE"] + RC[RTR, RTS][0].split())), errno.EINVAL)
    assert bench.state() == RTR


def address_handles():
    AH(pd, attr=AHAttr(dlid=LID, port_num=1)).close()
    for what, attr in [
        ("port 2", AHAttr(dlid=LID, port_num=2)),
        ("LID 0", AHAttr(dlid=0, port_num=1)),
        ("a multicast LID", AHAttr(dlid=0xC001, port_num=1)),
        ("path bits", AHAttr(dlid=LID, port_num=1, src_path_bits=1)),
        ("service level 16", AHAttr(dlid=LID, port_num=1, sl=16)),
        ("own GID 5", AHAttr(dlid=LID, port_num=1, is_global=1, gr=GlobalRoute(sgid_index=5))),
    ]:
        refused(what, lambda: AH(pd, attr=attr))


def shared_receive_queue():
    for wrs, sges in [(0, 1), (1 << 20, 1), (8, 13)]:
        refused(f"{wrs} x {sges}", lambda: SRQ(pd, SrqInitAttr(SrqAttr(max_wr=wrs, max_sge=sges))), errno.EINVAL)
    srq = SRQ(pd, SrqInitAttr(SrqAttr(max_wr=8)))
    mr = MR(pd, 64, e.IBV_ACCESS_LOCAL_WRITE)
    receive = RecvWR(num_sge=1, sg=[SGE(mr.buf, 64, mr.lkey)])
    refused("a limit above the ring", lambda: srq.modify(SrqAttr(srq_limit=9), e.IBV_SRQ_LIMIT), errno.EINVAL)
    refused("resizing", lambda: srq.modify(SrqAttr(max_wr=16), e.IBV_SRQ_MAX_WR), errno.EOPNOTSUPP)
    assert srq.query().max_wr == 8
    for _ in range(8):
        srq.post_recv(receive)
    refused("one more than it holds", lambda: srq.post_recv(receive), errno.ENOMEM)
    bench = Bench(e.IBV_QPT_RC, srq)
    bench.move(INIT)
    refused("a receive of its own", lambda: bench.qp.post_recv(receive), errno.EINVAL)
    bench.move(ERR)
    event = context.get_async_event()
    assert event.event_type == e.IBV_EVENT_QP_LAST_WQE_REACHED, event.event_type
    event.ack()
    srq.modify(SrqAttr(srq_limit=8), e.IBV_SRQ_LIMIT)
    assert srq.query().srq_limit == 8


def inline_data():
    cq = CQ(context, 8)

    def queue_pair(size):
        return QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(max_inline_data=size)))

    refused("193 bytes inline", lambda: queue_pair(193), errno.EINVAL)
    attr, _ = queue_pair(192).query(e.IBV_QP_CAP)
    assert attr.cap.max_inline_data == 192, attr.cap.max_inline_data


def extended_queue_pair(kind, ops, cq):
    init = QPInitAttrEx(qp_type=kind, scq=cq, rcq=cq, pd=pd, cap=QPCap(max_send_wr=4, max_recv_wr=4),
                        comp_mask=e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, send_ops_flags=ops)
    attr = QPAttr(port_num=1)
    attr.qkey = 0x11
    return QPEx(context, init, attr)


def extended_posting():
    cq = CQ(context, 8)
    for op in ["LOCAL_INV", "BIND_MW", "SEND_WITH_INV", "TSO"]:
        flag = getattr(e, "IBV_QP_EX_WITH_" + op)
        refused(op, lambda: extended_queue_pair(e.IBV_QPT_RC, flag, cq), errno.EOPNOTSUPP)
    refused("datagrams that write", lambda: extended_queue_pair(e.IBV_QPT_UD, e.IBV_QP_EX_WITH_RDMA_WRITE, cq),
            errno.EOPNOTSUPP)
    qp = extended_queue_pair(e.IBV_QPT_UD, e.IBV_QP_EX_WITH_SEND, cq)
    ah = AH(pd, attr=AHAttr(dlid=LID, port_num=1))
    mr = MR(pd, 4096, e.IBV_ACCESS_LOCAL_WRITE)

    def begin(wr_id, size):
        qp.wr_id, qp.wr_flags = wr_id, e.IBV_SEND_SIGNALED
        qp.wr_send()
        qp.wr_set_ud_addr(ah, qp.qp_num, 0x11)
        qp.wr_set_inline_data(mr.buf, size)

    # One invalid request discards its whole batch; so does an abort.
    qp.wr_start()
    begin(1, 8)
    begin(2, 193)
    refused("193 bytes inline", qp.wr_complete, errno.EINVAL)
    qp.wr_start()
    begin(3, 8)
    qp.wr_abort()
    qp.wr_start()
    for wr_id in range(5):
        begin(10 + wr_id, 8)
    refused("five into a queue of four", qp.wr_complete, errno.ENOMEM)
    qp.wr_start()
    begin(4, 64)
    qp.wr_complete()
    wc = poll(cq)
    assert (wc.wr_id, wc.status) == (4, e.IBV_WC_SUCCESS), (wc.wr_id, wc.status)


def extended_polling():
    refused("a wall clock", lambda: CQEX(context, CqInitAttrEx(
        cqe=8, wc_flags=e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK)), errno.EOPNOTSUPP)
    refused("unchecked overrun", lambda: CQEX(context, CqInitAttrEx(
        cqe=8, comp_mask=e.IBV_CQ_INIT_ATTR_MASK_FLAGS, flags=e.IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN)), errno.EOPNOTSUPP)
    cq = CQEX(context, CqInitAttrEx(
        cqe=8, wc_flags=e.IBV_WC_STANDARD_FLAGS | e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP,
        comp_mask=e.IBV_CQ_INIT_ATTR_MASK_FLAGS, flags=e.IBV_CREATE_CQ_ATTR_SINGLE_THREADED))
    refused("resizing", lambda: CQ(context, 8).resize(16), errno.EOPNOTSUPP)
    assert cq.start_poll(PollCqAttr()) == errno.ENOENT
    qp = extended_queue_pair(e.IBV_QPT_UD, e.IBV_QP_EX_WITH_SEND, cq)
    ah = AH(pd, attr=AHAttr(dlid=LID, port_num=1))
    stamps = []
    for wr_id in range(3):
        qp.wr_start()
        qp.wr_id, qp.wr_flags = wr_id, e.IBV_SEND_SIGNALED
        qp.wr_send()
        qp.wr_set_ud_addr(ah, 1, 0x11)
        qp.wr_complete()
        while cq.start_poll(PollCqAttr()) == errno.ENOENT:
            pass
        assert (cq.wr_id, cq.read_opcode(), cq.read_qp_num()) == (wr_id, e.IBV_WC_SEND, qp.qp_num)
        stamps.append(cq.read_timestamp())
        assert cq.poll_next() == errno.ENOENT
        cq.end_poll()
    assert 0 < stamps[0] < stamps[1] < stamps[2], stamps


context = Context(name="refault_0")
LID = context.query_port(1).lid
pd = PD(context)
failed = False
for check in [connected_transitions, datagram_transitions, bad_values, address_handles, shared_receive_queue,
              inline_data, extended_posting, extended_polling]:
    try:
        check()
        print(f"{check.__name__}: as it must be", flush=True)
    except Exception:
        traceback.print_exc()
        failed = True
sys.exit(failed)
