//! Page faults of on-demand regions: events that the driver has not answered yet.
//!
//! A fault is named by a token: its slot in the low bits, and above them the number of the slot's uses. Nothing resets
//! that number, so an answer that comes twice, late, or after a reset names no fault. The lock is a leaf.

use std::sync::{Mutex, MutexGuard};

use refault_bus::sync::lock;
use refault_bus::{AddressSpace, PrgIndex};

use crate::fault::waits::{Claim, Closed, Outstanding, WaitStats};
use crate::ids::{TOKEN_SLOT_BITS, slot_of_token};
use crate::memory::access::PageMiss;
use crate::qp::answer::{PageAnswer, Place, Waiter, Wakeup};

struct State {
    outstanding: Outstanding,
    /// How often each slot was used; never zero in a token.
    uses: Box<[u32]>,
}

impl State {
    /// The token of a slot that was taken.
    fn new_token(&mut self, slot: PrgIndex) -> u32 {
        let uses = &mut self.uses[usize::from(slot.get())];
        *uses = (*uses + 1) & (u32::MAX >> TOKEN_SLOT_BITS);
        // Zero is no token.
        *uses = (*uses).max(1);
        *uses << TOKEN_SLOT_BITS | u32::from(slot.get())
    }
}

/// The page-fault unit.
pub(crate) struct PageFaults(Mutex<State>);

impl PageFaults {
    /// A unit with at most `credits` faults outstanding, shared among contexts if there is a `quota`.
    pub(super) fn new(credits: u32, quota: bool) -> Self {
        let outstanding = Outstanding::new(credits, quota);
        Self(Mutex::new(State { outstanding, uses: vec![0; PrgIndex::COUNT].into() }))
    }

    /// Claims a page for `waiter`, or a place among those that wait for a credit; with the token if the driver must be
    /// asked.
    pub(super) fn claim(
        &self,
        miss: PageMiss,
        waiter: Waiter,
        place: Place,
        deadline_ns: Option<u64>,
    ) -> (Claim, u32) {
        let mut state = self.lock();
        let claim = state.outstanding.claim(miss, waiter, place, deadline_ns);
        let token = if let Claim::New(slot) = claim { state.new_token(slot) } else { 0 };
        (claim, token)
    }

    /// Claims a page for the next of its kind, if credits are plentiful and no waiter needs one; with the token. `asker` gets
    /// the answer, if there is one.
    pub(super) fn prefetch(
        &self,
        miss: PageMiss,
        deadline_ns: Option<u64>,
        asker: Option<Waiter>,
    ) -> Option<(PrgIndex, u32)> {
        let mut state = self.lock();
        let slot = state.outstanding.prefetch(miss, deadline_ns, asker)?;
        Some((slot, state.new_token(slot)))
    }

    /// Closes the fault that a token names; `None` if it names none.
    pub(super) fn answer(&self, token: u32, answer: PageAnswer) -> Option<Closed> {
        let mut state = self.lock();
        let slot = slot_of_token(token);
        let current = state.uses[usize::from(slot.get())] == token >> TOKEN_SLOT_BITS;
        state.outstanding.answer(slot, answer, |_| current)
    }

    /// Notes that the driver is asked for the page of a claimed slot now; `false` if that was called off.
    pub(super) fn ask(&self, slot: PrgIndex) -> bool {
        self.lock().outstanding.ask(slot)
    }

    /// Calls off the faults of a context that are still to be reported. Their waiters retry.
    pub(super) fn call_off(&self, context: u32) -> Vec<Wakeup> {
        self.lock().outstanding.call_off(|miss| miss.owner == context)
    }

    /// Forgets the faults of a region that is gone or revoked: the waiters retry, and fail.
    pub(super) fn forget(&self, key: u32) -> Vec<Wakeup> {
        self.lock().outstanding.forget(|miss| miss.space == AddressSpace::Region(key))
    }

    /// Gives up the faults whose deadline has passed. Also returns the next deadline.
    pub(super) fn expire(&self, now_ns: u64) -> (Vec<Closed>, Option<u64>) {
        self.lock().outstanding.expire(now_ns)
    }

    /// Takes a waiter out of the queue for credits; `false` if it is not there.
    pub(super) fn leave_queue(&self, place: Place) -> bool {
        self.lock().outstanding.leave_queue(place)
    }

    /// Wakes the next waiter for a credit, if there is a credit.
    pub(super) fn next_waiter(&self) -> Option<Wakeup> {
        self.lock().outstanding.next_waiter()
    }

    /// Forgets everything but the uses of the slots.
    pub(super) fn reset(&self) -> Vec<Wakeup> {
        self.lock().outstanding.reset()
    }

    pub(super) fn stats(&self) -> WaitStats {
        self.lock().outstanding.stats
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}
