//! The page request queue: entries of 32 bytes, consumed as `prq_event_thread` does it.

use std::sync::{Arc, Mutex, PoisonError};

use refault_bus::pri::ResponseCode;
use refault_bus::{Bdf, Gpa, Iova, Pasid, PrgIndex};

use crate::registers::RegisterWindow;
use crate::vtd::registers as reg;
use crate::{GuestMemory, ModelError};

/// Bytes of an entry.
const ENTRY: u64 = 32;

/// A page request as it lies in the queue (VT-d 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedRequest {
    /// Who asks.
    pub requester: Bdf,
    /// The address space.
    pub pasid: Option<Pasid>,
    /// The page.
    pub page: Iova,
    /// Reads are wanted.
    pub read: bool,
    /// Writes are wanted.
    pub write: bool,
    /// Execution is wanted.
    pub execute: bool,
    /// Supervisor access is wanted.
    pub privileged: bool,
    /// Last of its group.
    pub last: bool,
    /// The group.
    pub group: PrgIndex,
}

/// What a handler makes of a page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Answer it now.
    Now(ResponseCode),
    /// The handler keeps it and answers through [`crate::vtd::Unit::respond`].
    Later,
}

/// The driver's side of the queue.
pub struct PageRequestQueue {
    registers: RegisterWindow,
    memory: Arc<GuestMemory>,
    ring: Gpa,
    /// Which bits of the head and tail registers count.
    mask: u64,
    /// The interrupt thread: there is one.
    thread: Mutex<()>,
}

impl PageRequestQueue {
    /// Allocates a ring of `1 << order` pages and tells the unit where it is.
    pub fn new(registers: RegisterWindow, memory: Arc<GuestMemory>, order: u8) -> Result<Self, ModelError> {
        let bytes = 0x1000 << order;
        let ring = memory.allocate(bytes, 12 + order)?;
        registers.write64(reg::PQH, 0);
        registers.write64(reg::PQT, 0);
        registers.write64(reg::PQA, ring.0 | u64::from(order));
        Ok(Self { registers, memory, ring, mask: bytes - ENTRY, thread: Mutex::new(()) })
    }

    /// The interrupt thread's one round: clears the pending bit first, hands every request up to the tail to
    /// `take`, moves the head once, and clears an overflow if nothing came meanwhile. How many there were.
    pub fn service(
        &self,
        mut take: impl FnMut(&QueuedRequest) -> Result<(), ModelError>,
    ) -> Result<usize, ModelError> {
        let _thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        self.registers.write32(reg::PRS, reg::PRS_PENDING);
        let tail = self.registers.read64(reg::PQT) & self.mask;
        let mut head = self.registers.read64(reg::PQH) & self.mask;
        let mut taken = 0;
        while head != tail {
            take(&self.entry(head)?)?;
            head = (head + ENTRY) & self.mask;
            taken += 1;
        }
        self.registers.write64(reg::PQH, tail);
        if self.overflowed() && self.is_empty() {
            self.registers.write32(reg::PRS, reg::PRS_OVERFLOW);
        }
        Ok(taken)
    }

    /// Whether the unit dropped requests and this was not yet cleared.
    pub fn overflowed(&self) -> bool {
        self.registers.read32(reg::PRS) & reg::PRS_OVERFLOW != 0
    }

    /// Whether the unit has an entry that was not yet taken.
    pub fn is_empty(&self) -> bool {
        self.registers.read64(reg::PQH) & self.mask == self.registers.read64(reg::PQT) & self.mask
    }

    /// Entries not yet taken.
    pub fn len(&self) -> usize {
        let (head, tail) = (self.registers.read64(reg::PQH), self.registers.read64(reg::PQT));
        ((tail.wrapping_sub(head) & self.mask) / ENTRY) as usize
    }

    /// Whether an entry not yet taken belongs to this function and PASID (`None`: its own space).
    pub fn holds(&self, requester: Bdf, pasid: Option<Pasid>) -> Result<bool, ModelError> {
        let tail = self.registers.read64(reg::PQT) & self.mask;
        let mut head = self.registers.read64(reg::PQH) & self.mask;
        while head != tail {
            let entry = self.entry(head)?;
            if entry.requester == requester && entry.pasid == pasid {
                return Ok(true);
            }
            head = (head + ENTRY) & self.mask;
        }
        Ok(false)
    }

    fn entry(&self, offset: u64) -> Result<QueuedRequest, ModelError> {
        let at = self.ring.0 + offset;
        let (low, high) = (self.memory.dma().load_u64(Gpa(at))?, self.memory.dma().load_u64(Gpa(at + 8))?);
        let bit = |value: u64, bit: u32| value >> bit & 1 == 1;
        Ok(QueuedRequest {
            requester: Bdf((low >> 16) as u16),
            pasid: bit(low, 8).then(|| Pasid::truncated(low >> 32)),
            page: Iova(high & !0xfff),
            read: bit(high, 0),
            write: bit(high, 1),
            execute: bit(low, 52),
            privileged: bit(low, 53),
            last: bit(high, 2),
            group: PrgIndex::truncated(high >> 3),
        })
    }
}

impl QueuedRequest {
    /// What `prq_event_thread` refuses before it looks for a process.
    pub const fn is_malformed(&self) -> bool {
        let canonical = (self.page.0 as i64) << 16 >> 16 == self.page.0 as i64;
        !canonical || (self.privileged && (self.read || self.write)) || (self.execute && self.read)
    }

    /// A message that only marks the end of a function's page requests; it gets no answer.
    pub const fn is_stop_marker(&self) -> bool {
        self.last && !self.read && !self.write
    }
}
