//! Outstanding pages: slots, credits, and the waiters of each page.
//!
//! Two units share this: page requests through the IOMMU ([`crate::fault::requests`]), whose slots are group indices,
//! and page faults of on-demand regions ([`crate::fault::events`]), whose slots are part of a token. A slot becomes
//! free when its answer comes, not when the device times out: the answer may still come, and must not be taken for
//! another page's. Slots are used in turn, so that a late answer to a request from before a reset rarely finds its slot
//! in use.
//!
//! A slot is taken under a worker's guard, and its page is asked for when no guard is held. In between it can be called
//! off: then the page is not asked for.

use refault_bus::PrgIndex;
use rustc_hash::FxHashMap;

use crate::cause::Cause;
use crate::fault::credits::Credits;
use crate::ids::slot_of;
use crate::memory::access::PageMiss;
use crate::qp::answer::{PageAnswer, Place, Waiter, Wakeup};

/// The outcome of a claim for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A new slot: the caller must ask for the page, when it has left its guard.
    New(PrgIndex),
    /// The page was asked for already.
    Joined(PrgIndex),
    /// No credit, or no slot: the waiter is woken when there is one.
    NoCredit,
}

/// A slot that was answered or given up.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) group: PrgIndex,
    pub(crate) miss: PageMiss,
    pub(crate) wakeups: Vec<Wakeup>,
}

/// One slot.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Free,
    /// Not answered; given up at its deadline, if it has one. It may be that the page is still to be asked for.
    Open { miss: PageMiss, deadline_ns: Option<u64>, waiters: Waiters, asked: bool },
    /// Given up; the answer may still come.
    Quarantined { miss: PageMiss },
    /// Called off before the page was asked for. The worker that was about to ask frees the slot.
    CalledOff,
}

impl Slot {
    fn miss(&self) -> Option<&PageMiss> {
        match self {
            Self::Free | Self::CalledOff => None,
            Self::Open { miss, .. } | Self::Quarantined { miss } => Some(miss),
        }
    }

    fn is_asked(&self) -> bool {
        matches!(self, Self::Open { asked: true, .. } | Self::Quarantined { .. })
    }
}

/// The waiters of a page.
#[derive(Debug)]
struct Waiters {
    /// The waiter on whose behalf the page was asked for; none if it was prefetched.
    asker: Option<Waiter>,
    /// Waiters that came afterwards.
    joined: Vec<Waiter>,
}

impl Waiters {
    /// Adds a waiter. Half a queue pair waits once: it replaces an earlier waiter of its slot.
    fn join(&mut self, waiter: Waiter) {
        let same = |other: &Waiter| slot_of(other.qpn) == slot_of(waiter.qpn) && other.half == waiter.half;
        self.asker.take_if(|asker| same(asker));
        match self.joined.iter_mut().find(|other| same(other)) {
            Some(before) => *before = waiter,
            None => self.joined.push(waiter),
        }
    }

    /// Wakes all: one answer for the asker, one for the others.
    fn wake(self, asker: PageAnswer, joined: PageAnswer) -> impl Iterator<Item = Wakeup> {
        let first = self.asker.map(|waiter| (waiter, asker));
        first.into_iter().chain(self.joined.into_iter().map(move |waiter| (waiter, joined)))
    }
}

/// Counts of a unit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WaitStats {
    pub(crate) asked: u64,
    pub(crate) joined: u64,
    pub(crate) answers: u64,
    pub(crate) unexpected: u64,
    pub(crate) timeouts: u64,
    pub(crate) called_off: u64,
    /// Waits for a credit.
    pub(crate) credit_waits: u64,
    /// Of these, while others could have had one.
    pub(crate) quota_waits: u64,
}

/// Pages that were asked for. The unit locks it, and never while a page is asked for: the answer may come from inside.
pub(crate) struct Outstanding {
    slots: Box<[Slot]>,
    /// Where the search for a free slot goes on.
    next: usize,
    /// Each open and each quarantined slot holds one. A waiter that was woken in vain comes back to the place it had.
    credits: Credits,
    by_page: FxHashMap<PageMiss, PrgIndex>,
    pub(crate) stats: WaitStats,
}

impl Outstanding {
    /// Nothing asked for, at most `credits` at once, to be shared if there is a `quota`.
    pub(crate) fn new(credits: u32, quota: bool) -> Self {
        Self {
            slots: (0..PrgIndex::COUNT).map(|_| Slot::Free).collect(),
            next: 0,
            credits: Credits::new(credits, quota),
            by_page: FxHashMap::default(),
            stats: WaitStats::default(),
        }
    }

    /// Changes how many slots may be in use at once.
    pub(crate) fn set_credits(&mut self, credits: u32) {
        self.credits.set_total(credits);
    }

    /// Whether an answer is outstanding.
    pub(crate) fn is_busy(&self) -> bool {
        self.credits.is_any_used()
    }

    /// Whether an answer is outstanding for a page that `like` selects.
    pub(crate) fn awaits(&self, like: impl Fn(&PageMiss) -> bool) -> bool {
        self.slots.iter().filter_map(Slot::miss).any(like)
    }

    /// Claims a page for `waiter`. If there is no credit, it waits for one at `place`.
    pub(crate) fn claim(
        &mut self,
        miss: PageMiss,
        waiter: Waiter,
        place: Place,
        deadline_ns: Option<u64>,
    ) -> Claim {
        if let Some(&group) = self.by_page.get(&miss)
            && let Slot::Open { waiters, .. } = &mut self.slots[usize::from(group.get())]
        {
            waiters.join(waiter);
            self.stats.joined += 1;
            return Claim::Joined(group);
        }
        let index = if self.credits.may_take(miss.owner) { self.free_slot() } else { None };
        let Some(index) = index else {
            self.stats.credit_waits += 1;
            self.stats.quota_waits += u64::from(self.credits.free() > 0);
            self.credits.wait(place, waiter);
            return Claim::NoCredit;
        };
        Claim::New(self.open(index, miss, deadline_ns, Some(waiter)))
    }

    /// Claims a page that will be needed soon, if credits are plentiful and no waiter needs one. `asker` gets the
    /// answer, if there is one.
    pub(crate) fn prefetch(
        &mut self,
        miss: PageMiss,
        deadline_ns: Option<u64>,
        asker: Option<Waiter>,
    ) -> Option<PrgIndex> {
        if !self.credits.may_prefetch(miss.owner) || self.by_page.contains_key(&miss) {
            return None;
        }
        let index = self.free_slot()?;
        Some(self.open(index, miss, deadline_ns, asker))
    }

    /// Notes that the page of a claimed slot is asked for now; `false` if that was called off.
    pub(crate) fn ask(&mut self, group: PrgIndex) -> bool {
        let slot = &mut self.slots[usize::from(group.get())];
        match slot {
            Slot::Open { asked, .. } => {
                *asked = true;
                true
            }
            Slot::CalledOff => {
                *slot = Slot::Free;
                false
            }
            Slot::Free | Slot::Quarantined { .. } => false,
        }
    }

    /// Closes a slot with its answer; `None` if there is no such slot, or its page does not fit the answer.
    ///
    /// A refusal fails the asker alone. A joined waiter may have faulted after the guest had decided, so it retries
    /// with a fault of its own.
    pub(crate) fn answer(
        &mut self,
        group: PrgIndex,
        answer: PageAnswer,
        fits: impl Fn(&PageMiss) -> bool,
    ) -> Option<Closed> {
        let slot = usize::from(group.get());
        let asked = Some(&self.slots[slot]).filter(|slot| slot.is_asked());
        let Some(miss) = asked.and_then(Slot::miss).copied().filter(fits) else {
            self.stats.unexpected += 1;
            return None;
        };
        self.stats.answers += 1;
        let wakeups = match std::mem::take(&mut self.slots[slot]) {
            Slot::Open { waiters, .. } => {
                self.by_page.remove(&miss);
                let refused = answer == PageAnswer::Failed(Cause::PageRefused);
                let joined = if refused { PageAnswer::Retry } else { answer };
                waiters.wake(answer, joined).collect()
            }
            Slot::Quarantined { .. } | Slot::CalledOff | Slot::Free => Vec::new(),
        };
        Some(self.credit_back(Closed { group, miss, wakeups }))
    }

    /// Gives up the slots whose deadline has passed. Also returns the next deadline.
    ///
    /// Pages that are about to be asked for are left alone.
    pub(crate) fn expire(&mut self, now_ns: u64) -> (Vec<Closed>, Option<u64>) {
        let Self { slots, by_page, stats, .. } = self;
        let (mut closed, mut next) = (Vec::new(), None);
        for (slot, index) in slots.iter_mut().zip(0u64..) {
            let &mut Slot::Open { miss, deadline_ns: Some(deadline_ns), asked, .. } = slot else { continue };
            if deadline_ns > now_ns || !asked {
                next = Some(next.map_or(deadline_ns, |next: u64| next.min(deadline_ns)));
                continue;
            }
            let given_up = std::mem::replace(slot, Slot::Quarantined { miss });
            let Slot::Open { waiters, .. } = given_up else { continue };
            let failed = PageAnswer::Failed(Cause::PageTimeout);
            let wakeups = waiters.wake(failed, failed).collect();
            by_page.remove(&miss);
            stats.timeouts += 1;
            closed.push(Closed { group: PrgIndex::truncated(index), miss, wakeups });
        }
        (closed, next)
    }

    /// Takes a waiter out of the queue for credits; `false` if it is not there (any more).
    pub(crate) fn leave_queue(&mut self, place: Place) -> bool {
        self.credits.leave(place)
    }

    /// Wakes the next waiter for a credit, if there is a credit.
    pub(crate) fn next_waiter(&mut self) -> Option<Wakeup> {
        self.credits.next().map(|waiter| (waiter, PageAnswer::Retry))
    }

    /// Forgets the pages that `like` selects, given up or not. Their waiters retry; late answers are discarded.
    pub(crate) fn forget(&mut self, like: impl Fn(&PageMiss) -> bool) -> Vec<Wakeup> {
        self.remove(|slot| slot.miss().is_some_and(&like))
    }

    /// Calls off the pages that `like` selects and that were not asked for yet. Their waiters retry.
    pub(crate) fn call_off(&mut self, like: impl Fn(&PageMiss) -> bool) -> Vec<Wakeup> {
        self.remove(|slot| !slot.is_asked() && slot.miss().is_some_and(&like))
    }

    /// Forgets every slot, credit and place in the queue. All waiters retry.
    pub(crate) fn reset(&mut self) -> Vec<Wakeup> {
        let mut wakeups = self.forget(|_| true);
        wakeups.extend(self.credits.take_waiters().map(|waiter| (waiter, PageAnswer::Retry)));
        wakeups
    }

    /// Removes the open and quarantined slots that `like` selects, and gives their credits to as many waiters.
    fn remove(&mut self, like: impl Fn(&Slot) -> bool) -> Vec<Wakeup> {
        let (mut wakeups, mut freed) = (Vec::new(), 0);
        for slot in &mut self.slots {
            let Some(&miss) = slot.miss().filter(|_| like(slot)) else { continue };
            self.credits.give_back(miss.owner);
            freed += 1;
            let left = if slot.is_asked() { Slot::Free } else { Slot::CalledOff };
            self.stats.called_off += u64::from(!slot.is_asked());
            if let Slot::Open { waiters, .. } = std::mem::replace(slot, left) {
                self.by_page.remove(&miss);
                wakeups.extend(waiters.wake(PageAnswer::Retry, PageAnswer::Retry));
            }
        }
        let freed = std::iter::from_fn(|| self.next_waiter()).take(freed);
        wakeups.extend(freed);
        wakeups
    }

    /// The next free slot in turn.
    fn free_slot(&mut self) -> Option<usize> {
        let found = (self.next..self.next + PrgIndex::COUNT)
            .map(|index| index % PrgIndex::COUNT)
            .find(|&index| matches!(self.slots[index], Slot::Free))?;
        self.next = found + 1;
        Some(found)
    }

    fn open(
        &mut self,
        index: usize,
        miss: PageMiss,
        deadline_ns: Option<u64>,
        asker: Option<Waiter>,
    ) -> PrgIndex {
        let group = PrgIndex::truncated(index as u64);
        let waiters = Waiters { asker, joined: Vec::new() };
        self.slots[index] = Slot::Open { miss, deadline_ns, waiters, asked: false };
        self.by_page.insert(miss, group);
        self.credits.take(miss.owner);
        self.stats.asked += 1;
        group
    }

    /// Returns the slot's credit, and wakes the next waiter for one. It is woken before the waiters of the page, which
    /// may miss again at once and would take the credit.
    fn credit_back(&mut self, mut closed: Closed) -> Closed {
        self.credits.give_back(closed.miss.owner);
        if let Some(next) = self.next_waiter() {
            closed.wakeups.insert(0, next);
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use refault_bus::{AddressSpace, Iova};

    use super::*;
    use crate::qp::answer::Half;

    const OWNER: u32 = 5;

    fn miss(page: u64) -> PageMiss {
        PageMiss { space: AddressSpace::Region(1), owner: OWNER, page: Iova(page << 12), write: true }
    }

    /// One credit after another, all of one owner.
    fn unit(credits: u32) -> Outstanding {
        Outstanding::new(credits, false)
    }

    fn waiter(qpn: u32) -> Waiter {
        Waiter { qpn, half: Half::Requester, ticket: u64::from(qpn) }
    }

    fn place(since: u64) -> Place {
        Place { owner: OWNER, since }
    }

    /// Claims a page, and asks for it; the queue pairs' places are in the order of their numbers.
    fn claim(unit: &mut Outstanding, page: u64, qpn: u32) -> Claim {
        let claim = unit.claim(miss(page), waiter(qpn), place(qpn.into()), None);
        if let Claim::New(group) = claim {
            assert!(unit.ask(group));
        }
        claim
    }

    #[test]
    fn a_waiter_for_a_credit_is_woken_before_the_waiters_of_the_page() {
        let mut unit = unit(1);
        let Claim::New(group) = claim(&mut unit, 1, 1) else { panic!("a credit") };
        assert_eq!(claim(&mut unit, 2, 2), Claim::NoCredit);
        assert_eq!(claim(&mut unit, 3, 3), Claim::NoCredit);
        let closed = unit.answer(group, PageAnswer::Retry, |_| true).unwrap();
        let order: Vec<_> = closed.wakeups.iter().map(|(waiter, _)| waiter.qpn).collect();
        assert_eq!(order, [2, 1]);
    }

    #[test]
    fn a_refusal_fails_the_asker_and_joined_waiters_retry() {
        let mut unit = unit(2);
        let Claim::New(group) = claim(&mut unit, 1, 1) else { panic!("a credit") };
        assert_eq!(claim(&mut unit, 1, 2), Claim::Joined(group));
        let refusal = PageAnswer::Failed(Cause::PageRefused);
        let closed = unit.answer(group, refusal, |_| true).unwrap();
        assert_eq!(closed.wakeups, [(waiter(1), refusal), (waiter(2), PageAnswer::Retry)]);
        // A prefetched page has no asker: all its waiters have joined.
        let group = unit.prefetch(miss(2), None, None).unwrap();
        assert!(unit.ask(group));
        claim(&mut unit, 2, 3);
        let closed = unit.answer(group, refusal, |_| true).unwrap();
        assert_eq!(closed.wakeups, [(waiter(3), PageAnswer::Retry)]);
        // The whole interface failed: no retry can help.
        let Claim::New(group) = claim(&mut unit, 3, 1) else { panic!("a credit") };
        claim(&mut unit, 3, 2);
        let failure = PageAnswer::Failed(Cause::PageFailure);
        let closed = unit.answer(group, failure, |_| true).unwrap();
        assert!(closed.wakeups.iter().all(|(_, answer)| *answer == failure));
    }

    #[test]
    fn a_waiter_woken_in_vain_keeps_its_place_in_the_queue() {
        let mut unit = unit(1);
        let Claim::New(group) = claim(&mut unit, 1, 1) else { panic!("a credit") };
        for qpn in [2, 3] {
            assert_eq!(claim(&mut unit, qpn.into(), qpn), Claim::NoCredit);
        }
        unit.answer(group, PageAnswer::Retry, |_| true).unwrap();
        // Another queue pair was faster than the one that was woken.
        assert!(matches!(claim(&mut unit, 4, 4), Claim::New(_)));
        assert_eq!(claim(&mut unit, 2, 2), Claim::NoCredit);
        let order = |unit: &Outstanding| unit.credits.waiters().map(|waiter| waiter.qpn).collect::<Vec<_>>();
        assert_eq!(order(&unit), [2, 3]);
        // One that found its page, and comes for another, is the last.
        unit.leave_queue(place(2));
        assert_eq!(unit.claim(miss(5), Waiter { ticket: 9, ..waiter(2) }, place(9), None), Claim::NoCredit);
        assert_eq!(order(&unit), [3, 2]);
    }

    #[test]
    fn a_page_that_was_called_off_is_not_asked_for_and_its_credit_is_free() {
        let mut unit = unit(1);
        let claimed = unit.claim(miss(1), waiter(1), place(1), None);
        let Claim::New(group) = claimed else { panic!("a credit") };
        assert_eq!(claim(&mut unit, 2, 2), Claim::NoCredit);
        assert!(unit.answer(group, PageAnswer::Retry, |_| true).is_none(), "the page was never asked for");
        let woken: Vec<_> = unit.call_off(|_| true).into_iter().map(|(waiter, _)| waiter.qpn).collect();
        assert_eq!(woken, [1, 2]);
        // The slot is not given to another page before its asker has seen it.
        let Claim::New(other) = claim(&mut unit, 2, 2) else { panic!("a credit") };
        assert_ne!(other, group);
        assert!(!unit.ask(group));
        // What was asked for is not called off.
        assert!(unit.call_off(|_| true).is_empty());
        assert!(unit.answer(other, PageAnswer::Retry, |_| true).is_some());
    }
}
