//! Answers to waits for pages, for credits, and for persistent memory.

use crate::cause::Cause;

/// The half of a queue pair that waits. Each waits for one answer at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// The requester, parked with its request.
    Requester,
    /// The responder of a datagram queue pair: its receive request needs a page, and only a failure matters.
    Responder,
}

/// A half of a queue pair that waits, and the ticket that its answer must bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) qpn: u32,
    pub(crate) half: Half,
    pub(crate) ticket: u64,
}

/// A place among those that wait for a credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The owner that is charged.
    pub(crate) owner: u32,
    /// Ticket of the first wait: the order among an owner's waiters.
    pub(crate) since: u64,
}

/// An answer for a waiter.
pub(crate) type Wakeup = (Waiter, PageAnswer);

/// The answer to a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageAnswer {
    /// The access may succeed now: try again.
    Retry,
    /// The access fails.
    Failed(Cause),
}

impl PageAnswer {
    pub(super) const fn bits(self) -> u64 {
        match self {
            Self::Retry => 0,
            Self::Failed(Cause::PageRefused) => 1,
            Self::Failed(Cause::PageFailure) => 2,
            Self::Failed(Cause::PageTimeout) => 3,
            Self::Failed(Cause::NotPersistent) => 5,
            Self::Failed(_) => 4,
        }
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        match bits & 7 {
            0 => Self::Retry,
            1 => Self::Failed(Cause::PageRefused),
            2 => Self::Failed(Cause::PageFailure),
            3 => Self::Failed(Cause::PageTimeout),
            5 => Self::Failed(Cause::NotPersistent),
            _ => Self::Failed(Cause::Blocked),
        }
    }
}
