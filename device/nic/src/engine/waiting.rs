//! What a requester waits for, and for how long.

use std::ops::ControlFlow;

use refault_abi::codes::{WC_RETRY_EXC_ERR, WC_RNR_RETRY_EXC_ERR};
use refault_roce::rnr_delay_ns;

use super::Engine;
use super::outcome::{Leave, TurnEnd};
use super::turn::Turn;
use crate::cause::Cause;
use crate::qp::Qp;
use crate::qp::answer::{Half, PageAnswer};
use crate::qp::requester::Requester;
use crate::qp::stall::{Stall, Wait};

/// The requester is parked.
const PARKED: ControlFlow<Leave> = ControlFlow::Break(Leave::End(TurnEnd::Idle));

/// Whether a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The request may go on.
    Over,
    /// The queue pair stays parked.
    NotYet,
    /// The responder's RNR delay is over, and its page is still missing.
    NotReady,
    /// The request fails.
    Failed(Cause),
}

impl Engine {
    /// Ends what a half of queue pair `qpn` waits for. If that was a credit, the credit goes to the next in the queue; if the
    /// host's storage, nothing is written out for it any more.
    pub(super) fn end_wait(&self, stall: &mut Stall, qpn: u32) {
        match std::mem::take(&mut stall.wait) {
            Wait::Credit { place, .. } => {
                self.faults.leave_queue(place);
                self.workers.wake(&self.qps, self.faults.next_waiters());
            }
            Wait::Persistence { .. } => self.workers.storage.leave(qpn),
            _ => {}
        }
    }

    /// Whether what a half of `qp` waits for has come. The wait is over then.
    pub(super) fn waited(&self, qp: &Qp, half: Half, stall: &mut Stall) -> Waited {
        let fabric = &self.memory.fabric;
        let is_past = |deadline_ns: u64| fabric.now_ns() >= deadline_ns;
        let answered = |ticket| match qp.slot.answer(half, ticket) {
            None => Waited::NotYet,
            Some(PageAnswer::Retry) => Waited::Over,
            Some(PageAnswer::Failed(cause)) => Waited::Failed(cause),
        };
        let waited = match stall.wait {
            Wait::None => return Waited::Over,
            Wait::Page { ticket } | Wait::Persistence { ticket } => answered(ticket),
            Wait::NotReady { deadline_ns, .. } if !is_past(deadline_ns) => Waited::NotYet,
            Wait::NotReady { ticket, .. } => match answered(ticket) {
                Waited::NotYet => Waited::NotReady,
                waited => waited,
            },
            Wait::Credit { ticket, place, deadline_ns } => match answered(ticket) {
                Waited::NotYet if deadline_ns.is_some_and(is_past) && self.faults.leave_queue(place) => {
                    Waited::Failed(Cause::PageTimeout)
                }
                waited => waited,
            },
            Wait::Until { deadline_ns } if is_past(deadline_ns) => Waited::Over,
            Wait::Until { .. } => Waited::NotYet,
            // The cause of this turn does not matter, only the peer's state does: the request is handed over once more.
            Wait::Peer => Waited::Over,
        };
        if !matches!(waited, Waited::NotYet | Waited::NotReady) {
            self.end_wait(stall, qp.qpn());
        }
        waited
    }
}

impl Turn<'_, '_> {
    /// Whether what the requester waits for has come.
    #[inline]
    pub(super) fn waited(&mut self) -> Waited {
        // Most requests wait for nothing.
        if self.requester.stall.wait == Wait::None {
            return Waited::Over;
        }
        let Requester { stall, active, .. } = &mut *self.requester;
        let before = stall.wait;
        let waited = self.engine.waited(self.qp, Half::Requester, stall);
        if let (Waited::Over, Wait::Persistence { .. }, Some(message)) = (waited, before, active.get_mut()) {
            message.unwritten = None;
        }
        waited
    }

    /// No responder answers: waits for the transport timer, or fails when the retry counter is exhausted
    /// (InfiniBand 1.4, 9.9.2.1).
    pub(super) fn wait_for_peer(&mut self) -> ControlFlow<Leave> {
        let Some(timeout) = self.requester.attributes.timeout_ns() else {
            self.requester.stall.wait = Wait::Peer;
            return PARKED;
        };
        if self.requester.transport_retries > self.requester.attributes.retry_count {
            self.port.shard().stats.retries_exceeded += 1;
            self.complete_request(WC_RETRY_EXC_ERR, None);
            return ControlFlow::Continue(());
        }
        self.requester.transport_retries += 1;
        self.port.shard().stats.transport_retries += 1;
        self.wait_for(timeout);
        PARKED
    }

    /// RNR NAK: waits for the delay that the code stands for, or fails when the RNR retry counter is exhausted
    /// (InfiniBand 1.4, 9.7.5.2.8 and 9.9.2.1).
    pub(super) fn wait_for_receive(&mut self, code: u8) -> ControlFlow<Leave> {
        if let Some(limit) = self.requester.attributes.rnr_retry_limit() {
            if self.requester.rnr_retries >= limit {
                self.port.shard().stats.rnr_retries_exceeded += 1;
                self.complete_request(WC_RNR_RETRY_EXC_ERR, None);
                return ControlFlow::Continue(());
            }
            self.requester.rnr_retries += 1;
        }
        self.port.shard().stats.rnr_waits += 1;
        self.wait_for(rnr_delay_ns(code));
        PARKED
    }

    /// RNR NAK for the responder's missing page: the same, but an answer that came in between counts.
    pub(super) fn wait_until_ready(&mut self) -> ControlFlow<Leave> {
        let (Wait::Page { ticket } | Wait::NotReady { ticket, .. }) = self.requester.stall.wait else {
            return PARKED;
        };
        let code = self.handover().rnr_timer();
        let parked = self.wait_for_receive(code);
        if let Wait::Until { deadline_ns } = self.requester.stall.wait {
            self.requester.stall.wait = Wait::NotReady { ticket, deadline_ns };
        }
        parked
    }

    /// Parks the requester for a time.
    fn wait_for(&mut self, delay_ns: u64) {
        let deadline_ns = self.port.fabric().now_ns().saturating_add(delay_ns);
        self.requester.stall.wait = Wait::Until { deadline_ns };
        self.engine.workers.wake_at(self.requester.setup.qpn, deadline_ns);
    }
}
