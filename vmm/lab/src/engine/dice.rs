//! Random numbers. Each purpose has its own stream, so that drawing more often for one does not affect the others.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

use refault_observe::numbers::whole;
use refault_timing::sample::unit_interval;

/// A purpose of random numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    /// Durations of steps.
    Timing = 1,
    /// The messages and kinds of requests.
    Load,
    /// Arrival times of requests.
    Arrivals,
    /// Times and places of churn.
    Churn,
    /// Major or minor faults.
    Faults,
}

/// The generator for one purpose.
pub(super) fn dice(seed: u64, stream: Stream) -> Pcg64Mcg {
    let mut dice = Pcg64Mcg::seed_from_u64(seed ^ (stream as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Seeds with few set bits show in the first outputs of a multiplicative generator.
    for _ in 0..8 {
        dice.next_u64();
    }
    dice
}

/// `true` with probability `likelihood`. Draws nothing if that is 0 or 1.
pub(super) fn happens(dice: &mut Pcg64Mcg, likelihood: f64) -> bool {
    likelihood >= 1.0 || likelihood > 0.0 && unit_interval(dice) < likelihood
}

/// A uniform number below `count`, which is not zero.
pub(super) fn one_of(dice: &mut Pcg64Mcg, count: u64) -> u64 {
    ((u128::from(dice.next_u64()) * u128::from(count)) >> 64) as u64
}

/// Exponential gap in nanoseconds between independent events with a mean rate of `per_second`.
pub(super) fn gap_ns(dice: &mut Pcg64Mcg, per_second: f64) -> u64 {
    whole(-libm::log(1.0 - unit_interval(dice)) * 1e9 / per_second)
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
        assert_eq!(seeds.len(), 1000, "seeds differ");
    }

    #[test]
    fn gaps_have_their_mean_and_choices_are_uniform() {
        let mut dice = dice(7, Stream::Arrivals);
        let mean = (0..100_000).map(|_| gap_ns(&mut dice, 1000.0)).sum::<u64>() / 100_000;
        assert!((985_000..1_015_000).contains(&mean), "{mean}");
        let mut counts = [0u32; 5];
        (0..50_000).for_each(|_| counts[one_of(&mut dice, 5) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
