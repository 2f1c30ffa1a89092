//! What waits for the host's storage: FLUSH requests, by the region of persistent memory that must be written out.
//!
//! One write-out serves all requests that wait for its region when it begins; later ones wait for the next. Regions take
//! turns, so a request waits at most for the write-out in flight and for one of each region. A queue pair waits for one
//! region at a time and is removed when it stops waiting, so it never takes more memory than one entry.

use std::collections::VecDeque;
use std::sync::Mutex;

use refault_bus::dma::GpaRange;
use refault_bus::sync::lock;
use rustc_hash::FxHashMap;

use crate::ids::slot_of;
use crate::qp::answer::Waiter;

/// Counts of FLUSH requests and their write-outs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StorageStats {
    pub(crate) writes: u64,
    pub(crate) joined: u64,
    pub(crate) abandoned: u64,
}

#[derive(Default)]
struct Waiting {
    /// Regions to write out, in turn. Each is here once, even if all its waiters have left since.
    turns: VecDeque<GpaRange>,
    /// The waiters of each, by slot.
    waiters: FxHashMap<GpaRange, FxHashMap<u32, Waiter>>,
    /// The region that each slot waits for.
    regions: FxHashMap<u32, GpaRange>,
    stats: StorageStats,
}

/// All that waits for the host's storage. The lock is a leaf.
#[derive(Default)]
pub(crate) struct Storage(Mutex<Waiting>);

impl Storage {
    /// Adds a waiter for a region, in place of an earlier one of its slot. `true` if the region has its turn to come by
    /// that: then [`Self::next`] must be called once more.
    pub(crate) fn wait(&self, waiter: Waiter, region: GpaRange) -> bool {
        self.leave(waiter.qpn);
        let Waiting { turns, waiters, regions, stats } = &mut *lock(&self.0);
        let slot = slot_of(waiter.qpn);
        regions.insert(slot, region);
        let is_new = !waiters.contains_key(&region);
        let beside = waiters.entry(region).or_default();
        stats.joined += u64::from(!beside.is_empty());
        beside.insert(slot, waiter);
        if is_new {
            turns.push_back(region);
        }
        is_new
    }

    /// Removes the waiter in the slot of queue pair `qpn`, if there is one.
    pub(crate) fn leave(&self, qpn: u32) {
        let Waiting { waiters, regions, stats, .. } = &mut *lock(&self.0);
        let slot = slot_of(qpn);
        let Some(region) = regions.remove(&slot) else { return };
        if let Some(waiters) = waiters.get_mut(&region) {
            waiters.remove(&slot);
        }
        stats.abandoned += 1;
    }

    /// The region whose turn it is, and its waiters; `None` if all have left.
    pub(crate) fn next(&self) -> Option<(GpaRange, Vec<Waiter>)> {
        let Waiting { turns, waiters, regions, stats } = &mut *lock(&self.0);
        let region = turns.pop_front()?;
        let served = waiters.remove(&region).unwrap_or_default();
        for slot in served.keys() {
            regions.remove(slot);
        }
        stats.writes += u64::from(!served.is_empty());
        (!served.is_empty()).then(|| (region, served.into_values().collect()))
    }

    pub(crate) fn stats(&self) -> StorageStats {
        lock(&self.0).stats
    }
}

#[cfg(test)]
mod tests {
    use refault_bus::Gpa;

    use super::*;
    use crate::qp::answer::Half;

    fn waiter(qpn: u32, ticket: u64) -> Waiter {
        Waiter { qpn, half: Half::Requester, ticket }
    }

    fn region(number: u64) -> GpaRange {
        GpaRange { base: Gpa(number << 21), len: 1 << 21 }
    }

    fn next(storage: &Storage) -> Option<(u64, Vec<u32>)> {
        storage.next().map(|(region, waiters)| {
            let mut qpns: Vec<u32> = waiters.iter().map(|waiter| waiter.qpn).collect();
            qpns.sort_unstable();
            (region.base.0 >> 21, qpns)
        })
    }

    #[test]
    fn regions_take_turns_and_a_write_out_serves_all_that_wait_for_its_region() {
        let storage = Storage::default();
        let added = [(1, 7), (2, 8), (3, 7)].map(|(qpn, at)| storage.wait(waiter(qpn, 1), region(at)));
        assert_eq!(added, [true, true, false]);
        assert_eq!(next(&storage), Some((7, vec![1, 3])));
        // One that comes now was not served.
        assert!(storage.wait(waiter(4, 1), region(7)));
        assert_eq!([next(&storage), next(&storage)], [Some((8, vec![2])), Some((7, vec![4]))]);
        assert_eq!(next(&storage), None);
        assert_eq!(storage.stats(), StorageStats { writes: 3, joined: 1, abandoned: 0 });
    }

    #[test]
    fn a_queue_pair_waits_once_and_is_not_served_after_it_left() {
        let storage = Storage::default();
        let turns =
            (0..1000u64).filter(|&ticket| storage.wait(waiter(1, ticket), region(ticket % 2))).count();
        assert_eq!((turns, lock(&storage.0).regions.len()), (2, 1));
        // The first region has no waiters left: it is not written out.
        assert_eq!([next(&storage), next(&storage)], [None, Some((1, vec![1]))]);
        storage.wait(waiter(1, 1), region(3));
        storage.leave(1);
        assert_eq!(next(&storage), None);
        assert_eq!(storage.stats(), StorageStats { writes: 1, joined: 0, abandoned: 1000 });
    }
}
