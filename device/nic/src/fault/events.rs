//! Page faults of on-demand regions: what the driver was told of and has not answered.
//!
//! A fault is named by a token: its slot in the low bits, and above them a number that counts the slot's uses and
//! is not reset by anything, so that an answer that comes twice, late, or after a reset names no fault. The lock is
//! a leaf.

use std::sync::{Mutex, MutexGuard};

use refault_bus::{AddressSpace, PrgIndex};

use crate::fault::waits::{Closed, Outstanding, Told, WaitStats, Waiter, Wanted};
use crate::ids::{TOKEN_SLOT_BITS, slot_of_token};
use crate::memory::guard::lock;
use crate::memory::port::PageMiss;
use crate::qp::answer::PageAnswer;

struct State {
    outstanding: Outstanding,
    /// How often each slot was used; never zero in a token.
    uses: Box<[u32]>,
}

/// The page-fault unit.
pub(crate) struct PageFaults(Mutex<State>);

impl PageFaults {
    /// A unit with at most `credits` faults outstanding.
    pub(crate) fn new(credits: u32) -> Self {
        let outstanding = Outstanding::new(credits);
        Self(Mutex::new(State { outstanding, uses: vec![0; PrgIndex::COUNT].into() }))
    }

    /// `waiter` wants a page; with the token if it must be told of now.
    pub(crate) fn want(&self, miss: PageMiss, waiter: Waiter, deadline_ns: Option<u64>) -> (Wanted, u32) {
        let mut state = self.lock();
        let wanted = state.outstanding.want(miss, waiter, deadline_ns);
        let Wanted::New(slot) = wanted else { return (wanted, 0) };
        let uses = &mut state.uses[usize::from(slot.get())];
        *uses = (*uses + 1) & (u32::MAX >> TOKEN_SLOT_BITS);
        // Zero is no token.
        *uses = (*uses).max(1);
        (wanted, *uses << TOKEN_SLOT_BITS | u32::from(slot.get()))
    }

    /// The driver's answer; `None` if the token names no fault (any more).
    pub(crate) fn answer(&self, token: u32, answer: PageAnswer) -> Option<Closed> {
        let mut state = self.lock();
        let slot = slot_of_token(token);
        let current = state.uses[usize::from(slot.get())] == token >> TOKEN_SLOT_BITS;
        state.outstanding.answer(slot, answer, |_| current)
    }

    /// A region is gone or revoked: who waited for a page of it is to look again, and will be told why.
    pub(crate) fn forget(&self, key: u32) -> Vec<Told> {
        self.lock().outstanding.forget(|miss| miss.space == AddressSpace::Region(key))
    }

    /// Gives up the faults whose time is over. Also says when the next one's is.
    pub(crate) fn expire(&self, now_ns: u64) -> (Vec<Closed>, Option<u64>) {
        self.lock().outstanding.expire(now_ns)
    }

    /// Takes a waiter out of the queue for credits; `false` if it is not there (any more).
    pub(crate) fn leave_queue(&self, ticket: u64) -> bool {
        self.lock().outstanding.leave_queue(ticket)
    }

    /// The next in the queue for credits, if there is one to give.
    pub(crate) fn pass_on(&self) -> Option<Told> {
        self.lock().outstanding.pass_on()
    }

    /// Forgets everything but which tokens were given.
    pub(crate) fn reset(&self) -> Vec<Told> {
        self.lock().outstanding.reset()
    }

    pub(crate) fn stats(&self) -> WaitStats {
        self.lock().outstanding.stats
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}
