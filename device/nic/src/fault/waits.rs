//! Pages that were asked for and are not there yet: credits, slots, who waits for which page.
//!
//! Two units share this: page requests through the IOMMU ([`crate::fault::requests`]), whose slots are group indices, and page
//! faults of on-demand regions ([`crate::fault::events`]), whose slots are part of a token. A slot is free again when
//! its answer came, never when the device lost patience: an answer may still be under way, and must not be taken
//! for another page's. Slots are given out in turn, so that answers to what a reset forgot find none either.

use std::collections::VecDeque;

use refault_bus::PrgIndex;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::cause::Cause;
use crate::ids::slot_of;
use crate::memory::port::PageMiss;
use crate::qp::answer::PageAnswer;

/// Somebody who waits: the queue pair, and the ticket its answer must bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) qpn: u32,
    pub(crate) ticket: u64,
}

/// What came of wanting a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A new slot: the page must be asked for now.
    New(PrgIndex),
    /// The page is asked for already.
    Joined(PrgIndex),
    /// No credit, or no slot: the waiter is told when there is one again.
    NoCredit,
}

/// An answer for a waiter.
pub(crate) type Told = (Waiter, PageAnswer);

/// What became of a slot.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) group: PrgIndex,
    pub(crate) miss: PageMiss,
    pub(crate) told: Vec<Told>,
}

/// One slot.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Free,
    /// Asked, not answered; given up at its deadline, if it has one.
    Open { miss: PageMiss, deadline_ns: Option<u64>, waiters: Waiters },
    /// Given up; the answer may still come.
    Quarantined { miss: PageMiss },
}

impl Slot {
    fn miss(&self) -> Option<&PageMiss> {
        match self {
            Self::Free => None,
            Self::Open { miss, .. } | Self::Quarantined { miss } => Some(miss),
        }
    }
}

/// Who waits for a page.
#[derive(Debug)]
struct Waiters {
    /// On whose behalf it was asked for, if it was not foreseen.
    asker: Option<Waiter>,
    /// Who came afterwards.
    joined: Vec<Waiter>,
}

impl Waiters {
    /// Adds a waiter. A queue pair waits once: whatever its slot waited for before is over.
    fn join(&mut self, waiter: Waiter) {
        let same = |other: &Waiter| slot_of(other.qpn) == slot_of(waiter.qpn);
        self.asker.take_if(|asker| same(asker));
        match self.joined.iter_mut().find(|other| same(other)) {
            Some(before) => *before = waiter,
            None => self.joined.push(waiter),
        }
    }

    /// One answer for the asker, one for the others.
    fn told(self, asker: PageAnswer, joined: PageAnswer) -> impl Iterator<Item = Told> {
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
}

/// What was asked for, and who waits. Its owner locks it; it is never held while anybody is asked: an answer may
/// come from inside.
pub(crate) struct Outstanding {
    slots: Box<[Slot]>,
    /// Where the search for a free slot goes on.
    next: usize,
    /// Open and quarantined slots: each holds a credit.
    outstanding: u32,
    /// Most of them.
    pub(crate) credits: u32,
    by_page: FxHashMap<PageMiss, PrgIndex>,
    /// Who waits for a credit, in order.
    queue: VecDeque<Waiter>,
    /// Queue pairs, by slot, that were called out of the queue and did not come yet: who comes in vain has not lost the
    /// place in it.
    called: FxHashSet<u32>,
    pub(crate) stats: WaitStats,
}

impl Outstanding {
    /// Nothing asked for, at most `credits` at once.
    pub(crate) fn new(credits: u32) -> Self {
        Self {
            slots: (0..PrgIndex::COUNT).map(|_| Slot::Free).collect(),
            next: 0,
            outstanding: 0,
            credits,
            by_page: FxHashMap::default(),
            queue: VecDeque::new(),
            called: FxHashSet::default(),
            stats: WaitStats::default(),
        }
    }

    /// Whether an answer is owed.
    pub(crate) fn is_busy(&self) -> bool {
        self.outstanding > 0
    }

    /// Whether an answer is owed for a page like that.
    pub(crate) fn awaits(&self, like: impl Fn(&PageMiss) -> bool) -> bool {
        self.slots.iter().filter_map(Slot::miss).any(like)
    }

    /// `waiter` wants a page.
    pub(crate) fn want(&mut self, miss: PageMiss, waiter: Waiter, deadline_ns: Option<u64>) -> Wanted {
        if let Some(&group) = self.by_page.get(&miss)
            && let Slot::Open { waiters, .. } = &mut self.slots[usize::from(group.get())]
        {
            waiters.join(waiter);
            self.stats.joined += 1;
            return Wanted::Joined(group);
        }
        let called = self.called.remove(&slot_of(waiter.qpn));
        let index = if self.outstanding < self.credits { self.free_slot() } else { None };
        let Some(index) = index else {
            self.queue.retain(|other| slot_of(other.qpn) != slot_of(waiter.qpn));
            match called {
                true => self.queue.push_front(waiter),
                false => self.queue.push_back(waiter),
            }
            return Wanted::NoCredit;
        };
        Wanted::New(self.open(index, miss, deadline_ns, Some(waiter)))
    }

    /// A page that will be wanted soon: to be asked for if it costs nobody a credit, and nobody waits.
    pub(crate) fn foresee(&mut self, miss: PageMiss, deadline_ns: Option<u64>) -> Option<PrgIndex> {
        let spare = self.outstanding < self.credits / 2 && self.queue.is_empty();
        if !spare || self.by_page.contains_key(&miss) {
            return None;
        }
        let index = self.free_slot()?;
        Some(self.open(index, miss, deadline_ns, None))
    }

    /// The answer for a slot, if what was asked for there is as the answer says; `None` if it answers nothing.
    ///
    /// A refusal is the asker's alone. Who joined may have begun after the guest had decided, and by now the page may be
    /// allowed: they ask for themselves.
    pub(crate) fn answer(
        &mut self,
        group: PrgIndex,
        answer: PageAnswer,
        fits: impl Fn(&PageMiss) -> bool,
    ) -> Option<Closed> {
        let slot = usize::from(group.get());
        let Some(miss) = self.slots[slot].miss().copied().filter(fits) else {
            self.stats.unexpected += 1;
            return None;
        };
        self.stats.answers += 1;
        let told = match std::mem::take(&mut self.slots[slot]) {
            Slot::Open { waiters, .. } => {
                self.by_page.remove(&miss);
                let refused = answer == PageAnswer::Failed(Cause::PageRefused);
                let joined = if refused { PageAnswer::LookAgain } else { answer };
                waiters.told(answer, joined).collect()
            }
            Slot::Quarantined { .. } | Slot::Free => Vec::new(),
        };
        Some(self.credit_back(Closed { group, miss, told }))
    }

    /// Gives up the slots whose time is over. Also says when the next one's is.
    pub(crate) fn expire(&mut self, now_ns: u64) -> (Vec<Closed>, Option<u64>) {
        let Self { slots, by_page, stats, .. } = self;
        let (mut closed, mut next) = (Vec::new(), None);
        for (slot, index) in slots.iter_mut().zip(0u64..) {
            let &mut Slot::Open { miss, deadline_ns: Some(deadline_ns), .. } = slot else { continue };
            if deadline_ns > now_ns {
                next = Some(next.map_or(deadline_ns, |next: u64| next.min(deadline_ns)));
                continue;
            }
            let given_up = std::mem::replace(slot, Slot::Quarantined { miss });
            let Slot::Open { waiters, .. } = given_up else { continue };
            let failed = PageAnswer::Failed(Cause::PageTimeout);
            let told = waiters.told(failed, failed).collect();
            by_page.remove(&miss);
            stats.timeouts += 1;
            closed.push(Closed { group: PrgIndex::truncated(index), miss, told });
        }
        (closed, next)
    }

    /// Takes a waiter out of the queue for credits; `false` if it is not there (any more).
    pub(crate) fn leave_queue(&mut self, ticket: u64) -> bool {
        let before = self.queue.len();
        self.queue.retain(|waiter| waiter.ticket != ticket);
        self.queue.len() != before
    }

    /// The next in the queue for credits, if there is one to give.
    pub(crate) fn pass_on(&mut self) -> Option<Told> {
        if self.outstanding >= self.credits {
            return None;
        }
        self.call()
    }

    /// Forgets what was asked for, as far as it is like that, given up or not: who waited is to look again, and
    /// answers that are still under way meet nobody.
    pub(crate) fn forget(&mut self, like: impl Fn(&PageMiss) -> bool) -> Vec<Told> {
        let mut told = Vec::new();
        for slot in &mut self.slots {
            if !slot.miss().is_some_and(&like) {
                continue;
            }
            self.outstanding -= 1;
            if let Slot::Open { miss, waiters, .. } = std::mem::take(slot) {
                self.by_page.remove(&miss);
                told.extend(waiters.told(PageAnswer::LookAgain, PageAnswer::LookAgain));
            }
        }
        while let Some(next) = self.pass_on_for(told.len()) {
            told.push(next);
        }
        told
    }

    /// Forgets every slot, credit and place in the queue; who waited is to look again.
    pub(crate) fn reset(&mut self) -> Vec<Told> {
        let mut told = self.forget(|_| true);
        told.extend(self.queue.drain(..).map(|waiter| (waiter, PageAnswer::LookAgain)));
        self.called.clear();
        told
    }

    /// Whoever waits for a credit, as long as not more are told than there are credits.
    fn pass_on_for(&mut self, told: usize) -> Option<Told> {
        if told >= self.credits as usize { None } else { self.pass_on() }
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
        self.slots[index] = Slot::Open { miss, deadline_ns, waiters };
        self.by_page.insert(miss, group);
        self.outstanding += 1;
        self.stats.asked += 1;
        group
    }

    /// The slot's credit is back: whoever waited longest for one may look again - before those whose page is there, for
    /// they may have another miss at once, and would take the credit again.
    fn credit_back(&mut self, mut closed: Closed) -> Closed {
        self.outstanding -= 1;
        if let Some(next) = self.call() {
            closed.told.insert(0, next);
        }
        closed
    }

    /// Calls the first out of the queue.
    fn call(&mut self) -> Option<Told> {
        let waiter = self.queue.pop_front()?;
        self.called.insert(slot_of(waiter.qpn));
        Some((waiter, PageAnswer::LookAgain))
    }
}

#[cfg(test)]
mod tests {
    use refault_bus::{AddressSpace, Iova};

    use super::*;

    fn miss(page: u64) -> PageMiss {
        PageMiss { space: AddressSpace::Region(1), page: Iova(page << 12), write: true }
    }

    fn waiter(qpn: u32) -> Waiter {
        Waiter { qpn, ticket: u64::from(qpn) }
    }

    #[test]
    fn who_waits_for_a_credit_comes_before_whose_page_is_there() {
        let mut unit = Outstanding::new(1);
        let Wanted::New(group) = unit.want(miss(1), waiter(1), None) else { panic!("a credit") };
        assert_eq!(unit.want(miss(2), waiter(2), None), Wanted::NoCredit);
        assert_eq!(unit.want(miss(3), waiter(3), None), Wanted::NoCredit);
        let closed = unit.answer(group, PageAnswer::LookAgain, |_| true).unwrap();
        let order: Vec<_> = closed.told.iter().map(|(waiter, _)| waiter.qpn).collect();
        assert_eq!(order, [2, 1]);
    }

    #[test]
    fn a_refusal_is_for_who_asked_and_the_others_look_again() {
        let mut unit = Outstanding::new(2);
        let Wanted::New(group) = unit.want(miss(1), waiter(1), None) else { panic!("a credit") };
        assert_eq!(unit.want(miss(1), waiter(2), None), Wanted::Joined(group));
        let refusal = PageAnswer::Failed(Cause::PageRefused);
        let closed = unit.answer(group, refusal, |_| true).unwrap();
        assert_eq!(closed.told, [(waiter(1), refusal), (waiter(2), PageAnswer::LookAgain)]);
        // Nobody asked for a page that was foreseen; and who asks again is somebody new.
        let group = unit.foresee(miss(2), None).unwrap();
        unit.want(miss(2), waiter(3), None);
        let closed = unit.answer(group, refusal, |_| true).unwrap();
        assert_eq!(closed.told, [(waiter(3), PageAnswer::LookAgain)]);
        // The whole interface failed: nobody need ask again.
        let Wanted::New(group) = unit.want(miss(3), waiter(1), None) else { panic!("a credit") };
        unit.want(miss(3), waiter(2), None);
        let failure = PageAnswer::Failed(Cause::PageFailure);
        let closed = unit.answer(group, failure, |_| true).unwrap();
        assert!(closed.told.iter().all(|(_, answer)| *answer == failure));
    }

    #[test]
    fn who_was_called_in_vain_keeps_the_place_in_the_queue() {
        let mut unit = Outstanding::new(1);
        let Wanted::New(group) = unit.want(miss(1), waiter(1), None) else { panic!("a credit") };
        for qpn in [2, 3] {
            assert_eq!(unit.want(miss(qpn.into()), waiter(qpn), None), Wanted::NoCredit);
        }
        unit.answer(group, PageAnswer::LookAgain, |_| true).unwrap();
        // Somebody was quicker than the one who was called.
        assert!(matches!(unit.want(miss(4), waiter(4), None), Wanted::New(_)));
        assert_eq!(unit.want(miss(2), waiter(2), None), Wanted::NoCredit);
        let order: Vec<_> = unit.queue.iter().map(|waiter| waiter.qpn).collect();
        assert_eq!(order, [2, 3]);
    }
}
