//! A queue pair's slot: where a worker's turns, answers to waits, and commands meet.
//!
//! An answer is left without a lock, and a turn is queued. Meanwhile the queue pair may be destroyed, and another one may
//! have its slot. Neither is harmed: a turn is for the slot and looks at what is there, and an answer bears the ticket of
//! one wait, which no other wait ever has.

use refault_bus::guard::Guarded;
use refault_bus::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::cause::Cause;
use crate::ids::slot_of;
use crate::qp::answer::{Half, PageAnswer};

/// The slot of a queue pair whose sending half is an `R`. QPN zero is none.
#[derive(Debug, Default)]
pub(crate) struct Slot<R> {
    qpn: AtomicU32,
    /// It is in its worker's queue.
    scheduled: AtomicBool,
    /// Last answer to a wait of each half of this slot: `ticket << 3 | code`. Tickets only grow.
    answers: [AtomicU64; 2],
    /// Entered for a turn, and interrupted by commands, which do not wait for more than the turn at hand.
    pub(crate) requester: Guarded<R>,
}

impl<R> Slot<R> {
    pub(crate) fn qpn(&self) -> u32 {
        self.qpn.load(Ordering::Acquire)
    }

    /// The queue pair `qpn` begins or, with zero, the present one ends. The caller is inside the requester.
    pub(crate) fn occupy(&self, qpn: u32) {
        self.qpn.store(qpn, Ordering::Release);
    }

    /// Has `queue` queue a turn of this slot, if there is a queue pair and no turn is queued already.
    pub(crate) fn schedule(&self, queue: impl FnOnce(u32)) {
        let qpn = self.qpn();
        if qpn != 0 && !self.scheduled.swap(true, Ordering::SeqCst) {
            queue(slot_of(qpn));
        }
    }

    /// A queued turn: `run` works on the requester, unless the slot is empty by now. What happens from here on, a doorbell
    /// or an answer, queues another turn.
    pub(crate) fn turn(&self, run: impl FnOnce(&mut R)) {
        self.scheduled.swap(false, Ordering::SeqCst);
        let mut requester = self.requester.enter();
        // Under the guard: a queue pair that was destroyed is left alone.
        if self.qpn() != 0 {
            run(&mut requester);
        }
    }

    /// Leaves the answer to the wait with `ticket`, unless a later wait of that half was answered already.
    pub(crate) fn leave_answer(&self, half: Half, ticket: u64, answer: PageAnswer) {
        self.answers[half as usize].fetch_max(ticket << 3 | answer.bits(), Ordering::AcqRel);
    }

    /// The answer to a half's wait with `ticket`, if it is there.
    pub(crate) fn answer(&self, half: Half, ticket: u64) -> Option<PageAnswer> {
        let left = self.answers[half as usize].load(Ordering::Acquire);
        (left >> 3 == ticket).then(|| PageAnswer::from_bits(left))
    }

    /// Takes the news that a page of a receive request will not come: the request's ticket, and the cause.
    pub(crate) fn take_lost_receive(&self) -> Option<(u64, Cause)> {
        let left = &self.answers[Half::Responder as usize];
        if left.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let left = left.swap(0, Ordering::AcqRel);
        match PageAnswer::from_bits(left) {
            PageAnswer::Retry => None,
            PageAnswer::Failed(cause) => Some((left >> 3, cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_does_not_replace_a_newer_one() {
        let slot = Slot::<()>::default();
        slot.leave_answer(Half::Requester, 7, PageAnswer::Retry);
        slot.leave_answer(Half::Requester, 6, PageAnswer::Failed(Cause::PageRefused));
        assert_eq!(slot.answer(Half::Requester, 6), None);
        assert_eq!(slot.answer(Half::Requester, 7), Some(PageAnswer::Retry));
        slot.leave_answer(Half::Requester, 8, PageAnswer::Failed(Cause::PageTimeout));
        assert_eq!(slot.answer(Half::Requester, 8), Some(PageAnswer::Failed(Cause::PageTimeout)));
        assert_eq!(slot.take_lost_receive(), None);
    }
}
