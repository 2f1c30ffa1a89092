//! Faults (chapter 7): their reasons and codes, the completion that each gives a request, and the registers that record
//! them.

use refault_bus::ats::{RequestKind, TranslationRequest};
use refault_bus::bits::{low_u8, low_u32};
use refault_bus::irq::MsiMessage;
use refault_bus::pri::PageRequest;
use refault_bus::{Bdf, Iova, Pasid};
use thiserror::Error;

use crate::caps::FAULT_RECORDS;
use crate::interrupt::EventRegisters;
use crate::spec::fault_record::FaultRecordInfo;
use crate::spec::invalidation::QueueError;
use crate::spec::registers::{FaultStatus, InvalidationQueueError};

/// Why a request failed (§7.1.3). Each reason is a condition of table 30, whose name in the table is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum FaultReason {
    /// RTA.1
    #[error("root table address register is not set to scalable mode")]
    RootMode,
    /// SRT.1
    #[error("root entry is not in memory")]
    RootAccess,
    /// SRT.2
    #[error("root entry is not present")]
    RootNotPresent,
    /// SRT.3
    #[error("root entry has a reserved bit set")]
    RootReserved,
    /// SCT.1
    #[error("context entry is not in memory")]
    ContextAccess,
    /// SCT.2
    #[error("context entry is not present")]
    ContextNotPresent,
    /// SCT.3
    #[error("context entry has a reserved bit set")]
    ContextReserved,
    /// SCT.4
    #[error("context entry allows page requests but no translation requests")]
    ContextInvalid,
    /// SCT.5
    #[error("context entry does not allow translation requests")]
    DeviceTlbDisabled,
    /// SCT.6
    #[error("context entry does not allow requests with PASID")]
    PasidDisabled,
    /// SCT.7
    #[error("PASID is beyond the directory")]
    PasidTooLarge,
    /// SCT.8
    #[error("context entry does not allow page requests")]
    PageRequestDisabled,
    /// SCT.9
    #[error("PASID is the one of requests without PASID")]
    PasidIsRidPasid,
    /// SPD.1
    #[error("PASID directory entry is not in memory")]
    DirectoryAccess,
    /// SPD.2
    #[error("PASID directory entry is not present")]
    DirectoryNotPresent,
    /// SPD.3
    #[error("PASID directory entry has a reserved bit set")]
    DirectoryReserved,
    /// SPT.1
    #[error("PASID entry is not in memory")]
    PasidAccess,
    /// SPT.2
    #[error("PASID entry is not present")]
    PasidNotPresent,
    /// SPT.3
    #[error("PASID entry has a reserved bit set")]
    PasidReserved,
    /// SPT.4
    #[error("PASID entry wants an unsupported translation type or paging mode")]
    PasidInvalid,
    /// SFS.1
    #[error("first-stage entry is not in memory")]
    EntryAccess,
    /// SFS.2
    #[error("first-stage entry is not present")]
    EntryNotPresent,
    /// SFS.3
    #[error("first-stage entry has a reserved bit set")]
    EntryReserved,
    /// SFS.4
    #[error("top first-stage entry is not in memory")]
    TopEntryAccess,
    /// SFS.10
    #[error("accessed and dirty bits cannot be set")]
    AccessedDirty,
    /// SGN.1
    #[error("address is not canonical")]
    NotCanonical,
    /// SGN.2
    #[error("page belongs to the supervisor")]
    Supervisor,
    /// SGN.4
    #[error("pass-through address is beyond the host address width")]
    BeyondHostWidth,
    /// SGN.6
    #[error("page is not writable")]
    WriteDenied,
    /// SGN.8
    #[error("address translates into the interrupt range")]
    InterruptRange,
}

/// The completion of a translation request that fails for a [`FaultReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtsAnswer {
    /// Success without rights. No fault is recorded: it is how a device finds out that it must ask for a page.
    NoRights,
    /// Success without rights; the fault is recorded.
    NoRightsRecorded,
    /// Unsupported Request; the fault is recorded.
    UnsupportedRequest,
    /// Completer Abort; the fault is recorded.
    CompleterAbort,
}

impl FaultReason {
    /// The code in a fault record.
    pub const fn code(self) -> u8 {
        match self {
            Self::RootMode => 0x30,
            Self::RootAccess => 0x38,
            Self::RootNotPresent => 0x39,
            Self::RootReserved => 0x3a,
            Self::ContextAccess => 0x40,
            Self::ContextNotPresent => 0x41,
            Self::ContextReserved => 0x42,
            Self::ContextInvalid => 0x43,
            Self::DeviceTlbDisabled => 0x44,
            Self::PasidDisabled => 0x45,
            Self::PasidTooLarge => 0x46,
            Self::PageRequestDisabled => 0x47,
            Self::PasidIsRidPasid => 0x48,
            Self::DirectoryAccess => 0x50,
            Self::DirectoryNotPresent => 0x51,
            Self::DirectoryReserved => 0x52,
            Self::PasidAccess => 0x58,
            Self::PasidNotPresent => 0x59,
            Self::PasidReserved => 0x5a,
            Self::PasidInvalid => 0x5b,
            Self::EntryAccess => 0x70,
            Self::EntryNotPresent => 0x71,
            Self::EntryReserved => 0x72,
            Self::TopEntryAccess => 0x73,
            Self::NotCanonical => 0x80,
            Self::Supervisor => 0x81,
            Self::BeyondHostWidth => 0x83,
            Self::WriteDenied => 0x85,
            Self::InterruptRange => 0x87,
            Self::AccessedDirty => 0x91,
        }
    }

    /// Whether FPD disables the recording of this fault (column "qualified" of table 30).
    pub const fn is_qualified(self) -> bool {
        !matches!(
            self,
            Self::RootMode
                | Self::RootAccess
                | Self::RootNotPresent
                | Self::RootReserved
                | Self::ContextAccess
                | Self::DirectoryAccess
                | Self::PasidAccess
        )
    }

    /// The completion of an ATS translation request (columns "translation request" of table 30).
    pub const fn ats_answer(self) -> AtsAnswer {
        match self {
            Self::RootNotPresent
            | Self::ContextNotPresent
            | Self::DeviceTlbDisabled
            | Self::PasidDisabled
            | Self::PasidTooLarge
            | Self::PageRequestDisabled
            | Self::PasidIsRidPasid => AtsAnswer::UnsupportedRequest,
            Self::RootMode
            | Self::RootAccess
            | Self::RootReserved
            | Self::ContextAccess
            | Self::ContextReserved
            | Self::ContextInvalid
            | Self::DirectoryAccess
            | Self::DirectoryReserved
            | Self::PasidAccess
            | Self::PasidReserved
            | Self::PasidInvalid
            | Self::InterruptRange => AtsAnswer::CompleterAbort,
            Self::AccessedDirty => AtsAnswer::NoRightsRecorded,
            Self::DirectoryNotPresent
            | Self::PasidNotPresent
            | Self::EntryAccess
            | Self::EntryNotPresent
            | Self::EntryReserved
            | Self::TopEntryAccess
            | Self::NotCanonical
            | Self::Supervisor
            | Self::BeyondHostWidth
            | Self::WriteDenied => AtsAnswer::NoRights,
        }
    }
}

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

/// The outcome of [`FaultLog::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// The fault has a record. The event's message, if it is to be sent now.
    Kept(Option<MsiMessage>),
    /// Not recorded: the requester has an unserviced record.
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
    /// Records `fault` (§7.2.1), unless an overflow is not cleared, its requester has an unserviced record, or the next
    /// record is occupied, which is an overflow.
    pub(crate) fn record(&mut self, fault: &RemappingFault) -> Recorded {
        if self.overflow {
            return Recorded::Overflowed;
        }
        let source = fault.requester.0;
        if self.records.iter().any(|record| record.info.fault() && record.info.source() == source) {
            return Recorded::Compressed;
        }
        let unserviced = self.is_unserviced();
        let was_pending = self.is_pending();
        let Some(slot) = self.records.get_mut(self.next).filter(|slot| !slot.info.fault()) else {
            self.overflow = true;
            return Recorded::Overflowed;
        };
        *slot = fault.record();
        if !was_pending {
            self.first = self.next;
        }
        self.next = (self.next + 1) % FAULT_RECORDS;
        Recorded::Kept(self.raise(unserviced))
    }

    /// Sets IQE: the invalidation queue stopped. Returns the event's message, if it is to be sent now.
    pub(crate) fn queue_stopped(&mut self, error: QueueError) -> Option<MsiMessage> {
        let unserviced = self.is_unserviced();
        self.queue_error = Some(error);
        self.raise(unserviced)
    }

    /// Starts again at the first record: translation and interrupt remapping are both off (§7.2.1).
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
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

    /// Reads the 32-bit word at byte `offset` of the record registers.
    pub(crate) fn read_record(&self, offset: u64) -> u32 {
        let Some(record) = self.records.get(index_at(offset)) else { return 0 };
        let quad = if offset % 16 < 8 { record.page } else { record.info.into_bits() };
        low_u32(quad >> (offset % 8 * 8))
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
    fn raise(&mut self, unserviced: bool) -> Option<MsiMessage> {
        if unserviced { None } else { self.event.raise() }
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
