//! Faults (chapter 7): requests that failed, and the registers that record them.

mod reason;

use refault_bus::ats::{RequestKind, TranslationRequest};
use refault_bus::bits::low_u8;
use refault_bus::irq::MsiSink;
use refault_bus::pri::PageRequest;
use refault_bus::{Bdf, Iova, Pasid};
use thiserror::Error;

use crate::caps::FAULT_RECORDS;
use crate::interrupt::EventRegisters;
use crate::spec::fault_record::FaultRecordInfo;
use crate::spec::invalidation::QueueError;
use crate::spec::registers::{FaultStatus, InvalidationQueueError};

pub use reason::{AtsAnswer, FaultReason};

/// The kind of request that failed (T1, T2 and AT of the record).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultedAccess {
    /// An untranslated read.
    Read,
    /// An untranslated write.
    Write,
    /// An ATS translation request.
    Translation {
        /// The request wanted write permission.
        write: bool,
    },
    /// A page request.
    PageRequest,
}

/// A failed request, with all that a fault record holds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{requester} at {iova} (PASID {pasid:?}, {access:?}): {reason} [{:#04x}]", reason.code())]
pub struct RemappingFault {
    /// Requester ID of the function.
    pub requester: Bdf,
    /// The address space, or `None` for the function's own.
    pub pasid: Option<Pasid>,
    /// The address, of any alignment; the record holds its page.
    pub iova: Iova,
    /// The kind of request.
    pub access: FaultedAccess,
    /// Why the request failed.
    pub reason: FaultReason,
}

impl RemappingFault {
    /// The fault of a translation.
    pub fn of_translation(request: &TranslationRequest, reason: FaultReason) -> Self {
        let access = match (request.kind, request.write) {
            (RequestKind::Translation, write) => FaultedAccess::Translation { write },
            (RequestKind::Untranslated, true) => FaultedAccess::Write,
            (RequestKind::Untranslated, false) => FaultedAccess::Read,
        };
        Self { requester: request.requester, pasid: request.pasid, iova: request.iova, access, reason }
    }

    /// The fault of a page request.
    pub fn of_page_request(request: &PageRequest, reason: FaultReason) -> Self {
        let access = FaultedAccess::PageRequest;
        Self { requester: request.requester, pasid: request.pasid, iova: request.page, access, reason }
    }

    /// The fault as a recording register holds it.
    fn record(&self) -> Record {
        let (t1, t2, address_type) = match self.access {
            FaultedAccess::Read => (true, false, 0),
            FaultedAccess::Write => (false, false, 0),
            FaultedAccess::Translation { write } => (!write, false, 1),
            FaultedAccess::PageRequest => (false, true, 0),
        };
        let info = FaultRecordInfo::new()
            .with_source(self.requester.0)
            .with_t1(t1)
            .with_t2(t2)
            .with_address_type(address_type)
            .with_pasid_present(self.pasid.is_some())
            .with_pasid(self.pasid.map_or(0, Pasid::get))
            .with_reason(self.reason.code())
            .with_fault(true);
        Record { page: self.iova.align_down(12).0, info }
    }
}

/// A fault recording register (§11.4.7.6).
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Lower quadword: address of the page.
    page: u64,
    info: FaultRecordInfo,
}

impl Record {
    /// What makes two faults the same one: page, requester, PASID and reason, and not whether it was a read or a write.
    fn identity(&self) -> (u64, u16, Option<u32>, u8) {
        let info = self.info;
        (self.page, info.source(), info.pasid_present().then_some(info.pasid()), info.reason())
    }
}

/// The outcome of [`FaultLog::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// The fault has a record.
    Kept,
    /// Not recorded: an unserviced record says the same.
    Compressed,
    /// Not recorded: the next record is occupied, or an overflow stands.
    Overflowed,
}

/// Fault records, queue errors and the fault event (§7.2, §7.3).
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    records: [Record; FAULT_RECORDS],
    /// Index of the record for the next fault.
    next: usize,
    /// FRI: index of the record that set PPF.
    first: usize,
    /// PFO: an overflow that software has not cleared.
    overflow: bool,
    /// IQE and IQERCD: the error that stopped the invalidation queue.
    queue_error: Option<QueueError>,
    /// FECTL and its message registers.
    pub(crate) event: EventRegisters,
}

impl FaultLog {
    /// Records `fault` (§7.2.1), unless an overflow is not cleared, an unserviced record says the same, or the next
    /// record is occupied, which is an overflow. Hardware may collapse all faults of a requester into one record; a unit
    /// to debug drivers with keeps those that differ.
    pub(crate) fn record(&mut self, fault: &RemappingFault, msi: &dyn MsiSink) -> Recorded {
        if self.overflow {
            return Recorded::Overflowed;
        }
        let new = fault.record();
        if self.records.iter().any(|old| old.info.fault() && old.identity() == new.identity()) {
            return Recorded::Compressed;
        }
        let unserviced = self.is_unserviced();
        let was_pending = self.is_pending();
        let Some(slot) = self.records.get_mut(self.next).filter(|slot| !slot.info.fault()) else {
            self.overflow = true;
            return Recorded::Overflowed;
        };
        *slot = new;
        if !was_pending {
            self.first = self.next;
        }
        self.next = (self.next + 1) % FAULT_RECORDS;
        self.raise(unserviced, msi);
        Recorded::Kept
    }

    /// Sets IQE: the invalidation queue stopped.
    pub(crate) fn queue_stopped(&mut self, error: QueueError, msi: &dyn MsiSink) {
        let unserviced = self.is_unserviced();
        self.queue_error = Some(error);
        self.raise(unserviced, msi);
    }

    /// Starts again at the first record: translation and interrupt remapping are both off (§7.2.1). Not while a record is
    /// pending: software walks the records from FRI on, and would not come to one before it.
    pub(crate) fn rewind(&mut self) {
        if !self.is_pending() {
            self.next = 0;
        }
    }

    /// FSTS.
    pub(crate) fn status(&self) -> FaultStatus {
        FaultStatus::new()
            .with_pfo(self.overflow)
            .with_ppf(self.is_pending())
            .with_iqe(self.queue_error.is_some())
            .with_fri(if self.is_pending() { low_u8(self.first as u64) } else { 0 })
    }

    /// Writes FSTS: clears the bits written as ones (RW1C). Returns whether the invalidation queue may continue.
    pub(crate) fn clear_status(&mut self, written: FaultStatus) -> bool {
        if written.pfo() {
            self.overflow = false;
        }
        let resumed = written.iqe() && self.queue_error.take().is_some();
        self.settle();
        resumed
    }

    /// IQERCD.
    pub(crate) fn queue_error(&self) -> InvalidationQueueError {
        InvalidationQueueError::new().with_info(self.queue_error.map_or(0, QueueError::code))
    }

    /// Reads the quadword at byte `offset` of the record registers.
    pub(crate) fn read_record(&self, offset: u64) -> u64 {
        let Some(record) = self.records.get(index_at(offset)) else { return 0 };
        if offset % 16 < 8 { record.page } else { record.info.into_bits() }
    }

    /// Writes the 32-bit word at byte `offset` of the record registers: clears F if it is written as one (RW1C).
    pub(crate) fn write_record(&mut self, offset: u64, value: u32) {
        let Some(record) = self.records.get_mut(index_at(offset)) else { return };
        if offset % 16 == 12 && value >> 31 != 0 {
            record.info.set_fault(false);
            self.settle();
        }
    }

    fn is_pending(&self) -> bool {
        self.records.iter().any(|record| record.info.fault())
    }

    fn is_unserviced(&self) -> bool {
        self.overflow || self.queue_error.is_some() || self.is_pending()
    }

    /// Raises the event, unless an unserviced condition has done so: its handler will find both (§7.3).
    fn raise(&mut self, unserviced: bool, msi: &dyn MsiSink) {
        if !unserviced {
            self.event.raise(msi);
        }
    }

    /// Clears a pending event once every condition is serviced.
    fn settle(&mut self) {
        if !self.is_unserviced() {
            self.event.serviced();
        }
    }
}

/// Index of the record that holds byte `offset` of the record registers.
fn index_at(offset: u64) -> usize {
    usize::try_from(offset / 16).unwrap_or(usize::MAX)
}
