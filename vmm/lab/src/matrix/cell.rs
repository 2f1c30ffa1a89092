//! What is known of one policy under one operation when it is over.

use std::collections::BTreeMap;
use std::fmt;

use refault_abi::codes::*;
use refault_model::dax::{Errno, FsError};

use super::operation::Operation;
use super::row::Row;

/// How something that was asked of the kernel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was done.
    Done,
    /// It was refused, for this reason.
    Refused(Errno, &'static str),
    /// It waits for what never comes, for this.
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

    /// Whether it was done.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("ok"),
            Self::Refused(errno, reason) => write!(f, "{errno} ({reason})"),
            Self::Forever(what) => write!(f, "waits for ever for {what}"),
        }
    }
}

/// Requests of one part of the cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// That succeeded.
    pub succeeded: u64,
    /// That failed, by CAUSE_*.
    pub failed: BTreeMap<u32, u64>,
}

impl Requests {
    /// That failed, in all.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// The word for a CAUSE_*.
pub fn cause_name(cause: u32) -> &'static str {
    match cause {
        CAUSE_NONE => "flushed",
        CAUSE_KEY => "no such key",
        CAUSE_BOUNDS => "outside the region",
        CAUSE_RIGHTS => "not allowed",
        CAUSE_REVOKED => "region revoked",
        CAUSE_PAGE_REFUSED => "page refused",
        CAUSE_PAGE_TIMEOUT => "page timed out",
        CAUSE_PAGE_RETRIES => "page never stayed",
        CAUSE_BLOCKED => "blocked by the IOMMU",
        _ => "other",
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ok", self.succeeded)?;
        self.failed.iter().try_for_each(|(&cause, count)| write!(f, ", {count} {}", cause_name(cause)))
    }
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The policy.
    pub row: Row,
    /// The operation.
    pub operation: Operation,
    /// Whether the policy let the file be made as the operation needs it (a reflink copy, for a write to shared blocks).
    pub setup: Ending,
    /// How registration ended.
    pub registration: Ending,
    /// How the operation ended.
    pub outcome: Ending,
    /// How long it waited, in nanoseconds of virtual time.
    pub waited_ns: u64,
    /// Signals that the program got.
    pub signals: u32,
    /// It was killed.
    pub killed: bool,
    /// Requests that were over before the operation.
    pub before: Requests,
    /// Requests that were in flight during it.
    pub during: Requests,
    /// Requests that were posted after it.
    pub after: Requests,
    /// How registering again ended, for a program that had let go.
    pub again: Option<Ending>,
    /// Faults of the device that were handled.
    pub faults: u64,
    /// Bytes that the device, or somebody else, was told were written, and that the file does not have.
    pub lost: u64,
    /// Bytes of other files that were overwritten.
    pub landed: u64,
    /// Bytes that the device read and that are another file's.
    pub leaked: u64,
    /// Bytes that the device read and that are the file's no more.
    pub stale: u64,
    /// Pages that the device wrote after the operation without the filesystem knowing that they are dirty.
    pub unnoticed: u64,
    /// Bytes that are in the file, and would not be after a crash, though it was flushed as the policy wants it.
    pub lost_in_crash: u64,
    /// What is wrong with refault itself, or with the model: there must be nothing.
    pub broken: Vec<String>,
}

/// The cell in a word: the worst that is to be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The operation proceeds at once, and no byte is wrong.
    Proceeds,
    /// The same, after a wait.
    Waits,
    /// The operation is refused.
    Refused(Errno),
    /// Registration is refused: there is no DMA.
    NoDma(Errno),
    /// The region was revoked.
    Revokes,
    /// The program was killed.
    Kills,
    /// The operation waits for ever.
    Forever,
    /// The device reads what is not in the file any more.
    Stale,
    /// What was written is not there after a crash.
    LostInCrash,
    /// What was written is not there.
    Loses,
    /// The device reads another file.
    Leaks,
    /// The device writes another file.
    Corrupts,
}

impl Cell {
    /// The worst that is to be said of it.
    pub fn verdict(&self) -> Verdict {
        match (self.registration, self.outcome) {
            _ if self.landed > 0 => Verdict::Corrupts,
            _ if self.leaked > 0 => Verdict::Leaks,
            _ if self.lost > 0 => Verdict::Loses,
            _ if self.lost_in_crash > 0 => Verdict::LostInCrash,
            (_, Ending::Forever(_)) => Verdict::Forever,
            _ if self.killed => Verdict::Kills,
            _ if self.was_revoked() => Verdict::Revokes,
            (Ending::Refused(errno, _), _) => Verdict::NoDma(errno),
            (_, Ending::Refused(errno, _)) => Verdict::Refused(errno),
            _ if self.stale > 0 => Verdict::Stale,
            _ if self.waited_ns > 0 => Verdict::Waits,
            _ => Verdict::Proceeds,
        }
    }

    fn was_revoked(&self) -> bool {
        [&self.during, &self.after].iter().any(|requests| requests.failed.contains_key(&CAUSE_REVOKED))
    }

    /// The verdict, short enough for a column of the grid.
    pub fn label(&self) -> String {
        match self.verdict() {
            Verdict::Proceeds => "ok".to_owned(),
            Verdict::Waits => duration(self.waited_ns),
            Verdict::Refused(errno) => errno.to_string(),
            Verdict::NoDma(_) => "no DMA".to_owned(),
            Verdict::Revokes if self.waited_ns > 0 => format!("rev {}", duration(self.waited_ns)),
            Verdict::Revokes => "revoked".to_owned(),
            Verdict::Kills if self.waited_ns > 0 => format!("kill {}", duration(self.waited_ns)),
            Verdict::Kills => "killed".to_owned(),
            Verdict::Forever => "FOREVER".to_owned(),
            Verdict::Stale if self.waited_ns > 0 => format!("{} stale", duration(self.waited_ns)),
            Verdict::Stale => "stale".to_owned(),
            Verdict::LostInCrash => "LOST@CRASH".to_owned(),
            Verdict::Loses => "LOST".to_owned(),
            Verdict::Leaks => "LEAK".to_owned(),
            Verdict::Corrupts => "CORRUPT".to_owned(),
        }
    }
}

/// Nanoseconds for people.
pub(super) fn duration(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        1..1_000_000 => format!("{} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{} ms", ns as f64 / 1e6),
        _ => format!("{} s", ns as f64 / 1e9),
    }
}
