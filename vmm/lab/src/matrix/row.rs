//! The rows of the matrix: policies, each with the behaviour of the program under it.

use std::sync::Arc;

use refault_model::policy::*;
use refault_model::scheduler::Scheduler;

use super::program::ProgramBehaviour;

/// How long a direct I/O keeps its pages pinned, in nanoseconds: about that of a few hundred KiB to a busy disk.
pub const IO_NS: u64 = 5_000_000;
/// How long a program that handles signals takes to release its region, in nanoseconds.
pub const ANSWER_NS: u64 = 200_000;
/// Linux's default of `/proc/sys/fs/lease-break-time`, 45 s, in nanoseconds.
pub const BREAK_TIME_NS: u64 = 45_000_000_000;
/// Linux's default of `RLIMIT_MEMLOCK`: 8 MiB.
const LOCKED_LIMIT: u64 = 8 << 20;

/// A policy: a row of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyRow {
    /// Page faults through the process's page table.
    Pasid,
    /// Page faults through the NIC's own table.
    Odp,
    /// A remote key that names a file range.
    FileKey,
    /// A long-term pin that the filesystem ignores.
    Pin,
    /// A long-term pin, with one notification of the filesystem at registration.
    Prefault,
    /// Long-term pins are refused.
    PinBanned,
    /// Short-term pins, as for direct I/O.
    ShortPin,
    /// Short-term pins, one of which leaks.
    ShortPinLeaked,
    /// A lease whose holder responds.
    Lease,
    /// A lease whose holder does not respond: revoked.
    LeaseDeaf,
    /// A lease whose holder does not respond: killed.
    LeaseKilled,
    /// An opt-in lease: truncate fails.
    LeaseTruncateFails,
    /// An opt-in lease that is held until the last unpin.
    LeaseUntilUnpinned,
    /// A sealed block map.
    Sealed,
    /// A sealed block map whose seal a change breaks.
    SealedBreakable,
    /// `MAP_DIRECT`.
    MapDirect,
    /// `mpin`: moves are refused.
    Mpin,
    /// `mpin`: moves wait.
    MpinWait,
    /// A filesystem that does not move blocks.
    NeverMoves,
}

impl PolicyRow {
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

    /// The name that `--policy` accepts.
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

    /// A one-line description.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Pasid => {
                "nothing pinned; the device faults through the process's page table (PASID, ATS, PRI)"
            }
            Self::Odp => "nothing pinned; the driver fills and empties the NIC's table (ODP)",
            Self::FileKey => "the remote key names a file range; the filesystem resolves each access",
            Self::Pin => "long-term pin that the filesystem does not know about",
            Self::Prefault => "the same, but page_mkwrite is called once at registration",
            Self::PinBanned => "long-term pin of a DAX file refused: Linux today",
            Self::ShortPin => "pinned for an I/O of 5 ms; changes wait (direct I/O)",
            Self::ShortPinLeaked => "the same, and one page was never unpinned",
            Self::Lease => "revocable layout lease; the holder releases it 0.2 ms after the request",
            Self::LeaseDeaf => {
                "the same, but the holder does not respond: revoked after a break time of 45 s"
            }
            Self::LeaseKilled => {
                "the same, but the holder does not respond: killed after a break time of 45 s"
            }
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

    /// Whether the device faults: then no byte may be lost, misplaced or leaked, whatever the operation.
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

    pub(super) fn behaviour(self) -> ProgramBehaviour {
        let done = ProgramBehaviour {
            done_after_ns: Some(IO_NS),
            registers_again: true,
            ..ProgramBehaviour::default()
        };
        match self {
            Self::ShortPin | Self::ShortPinLeaked | Self::MpinWait => done,
            Self::Lease => ProgramBehaviour {
                releases_after_ns: Some(ANSWER_NS),
                registers_again: true,
                done_after_ns: None,
            },
            _ => ProgramBehaviour::default(),
        }
    }
}
