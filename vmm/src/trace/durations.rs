//! A distribution of durations.

use hdrhistogram::Histogram;

use crate::demo::summary::Percentiles;

/// The longest duration that is told from longer ones: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Durations in nanoseconds: quantiles right to three digits, the maximum exact. Grows with the largest.
#[derive(Clone, Debug)]
pub(super) struct Durations {
    histogram: Histogram<u32>,
    max: u64,
}

impl Durations {
    /// None yet.
    pub(super) fn new() -> Self {
        let histogram = Histogram::new(3).expect("three digits are among the five that the crate offers");
        Self { histogram, max: 0 }
    }

    pub(super) fn note(&mut self, ns: u64) {
        self.max = self.max.max(ns);
        // Fails only beyond the range of 64 bits.
        self.histogram.record(ns.min(LONGEST)).unwrap_or_default();
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Median, 99th percentile and maximum; zeroes if there are none.
    pub(super) fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.histogram.value_at_quantile(quantile).min(self.max);
        Percentiles { p50: at(0.5), p99: at(0.99), max: self.max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_digits_and_the_maximum_exactly() {
        let mut durations = Durations::new();
        for ns in 1..=100_000 {
            durations.note(ns * 37);
        }
        let Percentiles { p50, p99, max } = durations.percentiles();
        assert!(p50.abs_diff(50_000 * 37) < 1_850_000 / 1000, "{p50}");
        assert!(p99.abs_diff(99_000 * 37) < 3_663_000 / 1000, "{p99}");
        assert_eq!((max, durations.count()), (3_700_000, 100_000));
        assert_eq!(Durations::new().percentiles(), Percentiles::default());
    }
}
