//! Samples of a [`Delay`].
//!
//! A generator in a given state yields the same nanoseconds on every machine: logarithms and cosines come from the crate
//! `libm`, not from the system's library.

use core::f64::consts::TAU;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;

use super::timing::Delay;
use super::units::saturated;

/// The longest duration of a step, an hour. It cuts off the tails of unbounded distributions, so that sums fit 64 bits.
pub const LONGEST_NS: u64 = 3_600_000_000_000;

impl Delay {
    /// Draws a duration in nanoseconds, at most [`LONGEST_NS`]. A constant draws nothing from the generator.
    pub fn sample(&self, rng: &mut Pcg64Mcg) -> u64 {
        let ns = match *self {
            Self::Constant(ns) => ns,
            Self::Uniform { low, high } => uniform(low, high, rng),
            Self::Exponential { mean } => rounded(-mean * libm::log(open_unit(rng))),
            Self::LogNormal { median, sigma } => rounded(median * libm::exp(sigma * normal(rng))),
            Self::Table(ref points) => interpolated(points, unit_interval(rng)),
        };
        ns.min(LONGEST_NS)
    }

    /// The distribution's mean in nanoseconds.
    pub fn mean(&self) -> f64 {
        match *self {
            Self::Constant(ns) => ns as f64,
            Self::Uniform { low, high } => (low as f64 + high as f64) / 2.0,
            Self::Exponential { mean } => mean,
            Self::LogNormal { median, sigma } => median * libm::exp(sigma * sigma / 2.0),
            Self::Table(ref points) => {
                let pieces = points.windows(2).map(|pair| {
                    let ((from, low), (to, high)) = (pair[0], pair[1]);
                    (to - from) * (low as f64 + high as f64) / 2.0
                });
                pieces.sum()
            }
        }
    }
}

/// A uniform number in [0, 1) with 53 random bits.
pub fn unit_interval(rng: &mut Pcg64Mcg) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// A uniform number in (0, 1], whose logarithm is finite.
fn open_unit(rng: &mut Pcg64Mcg) -> f64 {
    1.0 - unit_interval(rng)
}

/// A standard normal number by the Box-Muller method. The method's second number is dropped: keeping it would make a
/// sample depend on how often other steps were sampled.
fn normal(rng: &mut Pcg64Mcg) -> f64 {
    let radius = libm::sqrt(-2.0 * libm::log(open_unit(rng)));
    radius * libm::cos(TAU * unit_interval(rng))
}

/// A uniform integer from `low` to `high`, both included.
fn uniform(low: u64, high: u64, rng: &mut Pcg64Mcg) -> u64 {
    let width = u128::from(high.saturating_sub(low)) + 1;
    low + ((u128::from(rng.next_u64()) * width) >> 64) as u64
}

/// The value of a quantile table at `at`, linear between its points.
fn interpolated(points: &[(f64, u64)], at: f64) -> u64 {
    let after = points.partition_point(|&(share, _)| share <= at);
    match (after.checked_sub(1).and_then(|before| points.get(before)), points.get(after)) {
        (Some(&(from, low)), Some(&(to, high))) => {
            rounded(low as f64 + (high as f64 - low as f64) * ((at - from) / (to - from)))
        }
        (Some(&(_, only)), None) | (None, Some(&(_, only))) => only,
        (None, None) => 0,
    }
}

/// Rounds to the nearest nanosecond; negative numbers and NaN become zero.
fn rounded(ns: f64) -> u64 {
    saturated(ns + 0.5)
}

#[cfg(test)]
mod tests {
    use rand_pcg::rand_core::SeedableRng;

    use super::*;

    const SAMPLES: usize = 200_000;

    fn sorted(delay: &Delay, seed: u64) -> Vec<u64> {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut samples: Vec<_> = (0..SAMPLES).map(|_| delay.sample(&mut rng)).collect();
        samples.sort_unstable();
        samples
    }

    /// The samples have the mean that the distribution says, and the quantiles given here.
    fn check(delay: &Delay, quantiles: &[(f64, f64)]) {
        for seed in [1, 2, 3] {
            let samples = sorted(delay, seed);
            let mean = samples.iter().sum::<u64>() as f64 / SAMPLES as f64;
            assert!((mean / delay.mean() - 1.0).abs() < 0.01, "{delay:?}: mean {mean} of {}", delay.mean());
            for &(share, expected) in quantiles {
                let found = samples[(share * SAMPLES as f64) as usize] as f64;
                assert!(
                    (found / expected - 1.0).abs() < 0.02,
                    "{delay:?}: {found} at {share}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn a_constant_draws_nothing_from_the_generator() {
        let mut rng = Pcg64Mcg::seed_from_u64(9);
        let before = rng.clone();
        assert_eq!(Delay::Constant(220_000).sample(&mut rng), 220_000);
        assert_eq!((rng, Delay::Constant(7).mean()), (before, 7.0));
    }

    #[test]
    fn a_uniform_delay_includes_both_ends() {
        let samples = sorted(&Delay::Uniform { low: 3, high: 5 }, 4);
        let third = |ns| samples.iter().filter(|&&sample| sample == ns).count() as f64 / SAMPLES as f64;
        assert!([3, 4, 5].into_iter().all(|ns| (third(ns) - 1.0 / 3.0).abs() < 0.005));
        check(
            &Delay::Uniform { low: 10_000, high: 30_000 },
            &[(0.1, 12_000.0), (0.5, 20_000.0), (0.9, 28_000.0)],
        );
        let anything = Delay::Uniform { low: 0, high: u64::MAX };
        assert!(sorted(&anything, 5).iter().all(|&ns| ns <= LONGEST_NS));
    }

    #[test]
    fn an_exponential_delay_has_its_mean_and_quantiles() {
        let quantile = |share: f64| -50_000.0 * (1.0 - share).ln();
        let expected = [0.25, 0.5, 0.9, 0.99].map(|share| (share, quantile(share)));
        check(&Delay::Exponential { mean: 50_000.0 }, &expected);
    }

    #[test]
    fn a_log_normal_delay_has_its_median_and_spread() {
        // 1.2816 and 1.6449 standard deviations are the 90th and the 95th percentile.
        let at = |deviations: f64| 215_000.0 * (0.2 * deviations).exp();
        let expected = [(0.1, at(-1.2816)), (0.5, at(0.0)), (0.9, at(1.2816)), (0.95, at(1.6449))];
        check(&Delay::LogNormal { median: 215_000.0, sigma: 0.2 }, &expected);
    }

    #[test]
    fn a_table_is_linear_between_its_quantiles() {
        let table = Delay::Table(vec![(0.0, 100_000), (0.5, 200_000), (0.9, 300_000), (1.0, 900_000)]);
        let expected = [(0.25, 150_000.0), (0.5, 200_000.0), (0.7, 250_000.0), (0.95, 600_000.0)];
        check(&table, &expected);
        let samples = sorted(&table, 8);
        assert!(samples[0] >= 100_000 && samples[SAMPLES - 1] <= 900_000);
    }

    #[test]
    fn a_table_may_have_a_step() {
        let table = Delay::Table(vec![(0.0, 10), (0.5, 10), (0.5, 1000), (1.0, 1000)]);
        let samples = sorted(&table, 6);
        assert!(samples.iter().all(|&ns| ns == 10 || ns == 1000));
        assert_eq!(table.mean(), 505.0);
    }

    /// Fixed values: a change of generator, of libm or of the order of draws fails here.
    #[test]
    fn the_same_seed_is_the_same_everywhere() {
        let mut rng = Pcg64Mcg::seed_from_u64(42);
        let delays = [
            Delay::Uniform { low: 0, high: 1 << 40 },
            Delay::Exponential { mean: 1e12 },
            Delay::LogNormal { median: 1e12, sigma: 0.5 },
            Delay::Table(vec![(0.0, 0), (1.0, 1 << 40)]),
        ];
        let expected = [630_670_612_803, 143_070_035_466, 1_074_856_160_430, 129_321_133_344];
        assert_eq!(delays.map(|delay| delay.sample(&mut rng)), expected);
    }
}
