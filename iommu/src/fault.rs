//! Faults: what can go wrong with a request, its architectural code, and the registers that record it
//! (chapter 7).

use refault_bus::ats::{RequestKind, TranslationRequest};
use refault_bus::irq::MsiMessage;
use refault_bus::pri::PageRequest;
use refault_bus::{Bdf, Iova, Pasid};
use thiserror::Error;

use crate::caps::FAULT_RECORDS;
use crate::interrupt::EventRegisters;
use crate::spec::fault_record::FaultRecordInfo;
use crate::spec::invalidation::QueueError;
use crate::spec::registers::{FaultStatus, InvalidationQueueError};

/// What stopped a request (§7.1.3, table 30).
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

/// What a translation request that met a [`FaultReason`] is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtsAnswer {
    /// Success without rights; no fault is recorded.
    NoRights,
    /// Success without rights, and a fault is recorded.
    NoRightsRecorded,
    /// Unsupported Request, recorded.
    UnsupportedRequest,
    /// Completer Abort, recorded.
    CompleterAbort,
}

impl FaultReason {
    /// The code in the fault record: the one place that knows them.
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

    /// Whether a set FPD bit on the way forbids recording (column "qualified" of table 30).
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

    /// What an ATS translation request gets (columns "translation request" of table 30).
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

/// What kind of request met a fault (T1, T2 and AT of the record).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultedAccess {
    /// Untranslated read.
    Read,
    /// Untranslated write.
    Write,
    /// ATS translation request, for reading only or for writing too.
    Translation {
        /// Write permission was wanted.
        write: bool,
    },
    /// Page request.
    PageRequest,
}

/// A fault with all its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{requester} at {iova} (PASID {pasid:?}, {access:?}): {reason} [{:#04x}]", reason.code())]
pub struct RemappingFault {
    /// Who asked.
    pub requester: Bdf,
    /// In which address space.
    pub pasid: Option<Pasid>,
    /// What.
    pub iova: Iova,
    /// How.
    pub access: FaultedAccess,
    /// Why it failed.
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

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    page: u64,
    info: FaultRecordInfo,
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It has a record; the message is to be sent.
    Kept(Option<MsiMessage>),
    /// The same requester has a record already.
    Compressed,
    /// There is no room.
    Overflowed,
}

/// Fault records, queue errors and the fault event (§7.2, §7.3).
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    records: [Record; FAULT_RECORDS],
    next: usize,
    first: usize,
    overflow: bool,
    queue_error: Option<QueueError>,
    /// FECTL and its message registers.
    pub(crate) event: EventRegisters,
}

impl FaultLog {
    /// Records `fault` (§7.2.1): nothing while the overflow is not cleared; nothing if its requester has a
    /// record; an overflow if the next record is occupied.
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

    /// Notes that the invalidation queue stopped; gives the message to be sent.
    pub(crate) fn queue_stopped(&mut self, error: QueueError) -> Option<MsiMessage> {
        let unserviced = self.is_unserviced();
        self.queue_error = Some(error);
        self.raise(unserviced)
    }

    /// The next fault goes to the first record again: both kinds of translation are off (§7.2.1).
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
    }

    /// FSTS.
    pub(crate) fn status(&self) -> FaultStatus {
        FaultStatus::new()
            .with_pfo(self.overflow)
            .with_ppf(self.is_pending())
            .with_iqe(self.queue_error.is_some())
            .with_fri(if self.is_pending() { self.first as u8 } else { 0 })
    }

    /// Clears what is written as ones to FSTS; says whether the invalidation queue may go on.
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

    /// Reads the 32-bit word at `offset` behind the first record.
    pub(crate) fn read_record(&self, offset: u64) -> u32 {
        let Some(record) = self.records.get((offset / 16) as usize) else { return 0 };
        let quad = if offset % 16 < 8 { record.page } else { record.info.into_bits() };
        (quad >> (offset % 8 * 8)) as u32
    }

    /// Writes the 32-bit word at `offset` behind the first record: only F, by writing one, changes.
    pub(crate) fn write_record(&mut self, offset: u64, value: u32) {
        let Some(record) = self.records.get_mut((offset / 16) as usize) else { return };
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

    /// A condition beside one that software has not serviced yet is no new event.
    fn raise(&mut self, unserviced: bool) -> Option<MsiMessage> {
        if unserviced { None } else { self.event.raise() }
    }

    fn settle(&mut self) {
        if !self.is_unserviced() {
            self.event.serviced();
        }
    }
}
