//! The result of one cell.

use std::collections::BTreeMap;
use std::fmt;

use refault_abi::codes::{
    CAUSE_BLOCKED, CAUSE_BOUNDS, CAUSE_KEY, CAUSE_NONE, CAUSE_PAGE_REFUSED, CAUSE_PAGE_RETRIES,
    CAUSE_PAGE_TIMEOUT, CAUSE_REVOKED, CAUSE_RIGHTS,
};
use refault_model::dax::{Errno, FsError};

use super::operation::FileOperation;
use super::row::PolicyRow;

/// The result of a request to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It succeeded.
    Done,
    /// It was refused with an error, for this reason.
    Refused(Errno, &'static str),
    /// It waits forever, for this.
    Forever(&'static str),
}

impl Ending {
    pub(super) fn of(result: &Result<(), FsError>) -> anyhow::Result<Self> {
        match result {
            Ok(()) => Ok(Self::Done),
            Err(FsError::Refused { errno, reason }) => Ok(Self::Refused(*errno, reason)),
            Err(FsError::Forever(what)) => Ok(Self::Forever(what)),
            Err(FsError::Model(error)) => Err(error.clone().into()),
        }
    }

    /// Whether it succeeded.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("ok"),
            Self::Refused(errno, reason) => write!(f, "{errno} ({reason})"),
            Self::Forever(what) => write!(f, "waits forever for {what}"),
        }
    }
}

/// Counts of requests in one phase of a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Successful requests.
    pub succeeded: u64,
    /// Failed requests by `CAUSE_*` code.
    pub failed: BTreeMap<u32, u64>,
}

impl RequestCounts {
    /// All failed requests.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// A short description of a `CAUSE_*` code.
pub fn cause_name(cause: u32) -> &'static str {
    match cause {
        CAUSE_NONE => "flushed",
        CAUSE_KEY => "no such key",
        CAUSE_BOUNDS => "outside the region",
        CAUSE_RIGHTS => "not allowed",
        CAUSE_REVOKED => "region revoked",
        CAUSE_PAGE_REFUSED => "page refused",
        CAUSE_PAGE_TIMEOUT => "page timed out",
        CAUSE_PAGE_RETRIES => "page retries exhausted",
        CAUSE_BLOCKED => "blocked by the IOMMU",
        _ => "other",
    }
}

impl fmt::Display for RequestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ok", self.succeeded)?;
        self.failed.iter().try_for_each(|(&cause, count)| write!(f, ", {count} {}", cause_name(cause)))
    }
}

/// The result of one policy under one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The policy.
    pub row: PolicyRow,
    /// The operation.
    pub operation: FileOperation,
    /// How the setup that the operation needs ended, such as a reflink copy for a write to shared blocks.
    pub setup: Ending,
    /// How registration ended.
    pub registration: Ending,
    /// How the operation ended.
    pub outcome: Ending,
    /// How long the operation waited, in nanoseconds of virtual time.
    pub waited_ns: u64,
    /// Signals sent to the program.
    pub signals: u32,
    /// Whether the program was killed.
    pub killed: bool,
    /// Requests that completed before the operation.
    pub before: RequestCounts,
    /// Requests in flight during the operation.
    pub during: RequestCounts,
    /// Requests posted after the operation.
    pub after: RequestCounts,
    /// How a second registration ended, for a program that had released its region.
    pub again: Option<Ending>,
    /// Device faults that were handled.
    pub faults: u64,
    /// Bytes that were acknowledged as written but are not in the file.
    pub lost: u64,
    /// Bytes of other files that the device overwrote.
    pub landed: u64,
    /// Bytes of other files that the device read.
    pub leaked: u64,
    /// Bytes that the device read although the file no longer contains them.
    pub stale: u64,
    /// Pages that the device wrote after the operation without the filesystem marking them dirty.
    pub unnoticed: u64,
    /// Bytes of the file that a crash would lose, although it was flushed as the policy requires.
    pub lost_in_crash: u64,
    /// Errors of refault or the model themselves; always empty unless there is a bug.
    pub broken: Vec<String>,
}

/// The worst effect in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CellVerdict {
    /// The operation proceeds at once, and no byte is wrong.
    Proceeds,
    /// The operation proceeds after a wait, and no byte is wrong.
    Waits,
    /// The operation is refused.
    Refused(Errno),
    /// Registration is refused, so there is no DMA.
    NoDma(Errno),
    /// The region is revoked.
    Revokes,
    /// The program is killed.
    Kills,
    /// The operation never ends.
    Forever,
    /// The device reads data that is no longer in the file.
    Stale,
    /// Flushed data is missing after a crash.
    LostInCrash,
    /// Acknowledged data is missing.
    Loses,
    /// The device reads another file's data.
    Leaks,
    /// The device overwrites another file's data.
    Corrupts,
}

impl Cell {
    /// The worst effect.
    pub fn verdict(&self) -> CellVerdict {
        match (self.registration, self.outcome) {
            _ if self.landed > 0 => CellVerdict::Corrupts,
            _ if self.leaked > 0 => CellVerdict::Leaks,
            _ if self.lost > 0 => CellVerdict::Loses,
            _ if self.lost_in_crash > 0 => CellVerdict::LostInCrash,
            (_, Ending::Forever(_)) => CellVerdict::Forever,
            _ if self.killed => CellVerdict::Kills,
            _ if self.was_revoked() => CellVerdict::Revokes,
            (Ending::Refused(errno, _), _) => CellVerdict::NoDma(errno),
            (_, Ending::Refused(errno, _)) => CellVerdict::Refused(errno),
            _ if self.stale > 0 => CellVerdict::Stale,
            _ if self.waited_ns > 0 => CellVerdict::Waits,
            _ => CellVerdict::Proceeds,
        }
    }

    fn was_revoked(&self) -> bool {
        [&self.during, &self.after].iter().any(|requests| requests.failed.contains_key(&CAUSE_REVOKED))
    }

    /// The verdict as a word of the grid.
    pub fn label(&self) -> String {
        match self.verdict() {
            CellVerdict::Proceeds => "ok".to_owned(),
            CellVerdict::Waits => duration(self.waited_ns),
            CellVerdict::Refused(errno) => errno.to_string(),
            CellVerdict::NoDma(_) => "no DMA".to_owned(),
            CellVerdict::Revokes if self.waited_ns > 0 => format!("rev {}", duration(self.waited_ns)),
            CellVerdict::Revokes => "revoked".to_owned(),
            CellVerdict::Kills if self.waited_ns > 0 => format!("kill {}", duration(self.waited_ns)),
            CellVerdict::Kills => "killed".to_owned(),
            CellVerdict::Forever => "FOREVER".to_owned(),
            CellVerdict::Stale if self.waited_ns > 0 => format!("{} stale", duration(self.waited_ns)),
            CellVerdict::Stale => "stale".to_owned(),
            CellVerdict::LostInCrash => "LOST@CRASH".to_owned(),
            CellVerdict::Loses => "LOST".to_owned(),
            CellVerdict::Leaks => "LEAK".to_owned(),
            CellVerdict::Corrupts => "CORRUPT".to_owned(),
        }
    }
}

/// Formats nanoseconds: `200 us`, `5 ms`.
pub(super) fn duration(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        1..1_000_000 => format!("{} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{} ms", ns as f64 / 1e6),
        _ => format!("{} s", ns as f64 / 1e9),
    }
}
