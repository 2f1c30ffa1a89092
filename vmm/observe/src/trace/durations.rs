//! A distribution of durations.

use hdrhistogram::Histogram;

use crate::trace::percentiles::Percentiles;

/// Longest duration that the histogram distinguishes: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// A distribution of nanoseconds: quantiles accurate to three digits, minimum, maximum and sum exact. Its memory grows with
/// the largest value.
#[derive(Clone, Debug)]
pub(crate) struct Durations {
    histogram: Histogram<u32>,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self::new()
    }
}

impl Durations {
    /// An empty distribution.
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new(3).expect("three digits are among the five that the crate offers");
        Self { histogram, sum: 0, min: u64::MAX, max: 0 }
    }

    pub(crate) fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// Records a duration `times` times.
    pub(crate) fn record_many(&mut self, ns: u64, times: u32) {
        if times == 0 {
            return;
        }
        self.sum += u128::from(ns) * u128::from(times);
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
        // Cannot fail: the histogram resizes itself.
        self.histogram.record_n(ns.min(LONGEST), times).unwrap_or_default();
    }

    /// Adds all durations of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        // Cannot fail: the histogram resizes itself.
        self.histogram.add(&other.histogram).unwrap_or_default();
    }

    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Exact sum.
    pub(crate) fn sum(&self) -> u128 {
        self.sum
    }

    /// Mean, rounded down; zero if empty.
    pub(crate) fn mean(&self) -> u64 {
        u64::try_from(self.sum / u128::from(self.count().max(1))).unwrap_or(u64::MAX)
    }

    /// Exact minimum; zero if empty.
    pub(crate) fn min(&self) -> u64 {
        if self.count() == 0 { 0 } else { self.min }
    }

    /// Exact maximum; zero if empty.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The value at `quantile`, 0 to 1; zero if empty.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile).min(self.max)
    }

    /// Recorded durations in ascending order, each with its count. Durations that agree in three digits count as one.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let steps = self.histogram.iter_recorded();
        steps.map(|step| (step.value_iterated_to().min(self.max), step.count_at_value().into()))
    }

    /// Median, 99th percentile and maximum; zeroes if empty.
    pub(super) fn percentiles(&self) -> Percentiles {
        Percentiles { p50: self.at(0.5), p99: self.at(0.99), max: self.max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_three_digits_and_the_maximum_is_exact() {
        let mut durations = Durations::new();
        for ns in 1..=100_000 {
            durations.record(ns * 37);
        }
        let Percentiles { p50, p99, max } = durations.percentiles();
        assert!(p50.abs_diff(50_000 * 37) < 1_850_000 / 1000, "{p50}");
        assert!(p99.abs_diff(99_000 * 37) < 3_663_000 / 1000, "{p99}");
        assert_eq!((max, durations.count()), (3_700_000, 100_000));
        assert_eq!(Durations::new().percentiles(), Percentiles::default());
    }

    #[test]
    fn sum_and_extremes_are_exact_and_merge() {
        let (mut low, mut high) = (Durations::new(), Durations::new());
        low.record_many(3, 4);
        high.record(1_234_567);
        low.merge(&high);
        assert_eq!((low.count(), low.sum(), low.mean()), (5, 1_234_579, 246_915));
        assert_eq!((low.min(), low.max(), low.at(0.5)), (3, 1_234_567, 3));
        assert_eq!(low.recorded().collect::<Vec<_>>(), [(3, 4), (1_234_567, 1)]);
        let none = Durations::new();
        assert_eq!((none.min(), none.max(), none.mean(), none.recorded().count()), (0, 0, 0, 0));
    }
}
