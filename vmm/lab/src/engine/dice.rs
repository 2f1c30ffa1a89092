//! Chance. Each purpose has a stream of its own, so that drawing more often for one changes nothing for another.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

use refault_timing::sample::unit_interval;

/// What chance decides.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    /// How long steps take.
    Timing = 1,
    /// Which messages, of what kind.
    Load,
    /// When requests arrive.
    Arrivals,
    /// When and where memory is changed.
    Churn,
    /// Which faults are major.
    Faults,
}

/// The dice of one purpose.
pub(super) fn dice(seed: u64, stream: Stream) -> Pcg64Mcg {
    let mut dice = Pcg64Mcg::seed_from_u64(seed ^ (stream as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // A seed of few bits shows in the first numbers of a multiplicative generator.
    for _ in 0..8 {
        dice.next_u64();
    }
    dice
}

/// Whether something of that likelihood happens. What is certain, or impossible, costs no throw.
pub(super) fn happens(dice: &mut Pcg64Mcg, likelihood: f64) -> bool {
    likelihood >= 1.0 || likelihood > 0.0 && unit_interval(dice) < likelihood
}

/// One of `count`, each as likely; `count` is not zero.
pub(super) fn one_of(dice: &mut Pcg64Mcg, count: u64) -> u64 {
    ((u128::from(dice.next_u64()) * u128::from(count)) >> 64) as u64
}

/// Nanoseconds to the next of events that come `per_second` on average, independent of each other.
pub(super) fn gap_ns(dice: &mut Pcg64Mcg, per_second: f64) -> u64 {
    (-libm::log(1.0 - unit_interval(dice)) * 1e9 / per_second) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_repeat() {
        let first = |seed, stream| dice(seed, stream).next_u64();
        assert_eq!(first(1, Stream::Load), first(1, Stream::Load));
        assert_ne!(first(1, Stream::Load), first(1, Stream::Churn));
        let seeds: std::collections::BTreeSet<_> = (0..1000).map(|seed| first(seed, Stream::Load)).collect();
        assert_eq!(seeds.len(), 1000, "each seed is one of its own");
    }

    #[test]
    fn gaps_have_their_mean_and_choices_are_even() {
        let mut dice = dice(7, Stream::Arrivals);
        let mean = (0..100_000).map(|_| gap_ns(&mut dice, 1000.0)).sum::<u64>() / 100_000;
        assert!((985_000..1_015_000).contains(&mean), "{mean}");
        let mut counts = [0u32; 5];
        (0..50_000).for_each(|_| counts[one_of(&mut dice, 5) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
