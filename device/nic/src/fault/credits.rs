//! Credits: how many pages may be outstanding at once, which processes hold them, and which wait for one.
//!
//! A page takes a credit until it is answered, even if the device has given it up. The owner of the page is charged,
//! because that process decides how soon the answer comes. With a quota, no owner may hold more credits than it leaves
//! free, and the last quarter is reserved for owners that hold none. So a process that lets pages go unanswered gets half
//! of the credits at most, and the others still get theirs. With many waiters, no operation costs more than a search in a
//! tree.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use crate::qp::answer::{Place, Waiter};

/// The credits of one unit.
pub(crate) struct Credits {
    total: u32,
    used: u32,
    /// Whether each owner is limited to its share; otherwise all are one owner.
    quota: bool,
    /// Credits of each owner that holds any.
    held: FxHashMap<u32, u32>,
    /// Waiters, by owner and order.
    queue: BTreeMap<(u32, u64), Waiter>,
    /// Owners with waiters, as (credits held, order of the first waiter, owner): the owner with the fewest credits comes
    /// first, then the one that has waited longest.
    ranks: BTreeSet<(u32, u64, u32)>,
}

impl Credits {
    /// `total` credits, all free.
    pub(super) fn new(total: u32, quota: bool) -> Self {
        Self {
            total,
            used: 0,
            quota,
            held: FxHashMap::default(),
            queue: BTreeMap::new(),
            ranks: BTreeSet::new(),
        }
    }

    pub(super) fn set_total(&mut self, total: u32) {
        self.total = total;
    }

    pub(super) fn is_any_used(&self) -> bool {
        self.used > 0
    }

    pub(super) fn free(&self) -> u32 {
        self.total.saturating_sub(self.used)
    }

    /// Whether `owner` may take a credit now.
    pub(super) fn may_take(&self, owner: u32) -> bool {
        let (held, free) = (self.held(owner), self.free());
        free > 0 && (!self.quota || held == 0 || held < free && free > self.total / 4)
    }

    /// Whether `owner` may take a credit for a page that is not needed yet: it leaves half of what it may hold for those
    /// that are, and none of its waiters needs one.
    pub(super) fn may_prefetch(&self, owner: u32) -> bool {
        let held = self.held(owner);
        let limit = (held + self.free()) / if self.quota { 2 } else { 1 };
        let plenty = held < limit / 2 || self.quota && held == 0;
        plenty && self.may_take(owner) && self.rank(self.charged(owner)).is_none()
    }

    /// Takes a credit.
    pub(super) fn take(&mut self, owner: u32) {
        self.used += 1;
        self.change(owner, |this, owner| *this.held.entry(owner).or_default() += 1);
    }

    /// Returns a credit.
    pub(super) fn give_back(&mut self, owner: u32) {
        self.used -= 1;
        self.change(owner, |this, owner| match this.held.get_mut(&owner) {
            Some(held) if *held > 1 => *held -= 1,
            _ => drop(this.held.remove(&owner)),
        });
    }

    /// Queues a waiter.
    pub(super) fn wait(&mut self, place: Place, waiter: Waiter) {
        self.change(place.owner, |this, owner| this.queue.insert((owner, place.since), waiter));
    }

    /// Takes a waiter out of the queue; `false` if it is not there (any more).
    pub(super) fn leave(&mut self, place: Place) -> bool {
        self.change(place.owner, |this, owner| this.queue.remove(&(owner, place.since))).is_some()
    }

    /// Takes the waiter whose turn it is out of the queue, if there is a credit for it.
    pub(super) fn next(&mut self) -> Option<Waiter> {
        let &(_, since, owner) = self.ranks.first()?;
        // Owners that hold more may not take one either.
        if !self.may_take(owner) {
            return None;
        }
        self.change(owner, |this, owner| this.queue.remove(&(owner, since)))
    }

    /// Takes all waiters out of the queue.
    pub(super) fn take_waiters(&mut self) -> impl Iterator<Item = Waiter> + use<> {
        self.ranks.clear();
        std::mem::take(&mut self.queue).into_values()
    }

    /// The waiters, in order for each owner.
    #[cfg(test)]
    pub(super) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.queue.values()
    }

    fn charged(&self, owner: u32) -> u32 {
        if self.quota { owner } else { 0 }
    }

    fn held(&self, owner: u32) -> u32 {
        self.held.get(&self.charged(owner)).copied().unwrap_or(0)
    }

    /// Does `work` for the owner that is charged for `owner`, and updates its rank.
    fn change<R>(&mut self, owner: u32, work: impl FnOnce(&mut Self, u32) -> R) -> R {
        let owner = self.charged(owner);
        if let Some(rank) = self.rank(owner) {
            self.ranks.remove(&rank);
        }
        let result = work(self, owner);
        if let Some(rank) = self.rank(owner) {
            self.ranks.insert(rank);
        }
        result
    }

    /// Where an owner stands among those that wait, if it does.
    fn rank(&self, owner: u32) -> Option<(u32, u64, u32)> {
        let (&(_, since), _) = self.queue.range((owner, 0)..=(owner, u64::MAX)).next()?;
        Some((self.held(owner), since, owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qp::answer::Half;

    fn waiter(ticket: u64) -> Waiter {
        Waiter { qpn: 1, half: Half::Requester, ticket }
    }

    /// How many credits an owner gets, if nothing is answered.
    fn hoard(credits: &mut Credits, owner: u32) -> usize {
        (0..).take_while(|_| credits.may_take(owner).then(|| credits.take(owner)).is_some()).count()
    }

    #[test]
    fn one_owner_gets_half_and_the_others_something() {
        for (total, shares) in [
            (1, vec![1, 0]),
            (2, vec![1, 1, 0]),
            (3, vec![2, 1, 0]),
            (4, vec![2, 1, 1, 0]),
            (32, vec![16, 8, 1, 1, 1, 1, 1, 1, 1, 1, 0]),
            (256, vec![128, 64, 1, 1, 1]),
        ] {
            let mut credits = Credits::new(total, true);
            let got: Vec<usize> = (1..).take(shares.len()).map(|owner| hoard(&mut credits, owner)).collect();
            assert_eq!(got, shares, "of {total}");
        }
    }

    #[test]
    fn without_a_quota_one_owner_gets_all() {
        let mut credits = Credits::new(7, false);
        assert_eq!((hoard(&mut credits, 1), hoard(&mut credits, 2)), (7, 0));
        credits.give_back(1);
        assert!(credits.may_take(2));
    }

    #[test]
    fn a_credit_goes_to_the_owner_with_fewest_then_to_the_longest_waiter() {
        let mut credits = Credits::new(4, true);
        assert_eq!((hoard(&mut credits, 1), hoard(&mut credits, 2), hoard(&mut credits, 3)), (2, 1, 1));
        for (owner, since) in [(1, 10), (2, 11), (4, 13), (5, 12), (2, 9)] {
            credits.wait(Place { owner, since }, waiter(since));
        }
        assert_eq!(credits.next(), None, "there is none");
        credits.give_back(3);
        // They hold none.
        assert_eq!(credits.next(), Some(waiter(12)));
        assert!(
            credits.leave(Place { owner: 4, since: 13 }) && !credits.leave(Place { owner: 4, since: 13 })
        );
        // The others hold some, and the last quarter is not for them.
        assert_eq!(credits.next(), None);
        credits.give_back(1);
        // Both hold one now; in its own order, the second has waited longest.
        assert_eq!([credits.next(), credits.next()], [Some(waiter(9)), Some(waiter(10))]);
        assert_eq!(credits.take_waiters().collect::<Vec<_>>(), [waiter(11)]);
        assert_eq!(credits.next(), None);
    }

    #[test]
    fn a_page_that_is_not_needed_yet_leaves_half_of_the_share() {
        let mut credits = Credits::new(64, true);
        let mut taken = 0;
        while credits.may_prefetch(1) {
            credits.take(1);
            taken += 1;
        }
        assert_eq!(taken, 16);
        assert!(credits.may_prefetch(2), "the other has a share of its own");
        credits.wait(Place { owner: 2, since: 1 }, waiter(1));
        assert!(!credits.may_prefetch(2));
    }
}
