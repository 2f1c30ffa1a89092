//! Queue pairs.
//!
//! A queue pair has two halves with a lock each: the requester, which drains the send queue, and the
//! responder, which takes what the peer sends. Lock order: requester of A, then a worker's guard, then
//! responder of B (A and B may be one). No requester and no guard is locked while a responder is.

pub(crate) mod answer;
pub(crate) mod attributes;
pub(crate) mod connection;
pub(crate) mod frames;
pub(crate) mod inbox;
pub(crate) mod refusal;
pub(crate) mod requester;
pub(crate) mod responder;
pub(crate) mod setup;
pub(crate) mod slot;
pub(crate) mod stall;
pub(crate) mod state;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use refault_abi::codes::{QPS_ERR, QPS_RESET, QpKind, QpState};

use crate::ids::slot_of;
use crate::qp::inbox::Inbox;
use crate::qp::requester::Requester;
use crate::qp::responder::Responder;
use crate::qp::setup::Setup;
use crate::qp::slot::Slot;
use crate::slab::Slab;

/// Doorbells are not timed.
const RUNG_UNWANTED: u64 = 0;
/// No doorbell has rung since the send queue was read.
const RUNG_NOT_YET: u64 = 1;

/// One queue pair, in its slot.
#[derive(Debug, Default)]
pub(crate) struct Qp {
    pub(crate) slot: Slot<Requester>,
    state: AtomicU8,
    /// QPT_*.
    kind: AtomicU8,
    /// Its context, on whose doorbell page it is rung.
    context: AtomicU32,
    send_cq: AtomicU32,
    recv_cq: AtomicU32,
    /// The event of the fatal error that took it to ERR is still to be sent.
    fatal: AtomicBool,
    /// The first doorbell since the send queue was read: [`RUNG_UNWANTED`], [`RUNG_NOT_YET`], or its time.
    rung: AtomicU64,
    pub(crate) responder: Mutex<Responder>,
    /// Packets that have arrived, if it is connected by packets.
    pub(crate) inbox: Inbox,
}

impl Qp {
    pub(crate) fn qpn(&self) -> u32 {
        self.slot.qpn()
    }

    pub(crate) fn state(&self) -> QpState {
        QpState(self.state.load(Ordering::Acquire))
    }

    pub(crate) fn kind(&self) -> QpKind {
        QpKind(self.kind.load(Ordering::Acquire))
    }

    pub(crate) fn context(&self) -> u32 {
        self.context.load(Ordering::Acquire)
    }

    /// Whether its completions go to queue `cqn`.
    pub(crate) fn uses_cq(&self, cqn: u32) -> bool {
        self.send_cq.load(Ordering::Acquire) == cqn || self.recv_cq.load(Ordering::Acquire) == cqn
    }

    /// Starts or, with the default, ends the queue pair. The caller holds both halves.
    pub(crate) fn occupy(&self, setup: &Setup) {
        self.state.store(QPS_RESET.0, Ordering::Release);
        self.kind.store(setup.kind.0, Ordering::Release);
        self.context.store(setup.context, Ordering::Release);
        self.send_cq.store(setup.send_cq, Ordering::Release);
        self.recv_cq.store(setup.recv_cq, Ordering::Release);
        self.fatal.store(false, Ordering::Release);
        // The first request is sampled, if any is.
        self.rung.store(RUNG_NOT_YET, Ordering::Release);
        self.inbox.clear();
        self.slot.occupy(setup.qpn);
    }

    /// Changes the state; `false` if it is not `from` any more.
    pub(crate) fn change_state(&self, from: QpState, to: QpState) -> bool {
        self.state.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// To ERR, unless it is in RESET. Any thread may do so at any time. `false` if it was in either.
    pub(crate) fn fail(&self) -> bool {
        let live = |state| (state != QPS_RESET.0 && state != QPS_ERR.0).then_some(QPS_ERR.0);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, live).is_ok()
    }

    /// Notes that an event of a fatal error must be sent.
    pub(crate) fn mark_fatal(&self) {
        self.fatal.store(true, Ordering::Release);
    }

    pub(crate) fn take_fatal(&self) -> bool {
        self.fatal.load(Ordering::Relaxed) && self.fatal.swap(false, Ordering::AcqRel)
    }

    /// Whether doorbells are timed, and none was since the send queue was read.
    pub(crate) fn wants_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed) == RUNG_NOT_YET
    }

    /// Notes when a doorbell rang, unless one did before.
    pub(crate) fn note_rung(&self, now_ns: u64) {
        let at = now_ns.max(RUNG_NOT_YET + 1);
        let _ = self.rung.compare_exchange(RUNG_NOT_YET, at, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// When the first doorbell rang since the last call, if that is known.
    pub(crate) fn take_rung(&self) -> Option<u64> {
        if self.rung.load(Ordering::Relaxed) <= RUNG_NOT_YET {
            return None;
        }
        Some(self.rung.swap(RUNG_NOT_YET, Ordering::Relaxed)).filter(|&at| at > RUNG_NOT_YET)
    }

    /// Whether doorbells are timed from now on. Only the worker calls this.
    pub(crate) fn want_rung(&self, wanted: bool) {
        if !wanted {
            self.rung.store(RUNG_UNWANTED, Ordering::Relaxed);
        } else if self.rung.load(Ordering::Relaxed) == RUNG_UNWANTED {
            self.rung.store(RUNG_NOT_YET, Ordering::Relaxed);
        }
    }
}

/// All queue pairs.
pub(crate) struct QueuePairs(Slab<Qp>);

impl QueuePairs {
    pub(crate) fn new(limit: u32) -> Self {
        Self(Slab::new(limit))
    }

    /// The queue pair with that number.
    pub(crate) fn find(&self, qpn: u32) -> Option<&Qp> {
        self.0.find(slot_of(qpn)).filter(|qp| qpn != 0 && qp.qpn() == qpn)
    }

    /// What is in a slot now, if anything ever was.
    pub(crate) fn occupant(&self, slot: u32) -> Option<&Qp> {
        self.0.find(slot)
    }

    /// The slot for a new queue pair.
    pub(crate) fn slot(&self, qpn: u32) -> Option<&Qp> {
        self.0.grow_to(slot_of(qpn))
    }

    /// All that exist.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Qp> {
        self.0.iter().filter(|qp| qp.qpn() != 0)
    }
}

#[cfg(test)]
mod tests {
    use refault_abi::codes::QPS_SQD;

    use super::*;

    #[test]
    fn what_the_manual_says_of_memory_is_true() {
        assert!(size_of::<Qp>() <= 1280, "{}", size_of::<Qp>());
        let region = size_of::<Mutex<Option<crate::memory::region::Region>>>();
        assert!(region < 96, "{region}");
    }

    #[test]
    fn an_error_takes_every_state_but_reset() {
        let qp = Qp::default();
        assert!(!qp.fail());
        assert!(qp.change_state(QPS_RESET, QPS_SQD));
        assert!(qp.fail());
        assert_eq!(qp.state(), QPS_ERR);
        assert!(!qp.fail());
    }
}
