//! The page request queue (§7.4, §7.5): a ring in guest memory. The unit moves the tail, the guest the head.

use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use refault_bus::irq::MsiSink;
use refault_bus::pri::PageRequest;
use refault_bus::probe::Stage;
use refault_bus::sync::{Mutex, MutexGuard, lock};

use crate::interrupt::EventRegisters;
use crate::spec::page_request::{PAGE_REQUEST_BYTES, encode};
use crate::spec::registers::{PageRequestQueueAddress, PageRequestStatus};

const ENTRY_BYTES: u64 = PAGE_REQUEST_BYTES as u64;

/// Offset bits of PQH and PQT: 18:5.
const OFFSET_BITS: u64 = 0x7_ffe0;

/// The outcome of [`PageRequestQueue::enqueue`], and whether it calls for the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    /// The request is in the queue, and the tail has moved past it.
    Queued { raise: bool },
    /// Dropped: the ring is full, or an earlier overflow is not cleared.
    Overflow { raise: bool },
    /// Dropped: there is no queue, or it is not in memory.
    Unusable,
}

/// The queue as devices and software share it.
#[derive(Debug, Default)]
pub(crate) struct PageRequests(Mutex<PageRequestQueue>);

impl PageRequests {
    /// The registers, for software's accesses.
    pub(crate) fn lock(&self) -> MutexGuard<'_, PageRequestQueue> {
        lock(&self.0)
    }

    /// Takes a request: its entry, the status that announces it, and the event are one step to software. The queue is
    /// locked before `admitted` is dropped, which is the lock on the tables that admitted the request. `reached` is called
    /// for [`Stage::Queued`] and [`Stage::Interrupt`], while the queue is locked.
    pub(crate) fn receive(
        &self,
        memory: &dyn DmaMemory,
        msi: &dyn MsiSink,
        request: &PageRequest,
        admitted: impl Sized,
        reached: impl Fn(Stage),
    ) -> Enqueued {
        let mut queue = self.lock();
        drop(admitted);
        let enqueued = queue.enqueue(memory, request);
        if matches!(enqueued, Enqueued::Queued { .. }) {
            reached(Stage::Queued);
        }
        if let Enqueued::Queued { raise: true } | Enqueued::Overflow { raise: true } = enqueued
            && queue.event.raise(msi)
        {
            reached(Stage::Interrupt);
        }
        enqueued
    }
}

/// The queue's registers.
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
    /// Writes `request` into the ring. Every request sets PPR, not only the last of a group: to drain a PASID, Linux
    /// waits until its handler has taken every entry, and the handler runs only on an event. The event is not called for
    /// while a condition stands that has raised it: its handler will find both (§7.5).
    fn enqueue(&mut self, memory: &dyn DmaMemory, request: &PageRequest) -> Enqueued {
        if self.address.into_bits() == 0 {
            return Enqueued::Unusable;
        }
        // Until software clears PRO every request is dropped, even if there is room again.
        if self.status.pro() {
            return Enqueued::Overflow { raise: false };
        }
        let raise = !self.is_unserviced();
        let next = (self.tail + ENTRY_BYTES) & self.offset_mask();
        // One slot stays empty, because a full ring would look like an empty one.
        if next == self.head & self.offset_mask() {
            self.status.set_pro(true);
            return Enqueued::Overflow { raise };
        }
        let at = Gpa(self.address.frame() << 12).checked_add(self.tail & self.offset_mask());
        // The entry before the tail: a guest that reads the new tail finds the entry complete.
        if at.is_none_or(|at| memory.write(at, &encode(request)).is_err()) {
            return Enqueued::Unusable;
        }
        self.tail = next;
        self.status.set_ppr(true);
        Enqueued::Queued { raise }
    }

    /// PQH.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// PQT.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// PQA.
    pub(crate) fn address(&self) -> u64 {
        self.address.into_bits()
    }

    /// Writes PQH. Bits that are not part of an offset read as zero.
    pub(crate) fn set_head(&mut self, value: u64) {
        self.head = value & OFFSET_BITS;
    }

    /// Writes PQT; see [`Self::set_head`].
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

    /// Writes PRS: clears the bits written as ones (RW1C).
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

    /// Mask of the offset of an entry in a ring of 2^PQS pages.
    fn offset_mask(&self) -> u64 {
        (0x1000 << self.address.size()) - ENTRY_BYTES
    }
}
