//! What a step of a request leads to.

use std::ops::ControlFlow;

use refault_bus::dma::GpaRange;

use crate::cause::Cause;
use crate::memory::access::{PageMiss, Stopped};
use crate::memory::resolve::Ahead;
use crate::qp::answer::{Half, Waiter};
pub(super) use crate::qp::refusal::Refusal;
use crate::verbs::{End, Registration};

/// A refusal of what this device does not do.
pub(super) const UNSUPPORTED: Refusal = Refusal::Request(Cause::Rights);

/// What a step of a request has done: what an acknowledgement, or its absence, would say to the requester.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All bytes are moved, and the responder has acknowledged.
    Done,
    /// That many bytes were moved, or looking up as many pages of a FLUSH costs as much; more remain.
    Moved(u32),
    /// Memory at one end stopped the copy.
    Stopped(Stopped),
    /// No responder answers.
    NoPeer,
    /// RNR NAK: the responder has no receive request. Its timer code (InfiniBand 1.4, 9.7.5.2.8).
    NotReady(u8),
    /// A datagram longer than a packet.
    TooLong,
    /// NAK: the responder refuses.
    Refused(Refusal),
    /// What was found of a FLUSH in this region must be made persistent.
    Persist(GpaRange),
    /// A key must be made invalid before the message is done.
    Invalidate(RegionChange),
    /// Another processor keeps changing the word of an atomic.
    Contended,
    /// The wire has no room for a frame.
    WireBusy,
}

impl From<Stopped> for Outcome {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A step of a request: goes on with a value, or ends with an outcome.
pub(super) type Step<T = ()> = ControlFlow<Outcome, T>;

/// Goes on with a success; an error is the step's outcome.
#[inline]
pub(super) fn step<T>(result: Result<T, impl Into<Outcome>>) -> Step<T> {
    match result {
        Ok(value) => ControlFlow::Continue(value),
        Err(error) => ControlFlow::Break(error.into()),
    }
}

/// Why a turn leaves its guard.
#[derive(Debug)]
pub(super) enum Leave {
    /// The turn is over.
    End(TurnEnd),
    /// An invalidation waits for the guard.
    StepAside,
    /// The operating system must be asked for a page of the active request.
    Ask(End, PageMiss),
    /// The same for a half of a queue pair that sends packets, and what it needs besides.
    AskFor(Half, PageMiss, Ahead),
    /// A region must be made valid or invalid, which no guard may be held for.
    ChangeRegion(RegionChange),
    /// The same as `Ask` for the receive request of a datagram, which is dropped.
    AskForReceiver(PageMiss, Waiter),
    /// The same for what the responder of such a queue pair will need: a page, its byte in the message, and others. It does not
    /// wait for them.
    Prefault { miss: PageMiss, at: u32, ahead: Ahead },
}

/// A change of a region, for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegionChange {
    /// The active request registers it.
    Register(Registration),
    /// The active request makes it invalid.
    Invalidate { key: u32 },
    /// The key that a message for a responder of this protection domain names.
    Remote { key: u32, pd: u32 },
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// Nothing to do until something wakes the queue pair.
    Idle,
    /// There is more to do.
    Again,
}
