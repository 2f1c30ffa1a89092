//! The page request queue: entries of 32 bytes, consumed as in `prq_event_thread`.

use std::sync::{Arc, Mutex};

use refault_bus::pri::ResponseCode;
use refault_bus::sync::lock;
use refault_bus::{Bdf, Gpa, Iova, Pasid, PrgIndex};

use crate::registers::RegisterWindow;
use crate::vtd::registers as reg;
use crate::{GuestMemory, ModelError};

/// Bytes of an entry.
const ENTRY: u64 = 32;

/// An entry of the queue (VT-d 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedRequest {
    /// Requester id of the function.
    pub requester: Bdf,
    /// PASID of the request; `None` for the function's own address space.
    pub pasid: Option<Pasid>,
    /// Address of the page.
    pub page: Iova,
    /// Read access is requested.
    pub read: bool,
    /// Write access is requested.
    pub write: bool,
    /// Execute access is requested.
    pub execute: bool,
    /// Supervisor access is requested.
    pub privileged: bool,
    /// Last request of its group (LPIG).
    pub last: bool,
    /// Page request group index.
    pub group: PrgIndex,
}

/// What a handler of page requests returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Respond with this code, if the request is the last of its group.
    Now(ResponseCode),
    /// The handler responds itself, with [`crate::vtd::RemappingUnit::respond`].
    Later,
}

/// The driver's side of the queue.
pub struct PageRequestQueue {
    registers: RegisterWindow,
    memory: Arc<GuestMemory>,
    ring: Gpa,
    /// The bits of the head and tail registers that are offsets into the ring.
    mask: u64,
    /// Held by the interrupt thread, of which there is one.
    thread: Mutex<()>,
}

impl PageRequestQueue {
    /// Allocates a ring of `1 << order` pages and programs its address.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`].
    pub fn new(registers: RegisterWindow, memory: Arc<GuestMemory>, order: u8) -> Result<Self, ModelError> {
        let bytes = 0x1000 << order;
        let ring = memory.allocate(bytes, 12 + order)?;
        registers.write64(reg::PQH, 0);
        registers.write64(reg::PQT, 0);
        registers.write64(reg::PQA, ring.0 | u64::from(order));
        Ok(Self { registers, memory, ring, mask: bytes - ENTRY, thread: Mutex::new(()) })
    }

    /// One run of the interrupt thread: passes every request up to the tail to `take`, then advances the head. The
    /// pending bit is cleared first, so that a request that arrives later raises a new interrupt. An overflow is
    /// cleared only if the queue is still empty afterwards. Returns the number of requests.
    ///
    /// # Errors
    ///
    /// Any error of `take`; the head then stays.
    pub fn service(
        &self,
        mut take: impl FnMut(&QueuedRequest) -> Result<(), ModelError>,
    ) -> Result<usize, ModelError> {
        let _thread = lock(&self.thread);
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

    /// Whether the IOMMU has dropped requests (PRS.PRO).
    pub fn overflowed(&self) -> bool {
        self.registers.read32(reg::PRS) & reg::PRS_OVERFLOW != 0
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.registers.read64(reg::PQH) & self.mask == self.registers.read64(reg::PQT) & self.mask
    }

    /// Number of entries in the queue.
    pub fn len(&self) -> usize {
        let (head, tail) = (self.registers.read64(reg::PQH), self.registers.read64(reg::PQT));
        usize::try_from((tail.wrapping_sub(head) & self.mask) / ENTRY).unwrap_or(usize::MAX)
    }

    /// Whether the queue has an entry of this function and PASID.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
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
        let [_, _, requester_low, requester_high, ..] = low.to_le_bytes();
        Ok(QueuedRequest {
            requester: Bdf(u16::from_le_bytes([requester_low, requester_high])),
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
    /// Whether `prq_event_thread` refuses it without looking for a process.
    pub const fn is_malformed(&self) -> bool {
        let canonical = (self.page.0 as i64) << 16 >> 16 == self.page.0 as i64;
        !canonical || (self.privileged && (self.read || self.write)) || (self.execute && self.read)
    }

    /// Whether it is a stop marker, which ends the page requests of a PASID and gets no response.
    pub const fn is_stop_marker(&self) -> bool {
        self.last && !self.read && !self.write
    }
}
