//! Assigns faults to tracks of a timeline, and divides its capacity among scenarios.

use std::collections::HashMap;

use crate::trace::FaultRecord;

/// One track of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::report) struct Track {
    pub(in crate::report) qpn: u32,
    /// Zero unless the queue pair has several open faults.
    pub(in crate::report) number: usize,
}

/// The end of the last fault on each track of each queue pair.
#[derive(Debug, Default)]
pub(in crate::report) struct Tracks(HashMap<u32, Vec<u64>>);

impl Tracks {
    /// The first track on which the fault overlaps no other. Faults must be placed in the order of their misses.
    pub(in crate::report) fn place(&mut self, fault: &FaultRecord) -> Track {
        let ends = self.0.entry(fault.qpn).or_default();
        let number = ends.iter().position(|&end| end <= fault.times.miss).unwrap_or(ends.len());
        let end = fault.times.end.max(fault.times.miss);
        match ends.get_mut(number) {
            Some(last) => *last = end,
            None => ends.push(end),
        }
        Track { qpn: fault.qpn, number }
    }

    /// All tracks, by queue pair.
    pub(in crate::report) fn sorted(&self) -> impl Iterator<Item = Track> + use<> {
        let tracks =
            |(&qpn, ends): (&u32, &Vec<u64>)| (0..ends.len()).map(move |number| Track { qpn, number });
        let mut all: Vec<_> = self.0.iter().flat_map(tracks).collect();
        all.sort_unstable();
        all.into_iter()
    }
}

/// Divides `total` fairly: no share exceeds its demand, and unused shares are divided among the others.
pub(in crate::report) fn fair_shares(demands: &[usize], total: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by_key(|&i| demands[i]);
    let mut shares = vec![0; demands.len()];
    let mut left = total;
    for (served, &i) in order.iter().enumerate() {
        shares[i] = demands[i].min(left / (demands.len() - served));
        left -= shares[i];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_demands_are_met_in_full() {
        assert_eq!(fair_shares(&[1, 100, 5, 100], 50), [1, 22, 5, 22]);
        assert_eq!(fair_shares(&[1, 2], 50), [1, 2]);
        assert!(fair_shares(&[], 50).is_empty());
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_total_or_to_all_demands(demands in prop::collection::vec(0usize..100, 0..10), total in 0usize..500) {
            let shares = fair_shares(&demands, total);
            prop_assert!(shares.iter().zip(&demands).all(|(share, demands)| share <= demands));
            prop_assert_eq!(shares.iter().sum::<usize>(), total.min(demands.iter().sum()));
        }
    }
}
