"""Verbs from one side of a wire to the other. Each checks its completions, the data, and the byte behind it."""

import socket
import struct

import pyverbs.enums as e

from wire_ends import GRH, HALF, INLINE, QKEY, text

IMMEDIATE = 0x01020384
WORD = struct.Struct("=Q")


def moved(sender, receiver, size, post):
    """Lets `post` move `size` bytes from the sender's half to the receiver's target."""
    data = text(size)
    sender.put(0, data)
    receiver.put(HALF, bytes(size + 1))
    post(data)
    found = receiver.get(HALF, size + 1)
    assert found == data + b"\0", f"{sender.name} to {receiver.name}: {size} bytes are wrong"


def received(sender, receiver, size, begin, opcode, immediate=None, inline=False, room=None):
    """As `moved`, with a receive request."""
    def post(_):
        for side in (sender, receiver):
            side.forget()
        receiver.receive(room or size + 1)
        sender.post(begin, size, inline)
        sender.completion()
        entry = receiver.completion()
        assert (entry.opcode, entry.byte_len) == (opcode, size), entry
        check_immediate(entry, immediate)
    moved(sender, receiver, size, post)


def check_immediate(entry, wanted):
    # pyverbs swaps the bytes of what is sent, and leaves those of what is received.
    found = socket.ntohl(entry.imm_data) if entry.wc_flags & e.IBV_WC_WITH_IMM else None
    assert found == wanted, entry


def alone(sender, receiver, size, begin, inline=False):
    """As `moved`, without one."""
    def post(_):
        for side in (sender, receiver):
            side.forget()
        sender.post(begin, size, inline)
        sender.completion()
    moved(sender, receiver, size, post)


def send(sender, receiver, size):
    received(sender, receiver, size, lambda qp: qp.wr_send(), e.IBV_WC_RECV)


def send_immediate(sender, receiver, size):
    received(sender, receiver, size, lambda qp: qp.wr_send_imm(IMMEDIATE), e.IBV_WC_RECV, IMMEDIATE)


def send_inline(sender, receiver, size):
    received(sender, receiver, min(size, INLINE), lambda qp: qp.wr_send(), e.IBV_WC_RECV, inline=True)


def write(sender, receiver, size):
    alone(sender, receiver, size, lambda qp: qp.wr_rdma_write(receiver.region.rkey, receiver.target))


def write_inline(sender, receiver, size):
    begin = lambda qp: qp.wr_rdma_write(receiver.region.rkey, receiver.target)
    alone(sender, receiver, min(size, INLINE), begin, inline=True)


def write_immediate(sender, receiver, size):
    begin = lambda qp: qp.wr_rdma_write_imm(receiver.region.rkey, receiver.target, IMMEDIATE)
    received(sender, receiver, size, begin, e.IBV_WC_RECV_RDMA_WITH_IMM, IMMEDIATE)


def read(sender, receiver, size):
    data = text(size)
    receiver.put(HALF, data)
    sender.put(0, bytes(size + 1))
    for side in (sender, receiver):
        side.forget()
    sender.post(lambda qp: qp.wr_rdma_read(receiver.region.rkey, receiver.target), size)
    sender.completion()
    assert sender.get(0, size + 1) == data + b"\0", f"{sender.name} from {receiver.name}: {size} bytes are wrong"


def atomic(sender, receiver, before, after, begin):
    """One that leaves `after` at the receiver and brings `before`."""
    receiver.put(HALF, WORD.pack(before))
    sender.put(0, bytes(8))
    for side in (sender, receiver):
        side.forget()
    sender.post(begin, 8)
    sender.completion()
    found = WORD.unpack(sender.get(0, 8))[0], WORD.unpack(receiver.get(HALF, 8))[0]
    assert found == (before, after), f"{sender.name} to {receiver.name}: {found}, not {(before, after)}"


def compare_swap(sender, receiver, _):
    before, after = [WORD.unpack(text(8))[0] for _ in range(2)]
    key, at = receiver.region.rkey, receiver.target
    atomic(sender, receiver, before, after, lambda qp: qp.wr_atomic_cmp_swp(key, at, before, after))
    atomic(sender, receiver, before, before, lambda qp: qp.wr_atomic_cmp_swp(key, at, before ^ 1, after))


def fetch_add(sender, receiver, _):
    before, more = [WORD.unpack(text(8))[0] for _ in range(2)]
    begin = lambda qp: qp.wr_atomic_fetch_add(receiver.region.rkey, receiver.target, more)
    atomic(sender, receiver, before, (before + more) % (1 << 64), begin)


def atomic_write(sender, receiver, _):
    def post(data):
        receiver.forget()
        sender.post(lambda qp: qp.wr_atomic_write(receiver.region.rkey, receiver.target, data), 0)
        sender.completion()
    moved(sender, receiver, 8, post)


MESSAGES = [send, send_immediate, write, write_immediate, read]
ATOMICS = [compare_swap, fetch_add, atomic_write]
VERBS = [*MESSAGES, send_inline, write_inline, *ATOMICS]


def flushes(sender, receiver):
    """WRITE and FLUSH to global visibility, posted together. Returns how many."""
    key, at, size = receiver.region.rkey, receiver.target, 5000
    for level in [e.IBV_FLUSH_RANGE, e.IBV_FLUSH_MR]:
        def post(_):
            sender.post(lambda qp: qp.wr_rdma_write(key, at), size)
            length = size if level == e.IBV_FLUSH_RANGE else 0
            sender.post(lambda qp: qp.wr_flush(key, at, length, e.IBV_FLUSH_GLOBAL, level), 0)
            sender.completion()
            sender.completion()
        moved(sender, receiver, size, post)
    return 2


def datagrams(sender, receiver):
    """With and without immediate data. Returns how many."""
    done = 0
    for immediate in [None, IMMEDIATE]:
        for size in [1, 255, 1024]:
            data = text(size)
            sender.put(0, data)
            receiver.put(HALF, bytes(GRH + size + 1))
            receiver.receive(GRH + size)

            def begin(qp):
                qp.wr_send() if immediate is None else qp.wr_send_imm(immediate)
                qp.wr_set_ud_addr(sender.ah, receiver.qp.qp_num, QKEY)
            sender.post(begin, size)
            sender.completion()
            entry = receiver.completion()
            assert (entry.byte_len, entry.src_qp) == (GRH + size, sender.qp.qp_num), entry
            assert entry.wc_flags & e.IBV_WC_GRH, entry
            check_immediate(entry, immediate)
            header, rest = receiver.get(HALF, GRH), receiver.get(HALF + GRH, size + 1)
            assert rest == data + b"\0", f"{sender.name} to {receiver.name}: {size} bytes are wrong"
            by_ipv6 = header[0] >> 4 == 6
            assert by_ipv6 or header[20] == 0x45, header.hex()
            assert receiver.end.kind == "rxe" or entry.sl == (9 if by_ipv6 else 10), entry
            done += 1
    return done
