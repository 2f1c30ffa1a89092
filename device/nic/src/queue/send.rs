//! Send queues: fetching and decoding of send requests.

use refault_abi::codes::*;
use refault_abi::queue::*;
use zerocopy::{FromZeros, IntoBytes};

use crate::cause::Cause;
use crate::memory::list::End;
use crate::memory::port::{AccessError, Port};
use crate::qp::Setup;
use crate::queue::published;

/// Longest message: InfiniBand's limit.
pub(crate) const MAX_MESSAGE: u64 = 1 << 31;

/// What a send request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// SEND, with or without immediate data.
    Send,
    /// RDMA WRITE.
    Write,
    /// RDMA WRITE that also consumes a receive request.
    WriteImm,
    /// RDMA READ.
    Read,
    /// Compare and swap.
    CompareSwap,
    /// Fetch and add.
    FetchAdd,
    /// FLUSH.
    Flush,
    /// ATOMIC WRITE.
    AtomicWrite,
}

impl Operation {
    fn decode(opcode: u8) -> Option<Self> {
        Some(match opcode {
            OP_SEND | OP_SEND_IMM => Self::Send,
            OP_RDMA_WRITE => Self::Write,
            OP_RDMA_WRITE_IMM => Self::WriteImm,
            OP_RDMA_READ => Self::Read,
            OP_COMPARE_SWAP => Self::CompareSwap,
            OP_FETCH_ADD => Self::FetchAdd,
            OP_FLUSH => Self::Flush,
            OP_ATOMIC_WRITE => Self::AtomicWrite,
            _ => return None,
        })
    }

    /// Whether it fetches data into local memory.
    pub(crate) fn fetches(self) -> bool {
        matches!(self, Self::Read | Self::CompareSwap | Self::FetchAdd)
    }

    /// Whether it writes memory at that end.
    pub(crate) fn writes(self, end: End) -> bool {
        match end {
            End::Local => self.fetches(),
            End::Remote => !matches!(self, Self::Read | Self::Flush),
        }
    }

    /// Whether it is about one word of 8 bytes.
    fn is_word(self) -> bool {
        matches!(self, Self::CompareSwap | Self::FetchAdd | Self::AtomicWrite)
    }
}

/// A send request on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) wqe: SqWqe,
    pub(crate) operation: Operation,
    /// Bytes in all.
    pub(crate) length: u32,
    /// Bytes moved.
    pub(crate) done: u32,
    /// All checks that come before the first byte were passed.
    pub(crate) checked: bool,
    /// Datagrams: the receive request that was met last, by its ticket.
    pub(crate) met: u64,
}

impl Message {
    /// Decodes a request of a queue pair of type `kind`; `None` if it is malformed.
    pub(crate) fn decode(wqe: SqWqe, kind: u8) -> Option<Self> {
        let operation = Operation::decode(wqe.opcode)?;
        if kind == QPT_UD && (operation != Operation::Send || wqe.has_grh > 1 || wqe.sl > 15) {
            return None;
        }
        let inline = wqe.flags & WQE_INLINE != 0;
        let sges = wqe.sge.get(..usize::from(wqe.num_sge))?;
        let length = if inline {
            let fits = wqe.inline_length <= MAX_INLINE && sges.is_empty() && !operation.fetches();
            fits.then_some(u64::from(wqe.inline_length))?
        } else {
            sges.iter().map(|sge| u64::from(sge.length)).sum()
        };
        let length = match operation {
            Operation::Flush => flush_length(&wqe).filter(|_| length == 0 && !inline)?,
            _ => length,
        };
        let fits = if operation.is_word() { length == 8 } else { length <= MAX_MESSAGE };
        let length = fits.then_some(length as u32)?;
        Some(Self { wqe, operation, length, done: 0, checked: false, met: 0 })
    }

    /// A request of which nothing but its identity counts.
    pub(crate) fn malformed(wqe: SqWqe) -> Self {
        let wqe = SqWqe { num_sge: 0, ..wqe };
        Self { wqe, operation: Operation::Send, length: 0, done: 0, checked: false, met: 0 }
    }

    /// What the remote region must allow.
    pub(crate) fn remote_rights(&self) -> u32 {
        let flush = |placement, right| if self.wqe.imm & placement != 0 { right } else { 0 };
        match self.operation {
            Operation::Send => 0,
            Operation::Write | Operation::WriteImm | Operation::AtomicWrite => ACCESS_REMOTE_WRITE,
            Operation::Read => ACCESS_REMOTE_READ,
            Operation::CompareSwap | Operation::FetchAdd => ACCESS_REMOTE_ATOMIC,
            Operation::Flush => {
                flush(FLUSH_GLOBAL, ACCESS_FLUSH_GLOBAL) | flush(FLUSH_PERSISTENT, ACCESS_FLUSH_PERSISTENT)
            }
        }
    }

    /// The scatter/gather list; empty for inline data.
    pub(crate) fn sges(&self) -> &[Sge] {
        self.wqe.sge.get(..usize::from(self.wqe.num_sge)).unwrap_or_default()
    }

    /// Inline data, if the request has it.
    pub(crate) fn inline(&self) -> Option<&[u8]> {
        let inline = self.wqe.flags & WQE_INLINE != 0;
        inline.then(|| self.wqe.sge.as_bytes().get(..self.length as usize).unwrap_or_default())
    }

    /// Whether it carries immediate data.
    pub(crate) fn has_imm(&self) -> bool {
        matches!(self.wqe.opcode, OP_SEND_IMM | OP_RDMA_WRITE_IMM)
    }
}

/// Bytes of a FLUSH; of a whole region they are known when it is found. `None` if it is malformed.
fn flush_length(wqe: &SqWqe) -> Option<u64> {
    const PLACEMENTS: u32 = FLUSH_GLOBAL | FLUSH_PERSISTENT;
    let sound = wqe.imm & PLACEMENTS != 0 && wqe.imm & !(PLACEMENTS | FLUSH_RANGE) == 0 && wqe.num_sge == 0;
    let range = wqe.imm & FLUSH_RANGE != 0;
    sound.then_some(if range { wqe.compare_add } else { 0 })
}

impl Port<'_> {
    /// How many send requests wait behind `consumer`.
    pub(crate) fn send_requests(&mut self, setup: &Setup, consumer: u32) -> Result<u32, AccessError> {
        let producer = self.pages_load_u32(&setup.pages, u64::from(setup.record_offset))?;
        published(producer, consumer, setup.log_sq).map_err(AccessError::Denied)
    }

    /// One send request, read once.
    pub(crate) fn send_request(&mut self, setup: &Setup, index: u32) -> Result<SqWqe, AccessError> {
        let slot = u64::from(index & ((1 << setup.log_sq) - 1));
        let mut wqe = SqWqe::new_zeroed();
        self.pages_read(&setup.pages, slot * u64::from(SQ_WQE_SIZE), wqe.as_mut_bytes())?;
        Ok(wqe)
    }
}

/// A ring that cannot be read, whatever the reason.
impl From<Cause> for AccessError {
    fn from(cause: Cause) -> Self {
        Self::Denied(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wqe(opcode: u8, lengths: &[u32]) -> SqWqe {
        let mut wqe = SqWqe { opcode, num_sge: lengths.len() as u8, ..SqWqe::default() };
        for (sge, &length) in wqe.sge.iter_mut().zip(lengths) {
            sge.length = length;
        }
        wqe
    }

    #[test]
    fn malformed_requests_are_refused() {
        let inline = |opcode, inline_length, num_sge| SqWqe {
            opcode,
            num_sge,
            inline_length,
            flags: WQE_INLINE,
            ..SqWqe::default()
        };
        for bad in [
            wqe(9, &[]),
            wqe(OP_FLUSH, &[]),
            SqWqe { imm: FLUSH_GLOBAL | 1 << 9, ..wqe(OP_FLUSH, &[]) },
            SqWqe { imm: FLUSH_RANGE, ..wqe(OP_FLUSH, &[]) },
            SqWqe { imm: FLUSH_GLOBAL, ..wqe(OP_FLUSH, &[0]) },
            SqWqe { imm: FLUSH_GLOBAL | FLUSH_RANGE, compare_add: 1 << 32, ..wqe(OP_FLUSH, &[]) },
            inline(OP_FLUSH, 0, 0),
            wqe(OP_ATOMIC_WRITE, &[4]),
            inline(OP_ATOMIC_WRITE, 9, 0),
            SqWqe { num_sge: 5, ..SqWqe::default() },
            wqe(OP_SEND, &[u32::MAX, u32::MAX]),
            wqe(OP_RDMA_WRITE, &[1 << 31, 1]),
            wqe(OP_COMPARE_SWAP, &[4]),
            wqe(OP_FETCH_ADD, &[]),
            inline(OP_SEND, MAX_INLINE + 1, 0),
            inline(OP_SEND, 8, 1),
            inline(OP_RDMA_READ, 8, 0),
        ] {
            assert!(Message::decode(bad, QPT_RC).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_datagram_is_a_send() {
        assert!(Message::decode(wqe(OP_SEND_IMM, &[5]), QPT_UD).is_some());
        let bad_path = [SqWqe { has_grh: 2, ..SqWqe::default() }, SqWqe { sl: 16, ..SqWqe::default() }];
        let operations = [OP_RDMA_WRITE, OP_RDMA_WRITE_IMM, OP_RDMA_READ].map(|opcode| wqe(opcode, &[]));
        for bad in bad_path.into_iter().chain(operations) {
            assert!(Message::decode(bad, QPT_RC).is_some(), "{bad:?}");
            assert!(Message::decode(bad, QPT_UD).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn well_formed_requests_have_their_length() {
        assert_eq!(Message::decode(wqe(OP_SEND, &[]), QPT_RC).unwrap().length, 0);
        assert_eq!(Message::decode(wqe(OP_RDMA_WRITE, &[1 << 30, 1 << 30]), QPT_RC).unwrap().length, 1 << 31);
        assert_eq!(Message::decode(wqe(OP_FETCH_ADD, &[3, 5]), QPT_RC).unwrap().length, 8);
        let inline = SqWqe { flags: WQE_INLINE, inline_length: 64, ..SqWqe::default() };
        assert_eq!(Message::decode(inline, QPT_RC).unwrap().inline().unwrap().len(), 64);
    }
}
