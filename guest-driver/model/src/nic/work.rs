//! Work requests.

use refault_abi::codes::*;
use refault_abi::queue::{MAX_INLINE, RqWqe, Sge, SqWqe, WQE_INLINE, WQE_SIGNALED};
use refault_bus::Iova;
use zerocopy::IntoBytes;

/// One piece of local memory.
pub const fn piece(addr: Iova, length: u32, lkey: u32) -> Sge {
    Sge { addr: addr.0, length, lkey }
}

/// A signaled request of `opcode` over up to four pieces.
pub fn request(opcode: u8, wr_id: u64, pieces: &[Sge]) -> SqWqe {
    let mut wqe = SqWqe { opcode, flags: WQE_SIGNALED, wr_id, ..SqWqe::default() };
    for (slot, &piece) in wqe.sge.iter_mut().zip(pieces) {
        *slot = piece;
    }
    wqe.num_sge = pieces.len() as u8;
    wqe
}

/// A signaled RDMA WRITE of one piece.
pub fn rdma_write(wr_id: u64, local: Sge, remote: Iova, rkey: u32) -> SqWqe {
    SqWqe { remote_addr: remote.0, rkey, ..request(OP_RDMA_WRITE, wr_id, &[local]) }
}

/// A signaled RDMA READ into one piece.
pub fn rdma_read(wr_id: u64, local: Sge, remote: Iova, rkey: u32) -> SqWqe {
    SqWqe { remote_addr: remote.0, rkey, ..request(OP_RDMA_READ, wr_id, &[local]) }
}

/// A signaled SEND of one piece.
pub fn send(wr_id: u64, local: Sge) -> SqWqe {
    request(OP_SEND, wr_id, &[local])
}

/// A signaled RDMA WRITE of up to [`MAX_INLINE`] bytes that travel in the request.
pub fn inline_write(wr_id: u64, data: &[u8], remote: Iova, rkey: u32) -> SqWqe {
    let mut wqe = SqWqe { remote_addr: remote.0, rkey, ..request(OP_RDMA_WRITE, wr_id, &[]) };
    wqe.flags |= WQE_INLINE;
    let length = data.len().min(MAX_INLINE as usize);
    wqe.inline_length = length as u32;
    wqe.sge.as_mut_bytes()[..length].copy_from_slice(&data[..length]);
    wqe
}

/// A signaled fetch-and-add; the old value goes to the 8 bytes of `local`.
pub fn fetch_add(wr_id: u64, local: Sge, remote: Iova, rkey: u32, add: u64) -> SqWqe {
    let wqe = request(OP_FETCH_ADD, wr_id, &[local]);
    SqWqe { remote_addr: remote.0, rkey, compare_add: add, ..wqe }
}

/// A signaled compare-and-swap; the old value goes to the 8 bytes of `local`.
pub fn compare_swap(wr_id: u64, local: Sge, remote: Iova, rkey: u32, swap: (u64, u64)) -> SqWqe {
    let wqe = request(OP_COMPARE_SWAP, wr_id, &[local]);
    SqWqe { remote_addr: remote.0, rkey, compare_add: swap.0, swap: swap.1, ..wqe }
}

/// A receive request of one piece.
pub fn receive(wr_id: u64, local: Sge) -> RqWqe {
    let mut wqe = RqWqe { wr_id, num_sge: 1, ..RqWqe::default() };
    wqe.sge[0] = local;
    wqe
}

/// A signaled datagram of one piece to queue pair `qpn` of the port with LID 1.
pub fn datagram(wr_id: u64, local: Sge, qpn: u32, qkey: u32) -> SqWqe {
    SqWqe { dest_qpn: qpn, qkey, dest_lid: 1, ..send(wr_id, local) }
}

/// A signaled FLUSH of `length` bytes; `placement` is one or both of FLUSH_GLOBAL and FLUSH_PERSISTENT.
pub fn flush(wr_id: u64, placement: u32, remote: Iova, length: u64, rkey: u32) -> SqWqe {
    let wqe = SqWqe { remote_addr: remote.0, rkey, compare_add: length, ..request(OP_FLUSH, wr_id, &[]) };
    SqWqe { imm: placement | FLUSH_RANGE, ..wqe }
}

/// A signaled ATOMIC WRITE of the 8 bytes of `local`.
pub fn atomic_write(wr_id: u64, local: Sge, remote: Iova, rkey: u32) -> SqWqe {
    SqWqe { remote_addr: remote.0, rkey, ..request(OP_ATOMIC_WRITE, wr_id, &[local]) }
}
