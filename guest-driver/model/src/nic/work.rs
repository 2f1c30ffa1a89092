//! Constructors of work requests.

use refault_abi::codes::{
    FLUSH_RANGE, OP_ATOMIC_WRITE, OP_COMPARE_SWAP, OP_FETCH_ADD, OP_FLUSH, OP_RDMA_READ, OP_RDMA_WRITE,
    OP_SEND, Opcode,
};
use refault_abi::queue::{MAX_INLINE, RqWqe, Sge, SqWqe, WQE_INLINE, WQE_SIGNALED};
use refault_bus::Iova;
use zerocopy::IntoBytes;

/// A scatter/gather element: `length` bytes at `addr` in the region with `lkey`.
pub const fn piece(addr: Iova, length: u32, lkey: u32) -> Sge {
    Sge { addr: addr.0, length, lkey }
}

/// A signaled request with `opcode`, `OP_*`, and up to twelve elements.
pub fn request(opcode: Opcode, wr_id: u64, pieces: &[Sge]) -> SqWqe {
    let mut wqe = SqWqe { opcode, flags: WQE_SIGNALED, wr_id, ..SqWqe::default() };
    for (slot, &piece) in wqe.sge.iter_mut().zip(pieces) {
        *slot = piece;
    }
    wqe.num_sge = u8::try_from(pieces.len()).unwrap_or(u8::MAX);
    wqe
}

/// A signaled RDMA WRITE of one element.
pub fn rdma_write(wr_id: u64, local: Sge, remote: Iova, rkey: u32) -> SqWqe {
    SqWqe { remote_addr: remote.0, rkey, ..request(OP_RDMA_WRITE, wr_id, &[local]) }
}

/// A signaled RDMA READ into one element.
pub fn rdma_read(wr_id: u64, local: Sge, remote: Iova, rkey: u32) -> SqWqe {
    SqWqe { remote_addr: remote.0, rkey, ..request(OP_RDMA_READ, wr_id, &[local]) }
}

/// A signaled SEND of one element.
pub fn send(wr_id: u64, local: Sge) -> SqWqe {
    request(OP_SEND, wr_id, &[local])
}

/// A signaled RDMA WRITE of inline data, cut to [`MAX_INLINE`] bytes.
pub fn inline_write(wr_id: u64, data: &[u8], remote: Iova, rkey: u32) -> SqWqe {
    let mut wqe = SqWqe { remote_addr: remote.0, rkey, ..request(OP_RDMA_WRITE, wr_id, &[]) };
    wqe.flags |= WQE_INLINE;
    let inline = &data[..data.len().min(MAX_INLINE as usize)];
    wqe.inline_length = u32::try_from(inline.len()).unwrap_or(MAX_INLINE);
    wqe.sge.as_mut_bytes()[..inline.len()].copy_from_slice(inline);
    wqe
}

/// A signaled FETCH AND ADD. `local` has 8 bytes for the old value.
pub fn fetch_add(wr_id: u64, local: Sge, remote: Iova, rkey: u32, add: u64) -> SqWqe {
    let wqe = request(OP_FETCH_ADD, wr_id, &[local]);
    SqWqe { remote_addr: remote.0, rkey, compare_add: add, ..wqe }
}

/// A signaled COMPARE AND SWAP with `swap` = (compare, swap). `local` has 8 bytes for the old value.
pub fn compare_swap(wr_id: u64, local: Sge, remote: Iova, rkey: u32, swap: (u64, u64)) -> SqWqe {
    let wqe = request(OP_COMPARE_SWAP, wr_id, &[local]);
    SqWqe { remote_addr: remote.0, rkey, compare_add: swap.0, swap: swap.1, ..wqe }
}

/// A receive request with one element.
pub fn receive(wr_id: u64, local: Sge) -> RqWqe {
    let mut wqe = RqWqe { wr_id, num_sge: 1, ..RqWqe::default() };
    wqe.sge[0] = local;
    wqe
}

/// A signaled datagram of one element to queue pair `qpn` of the port with LID 1.
pub fn datagram(wr_id: u64, local: Sge, qpn: u32, qkey: u32) -> SqWqe {
    SqWqe { dest_qpn: qpn, qkey, dest_lid: 1, ..send(wr_id, local) }
}

/// A signaled FLUSH of `length` bytes. `placement` has `FLUSH_GLOBAL`, `FLUSH_PERSISTENT` or both.
pub fn flush(wr_id: u64, placement: u32, remote: Iova, length: u64, rkey: u32) -> SqWqe {
    let wqe = SqWqe { remote_addr: remote.0, rkey, compare_add: length, ..request(OP_FLUSH, wr_id, &[]) };
    SqWqe { imm: placement | FLUSH_RANGE, ..wqe }
}

/// A signaled ATOMIC WRITE of the 8 bytes in `local`.
pub fn atomic_write(wr_id: u64, local: Sge, remote: Iova, rkey: u32) -> SqWqe {
    SqWqe { remote_addr: remote.0, rkey, ..request(OP_ATOMIC_WRITE, wr_id, &[local]) }
}
