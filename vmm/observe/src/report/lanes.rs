//! Who gets how much room on a timeline.

use std::collections::HashMap;

use crate::trace::FaultRecord;

/// One track of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) qpn: u32,
    /// Zero, and more only for a queue pair that had several faults open at one time.
    pub(super) number: usize,
}

/// The tracks in use: for each queue pair, when the last fault of each of its lanes ends.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<u32, Vec<u64>>);

impl Lanes {
    /// The first track on which the fault overlaps no other. Faults must come in the order of their misses.
    pub(super) fn place(&mut self, fault: &FaultRecord) -> Lane {
        let ends = self.0.entry(fault.qpn).or_default();
        let number = ends.iter().position(|&end| end <= fault.times.miss).unwrap_or(ends.len());
        let end = fault.times.end.max(fault.times.miss);
        match ends.get_mut(number) {
            Some(last) => *last = end,
            None => ends.push(end),
        }
        Lane { qpn: fault.qpn, number }
    }

    /// All tracks, by queue pair.
    pub(super) fn sorted(&self) -> impl Iterator<Item = Lane> + use<> {
        let lanes = |(&qpn, ends): (&u32, &Vec<u64>)| (0..ends.len()).map(move |number| Lane { qpn, number });
        let mut all: Vec<_> = self.0.iter().flat_map(lanes).collect();
        all.sort_unstable();
        all.into_iter()
    }
}

/// Deals `total` out so that nobody gets more than asked for, and what the modest leave goes to the others
/// in equal parts.
pub(super) fn fair_shares(wanted: &[usize], total: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&i| wanted[i]);
    let mut shares = vec![0; wanted.len()];
    let mut left = total;
    for (served, &i) in order.iter().enumerate() {
        shares[i] = wanted[i].min(left / (wanted.len() - served));
        left -= shares[i];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_modest_get_all_they_want() {
        assert_eq!(fair_shares(&[1, 100, 5, 100], 50), [1, 22, 5, 22]);
        assert_eq!(fair_shares(&[1, 2], 50), [1, 2]);
        assert!(fair_shares(&[], 50).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_wasted_or_dealt_twice(wanted in prop::collection::vec(0usize..100, 0..10), total in 0usize..500) {
            let shares = fair_shares(&wanted, total);
            prop_assert!(shares.iter().zip(&wanted).all(|(share, wanted)| share <= wanted));
            prop_assert_eq!(shares.iter().sum::<usize>(), total.min(wanted.iter().sum()));
        }
    }
}
