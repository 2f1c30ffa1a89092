//! The rows of the matrix: a policy, and how the program under it behaves.

use std::sync::Arc;

use refault_model::policy::*;
use refault_model::scheduler::Scheduler;

use super::program::Habits;

/// How long a direct I/O keeps its pages pinned: of the order of a few hundred KiB to a busy disk.
pub const IO_NS: u64 = 5_000_000;
/// How long a program takes to let go that listens to its signals.
pub const ANSWER_NS: u64 = 200_000;
/// Linux' default of /proc/sys/fs/lease-break-time: 45 s.
pub const BREAK_TIME_NS: u64 = 45_000_000_000;
/// RLIMIT_MEMLOCK, Linux' default: 8 MiB.
const LOCKED_LIMIT: u64 = 8 << 20;

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// Faults through the process' page table.
    Pasid,
    /// Faults through the driver's table.
    Odp,
    /// A key for a file range.
    FileKey,
    /// Long-term pin that nobody respects.
    Pin,
    /// The same, told to the filesystem once.
    Prefault,
    /// Long-term pin refused.
    PinBanned,
    /// Direct I/O.
    ShortPin,
    /// Direct I/O that forgot to unpin a page.
    ShortPinLeaked,
    /// Lease whose holder answers.
    Lease,
    /// Lease whose holder does not: revoked.
    LeaseDeaf,
    /// Lease whose holder does not: killed.
    LeaseKilled,
    /// Opt-in lease: truncate fails.
    LeaseTruncateFails,
    /// The same, held until unpinned.
    LeaseUntilUnpinned,
    /// Sealed block map.
    Sealed,
    /// Sealed block map that can be broken.
    SealedBreakable,
    /// MAP_DIRECT.
    MapDirect,
    /// mpin, moves are refused.
    Mpin,
    /// mpin, moves wait.
    MpinWait,
    /// A filesystem that does not move blocks.
    NeverMoves,
}

impl Row {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 19] = [
        Self::Pasid,
        Self::Odp,
        Self::FileKey,
        Self::Pin,
        Self::Prefault,
        Self::PinBanned,
        Self::ShortPin,
        Self::ShortPinLeaked,
        Self::Lease,
        Self::LeaseDeaf,
        Self::LeaseKilled,
        Self::LeaseTruncateFails,
        Self::LeaseUntilUnpinned,
        Self::Sealed,
        Self::SealedBreakable,
        Self::MapDirect,
        Self::Mpin,
        Self::MpinWait,
        Self::NeverMoves,
    ];

    /// Its name, as `--policy` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pasid => "pasid",
            Self::Odp => "odp",
            Self::FileKey => "file-key",
            Self::Pin => "pin",
            Self::Prefault => "prefault",
            Self::PinBanned => "pin-banned",
            Self::ShortPin => "short-pin",
            Self::ShortPinLeaked => "short-pin-leaked",
            Self::Lease => "lease",
            Self::LeaseDeaf => "lease-deaf",
            Self::LeaseKilled => "lease-killed",
            Self::LeaseTruncateFails => "lease-truncate-fails",
            Self::LeaseUntilUnpinned => "lease-until-unpinned",
            Self::Sealed => "sealed",
            Self::SealedBreakable => "sealed-breakable",
            Self::MapDirect => "map-direct",
            Self::Mpin => "mpin",
            Self::MpinWait => "mpin-wait",
            Self::NeverMoves => "never-moves",
        }
    }

    /// What it is, in a line.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Pasid => {
                "nothing pinned; the device faults through the process' page table (PASID, ATS, PRI)"
            }
            Self::Odp => "nothing pinned; the driver fills and empties the NIC's table (ODP)",
            Self::FileKey => "the remote key names a file range; the filesystem resolves each access",
            Self::Pin => "long-term pin that the filesystem knows nothing of",
            Self::Prefault => "the same, but page_mkwrite is called once at registration",
            Self::PinBanned => "long-term pin of a DAX file refused: Linux today",
            Self::ShortPin => "pinned for an I/O of 5 ms; changes wait (direct I/O)",
            Self::ShortPinLeaked => "the same, and one page was never unpinned",
            Self::Lease => "revocable layout lease; the holder lets go 0.2 ms after it is asked",
            Self::LeaseDeaf => "the same, the holder does not answer: revoked after a break time of 45 s",
            Self::LeaseKilled => "the same, the holder does not answer: killed after a break time of 45 s",
            Self::LeaseTruncateFails => "opt-in lease; changes of pinned pages fail",
            Self::LeaseUntilUnpinned => "the same, and the lease is held until the last unpin",
            Self::Sealed => "block map sealed (S_IOMAP_IMMUTABLE) until unsealed or exit",
            Self::SealedBreakable => "the same, but a change breaks the seal and revokes what was registered",
            Self::MapDirect => "MAP_DIRECT: block map sealed as long as the mapping exists",
            Self::Mpin => "mpin(2): moves of mpinned pages are refused",
            Self::MpinWait => "mpin(2): moves wait for munpin, which comes after 5 ms",
            Self::NeverMoves => "a filesystem without reflink that refuses to free blocks in use",
        }
    }

    /// Whether the device faults: then nothing may be lost, land elsewhere or leak, whatever happens.
    pub const fn faults(self) -> bool {
        matches!(self, Self::Pasid | Self::Odp | Self::FileKey)
    }

    pub(super) fn policy(self, waits: Arc<dyn Scheduler>) -> Arc<dyn Policy> {
        match self {
            Self::Pasid => Arc::new(ThroughPasid),
            Self::Odp => Arc::new(OnDemand),
            Self::FileKey => Arc::new(FileKey),
            Self::Pin => Arc::new(Unprotected),
            Self::Prefault => Arc::new(Prefault),
            Self::PinBanned => Arc::new(Banned),
            Self::ShortPin | Self::ShortPinLeaked => Arc::new(ShortTermPin::new(waits)),
            Self::Lease | Self::LeaseDeaf => {
                Arc::new(RevocableLease::new(waits, BREAK_TIME_NS, OnBreakTimeout::Revoke))
            }
            Self::LeaseKilled => Arc::new(RevocableLease::new(waits, BREAK_TIME_NS, OnBreakTimeout::Kill)),
            Self::LeaseTruncateFails => Arc::new(PinnedLease::new(waits, false)),
            Self::LeaseUntilUnpinned => Arc::new(PinnedLease::new(waits, true)),
            Self::Sealed => Arc::new(Seal::new(SealKind::UntilExit)),
            Self::SealedBreakable => Arc::new(Seal::new(SealKind::Breakable)),
            Self::MapDirect => Arc::new(MapDirect::default()),
            Self::Mpin => Arc::new(Mpin::new(waits, WhenPinned::Refuse, LOCKED_LIMIT)),
            Self::MpinWait => Arc::new(Mpin::new(waits, WhenPinned::Wait, LOCKED_LIMIT)),
            Self::NeverMoves => Arc::new(NeverMoves),
        }
    }

    pub(super) fn habits(self) -> Habits {
        let done = Habits { done_after_ns: Some(IO_NS), comes_back: true, ..Habits::default() };
        match self {
            Self::ShortPin | Self::ShortPinLeaked | Self::MpinWait => done,
            Self::Lease => {
                Habits { answers_after_ns: Some(ANSWER_NS), comes_back: true, done_after_ns: None }
            }
            _ => Habits::default(),
        }
    }
}
