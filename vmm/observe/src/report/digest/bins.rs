//! Bins of a logarithmic axis, and round steps of a linear one.

use refault_bus::bits::index;

use crate::numbers::whole;

/// Equal bins of a logarithmic axis: `per_decade` of them between powers of ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) struct LogBins {
    per_decade: usize,
    /// Index of the first bin, counted from 1 ns.
    first: usize,
    pub(in crate::report) len: usize,
}

impl LogBins {
    /// Bins from the decade of `min` to the decade of `max`, in nanoseconds.
    pub(in crate::report) fn around(min: u64, max: u64, per_decade: usize) -> Self {
        let decade = |ns: u64| ns.max(1).ilog10() as usize;
        // Of no values at all the least is the greatest there is.
        let high = decade(max) + 1;
        let low = decade(min).min(high - 1);
        Self { per_decade, first: low * per_decade, len: (high - low) * per_decade }
    }

    /// The bin of a value; values beyond the axis go to the outermost bins.
    pub(in crate::report) fn bin(&self, ns: u64) -> usize {
        let number = index(whole((ns.max(1) as f64).log10() * self.per_decade as f64));
        number.saturating_sub(self.first).min(self.len.saturating_sub(1))
    }

    /// Index of a bin counted from 1 ns.
    pub(in crate::report) fn number_of(&self, bin: usize) -> usize {
        self.first + bin
    }

    /// The lower edge of a bin, in nanoseconds.
    pub(in crate::report) fn edge(&self, bin: usize) -> f64 {
        10f64.powf((self.first + bin) as f64 / self.per_decade as f64)
    }
}

/// The smallest of 1, 2, 5, 10, 20, 50, ... that is at least `least`.
pub(in crate::report) fn nice_step(least: u64) -> u64 {
    let mut power = 1u64;
    loop {
        for factor in [1, 2, 5] {
            match power.checked_mul(factor) {
                Some(step) if step >= least => return step,
                Some(_) => {}
                None => return least,
            }
        }
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_between_the_edges_of_its_bin(ns in 1u64..1 << 50, low in 1u64..1 << 40, per in 1usize..20) {
            let bins = LogBins::around(low.min(ns), low.max(ns), per);
            let bin = bins.bin(ns);
            prop_assert!(bin < bins.len);
            let (value, rounding) = (ns as f64, 1.0 + 1e-9);
            prop_assert!(bins.edge(bin) <= value * rounding && value <= bins.edge(bin + 1) * rounding);
        }

        #[test]
        fn steps_are_nice_and_large_enough(least in 1u64..1 << 60) {
            let step = nice_step(least);
            prop_assert!(step >= least && step < least.saturating_mul(3));
            prop_assert!([1, 2, 5].contains(&(step / 10u64.pow(step.ilog10()))));
        }
    }
}
