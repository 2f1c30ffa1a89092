//! The page request queue (§7.4, §7.5): a ring in guest memory that the unit fills and the guest empties.

use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use refault_bus::irq::MsiMessage;
use refault_bus::pri::PageRequest;

use crate::interrupt::EventRegisters;
use crate::spec::page_request::{PAGE_REQUEST_BYTES, encode};
use crate::spec::registers::{PageRequestQueueAddress, PageRequestStatus};

/// What became of a page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    /// It is in the queue and the tail says so.
    Queued(Option<MsiMessage>),
    /// There was no room, or an earlier overflow is not cleared: dropped.
    Overflow(Option<MsiMessage>),
    /// There is no queue, or not in memory: dropped.
    Unusable,
}

/// Ring registers, status and event.
#[derive(Debug, Default)]
pub(crate) struct PageRequestQueue {
    address: PageRequestQueueAddress,
    head: u64,
    tail: u64,
    status: PageRequestStatus,
    /// PECTL and its message registers.
    pub(crate) event: EventRegisters,
}

impl PageRequestQueue {
    /// Writes `request` into the ring. Every queued request sets PPR, not only the last of a group: Linux
    /// waits for an interrupt behind every entry when it drains a PASID.
    pub(crate) fn enqueue(&mut self, memory: &dyn DmaMemory, request: &PageRequest) -> Enqueued {
        if self.address.into_bits() == 0 {
            return Enqueued::Unusable;
        }
        if self.status.pro() {
            return Enqueued::Overflow(None);
        }
        let unserviced = self.is_unserviced();
        let next = (self.tail + PAGE_REQUEST_BYTES) & self.offset_mask();
        if next == self.head & self.offset_mask() {
            self.status.set_pro(true);
            return Enqueued::Overflow(self.raise(unserviced));
        }
        let at = Gpa(self.address.frame() << 12).checked_add(self.tail & self.offset_mask());
        // The entry first, then the tail: whoever reads the tail, under this lock, finds the entry.
        if at.is_none_or(|at| memory.write(at, &encode(request)).is_err()) {
            return Enqueued::Unusable;
        }
        self.tail = next;
        self.status.set_ppr(true);
        Enqueued::Queued(self.raise(unserviced))
    }

    /// PQH or PQT or PQA, in full.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    pub(crate) fn address(&self) -> u64 {
        self.address.into_bits()
    }

    /// Writes PQH: only bits that can be an offset stay.
    pub(crate) fn set_head(&mut self, value: u64) {
        self.head = value & OFFSET_BITS;
    }

    /// Writes PQT.
    pub(crate) fn set_tail(&mut self, value: u64) {
        self.tail = value & OFFSET_BITS;
    }

    /// Writes PQA.
    pub(crate) fn set_address(&mut self, value: u64) {
        self.address = PageRequestQueueAddress::from_bits(value);
    }

    /// PRS.
    pub(crate) fn status(&self) -> PageRequestStatus {
        self.status
    }

    /// Clears what is written as ones to PRS.
    pub(crate) fn clear_status(&mut self, written: PageRequestStatus) {
        self.status = PageRequestStatus::new()
            .with_ppr(self.status.ppr() && !written.ppr())
            .with_pro(self.status.pro() && !written.pro());
        if !self.is_unserviced() {
            self.event.serviced();
        }
    }

    fn is_unserviced(&self) -> bool {
        self.status.ppr() || self.status.pro()
    }

    fn raise(&mut self, unserviced: bool) -> Option<MsiMessage> {
        if unserviced { None } else { self.event.raise() }
    }

    /// Mask of a descriptor offset in a ring of 2^PQS pages.
    fn offset_mask(&self) -> u64 {
        (0x1000 << self.address.size()) - PAGE_REQUEST_BYTES
    }
}

/// Offset bits of PQH and PQT: 18:5.
const OFFSET_BITS: u64 = 0x7_ffe0;
