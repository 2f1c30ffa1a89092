//! The reasons of faults (§7.1.3), and the columns of table 30 that follow from each.

use thiserror::Error;

/// Why a request failed (§7.1.3). Each reason is a condition of table 30, whose name in the table is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum FaultReason {
    /// RTA.1
    #[error("root table address register has a mode that is not supported")]
    RootMode,
    /// RTA.2
    #[error("request with PASID while the root table address register is set to legacy mode")]
    PasidInLegacyMode,
    /// RTA.3
    #[error("page request while the root table address register is set to legacy mode")]
    PageRequestInLegacyMode,
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
            Self::PasidInLegacyMode => 0x31,
            Self::PageRequestInLegacyMode => 0x32,
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
                | Self::PasidInLegacyMode
                | Self::PageRequestInLegacyMode
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
            Self::PasidInLegacyMode
            | Self::PageRequestInLegacyMode
            | Self::RootNotPresent
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
