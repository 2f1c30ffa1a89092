//! What the charts and tables show, computed from the faults of a run.

use crate::trace::{Component, FaultOutcome, FaultRecord};

/// The parts of a fault's time, in the order of the charts' stacks.
pub(super) const PARTS: [Part; 4] = [
    Part { name: "device", class: "device" },
    Part { name: "IOMMU", class: "iommu" },
    Part { name: "guest", class: "guest" },
    Part { name: "earlier rounds", class: "again" },
];

/// One part of a fault's time.
pub(super) struct Part {
    pub(super) name: &'static str,
    /// The class that gives it its colour.
    pub(super) class: &'static str,
}

/// Faults that belong together and ended in a copy, with their parts.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Of each fault: total, then the four parts of [`PARTS`], in nanoseconds. By total.
    pub(super) faults: Vec<[u64; 5]>,
    /// The segments of the last rounds: name, component, sorted durations.
    pub(super) segments: Vec<(&'static str, Component, Vec<u64>)>,
    /// Faults that ended otherwise: failed, coalesced, abandoned.
    pub(super) others: [u64; 3],
}

impl Sample {
    /// The sample of some faults.
    pub(super) fn of<'a>(faults: impl Iterator<Item = &'a FaultRecord>) -> Self {
        let mut sample = Self::default();
        for fault in faults {
            match fault.outcome {
                FaultOutcome::Copied => sample.add(fault),
                FaultOutcome::Failed => sample.others[0] += 1,
                FaultOutcome::Coalesced => sample.others[1] += 1,
                FaultOutcome::Abandoned => sample.others[2] += 1,
            }
        }
        sample.faults.sort_unstable();
        for (_, _, durations) in &mut sample.segments {
            durations.sort_unstable();
        }
        sample
    }

    fn add(&mut self, fault: &FaultRecord) {
        let split = fault.times.split();
        self.faults.push([fault.times.total(), split.device, split.iommu, split.guest, split.again]);
        for segment in fault.times.segments() {
            let known = self.segments.iter_mut().find(|(name, ..)| *name == segment.name);
            match known {
                Some((_, _, durations)) => durations.push(segment.to - segment.from),
                None => {
                    let first = vec![segment.to - segment.from];
                    self.segments.push((segment.name, segment.component, first));
                }
            }
        }
    }

    /// Sorted durations of the whole (0) or of a part (1 to 4).
    pub(super) fn sorted(&self, field: usize) -> Vec<u64> {
        let mut durations: Vec<_> = self.faults.iter().map(|fault| fault[field]).collect();
        durations.sort_unstable();
        durations
    }

    /// Sum of the whole (0) or of a part (1 to 4) over all faults.
    pub(super) fn sum(&self, field: usize) -> u64 {
        self.faults.iter().map(|fault| fault[field]).sum()
    }
}

/// The smallest value that a share `quantile` of all does not exceed; zero of none.
pub(super) fn quantile(sorted: &[u64], quantile: f64) -> u64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0)
}

/// Equal steps on a logarithmic axis: `per_decade` of them between powers of ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogBins {
    pub(super) per_decade: i32,
    /// Number of the first bin, counted from 1 ns.
    first: i32,
    pub(super) len: usize,
}

impl LogBins {
    /// Bins from the decade of `min` to the decade of `max`, in nanoseconds.
    pub(super) fn around(min: u64, max: u64, per_decade: i32) -> Self {
        let decade = |ns: u64| ns.max(1).ilog10() as i32;
        let (low, high) = (decade(min), decade(max) + 1);
        Self { per_decade, first: low * per_decade, len: ((high - low) * per_decade) as usize }
    }

    /// The bin of a value; the ends take what is beyond them.
    pub(super) fn bin(&self, ns: u64) -> usize {
        let place = ((ns.max(1) as f64).log10() * f64::from(self.per_decade)).floor() as i32 - self.first;
        (place.max(0) as usize).min(self.len.saturating_sub(1))
    }

    /// Where a bin begins (and the one before it ends), in nanoseconds.
    pub(super) fn edge(&self, bin: usize) -> f64 {
        10f64.powf(f64::from(self.first + bin as i32) / f64::from(self.per_decade))
    }
}

/// Steps shorter than this make a rate of a single fault.
const SHORTEST_STEP: u64 = 10_000_000;

/// Something per equal step of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Series {
    /// Length of a step in nanoseconds.
    pub(super) step: u64,
    /// When the first step begins: shortly before the first miss.
    pub(super) origin: u64,
    /// Faults that ended in each step.
    pub(super) ended: Vec<u64>,
    /// Most faults open at one time within each step.
    pub(super) open: Vec<u64>,
}

impl Series {
    /// Cuts the time from the first miss to the last end in at most about `steps` steps.
    pub(super) fn of(faults: &[FaultRecord], steps: usize) -> Self {
        let first = faults.iter().map(|fault| fault.times.miss).min();
        let last = faults.iter().map(|fault| fault.times.end.max(fault.times.miss)).max();
        let (Some(first), Some(last)) = (first, last) else { return Self::default() };
        let step = nice_step(((last - first) / steps.max(1) as u64 + 1).max(SHORTEST_STEP));
        let origin = first / step * step;
        let len = ((last - origin) / step + 1) as usize;
        let mut series = Self { step, origin, ended: vec![0; len], open: vec![0; len] };
        let mut edges: Vec<(usize, u64, i64)> = Vec::with_capacity(2 * faults.len());
        for fault in faults {
            let (miss, end) = (fault.times.miss, fault.times.end.max(fault.times.miss));
            edges.push((series.bin(miss), miss, 1));
            edges.push((series.bin(end), end, -1));
            if fault.outcome == FaultOutcome::Copied {
                let bin = series.bin(end);
                series.ended[bin] += 1;
            }
        }
        edges.sort_unstable_by_key(|&(_, at, change)| (at, -change));
        series.fill_open(&edges);
        series
    }

    /// The step of a time.
    fn bin(&self, at: u64) -> usize {
        (at.saturating_sub(self.origin) / self.step) as usize
    }

    fn fill_open(&mut self, edges: &[(usize, u64, i64)]) {
        let mut edges = edges.iter().peekable();
        let mut open = 0i64;
        for (bin, most) in self.open.iter_mut().enumerate() {
            *most = open.max(0) as u64;
            while let Some(&(_, _, change)) = edges.next_if(|edge| edge.0 <= bin) {
                open += change;
                *most = (*most).max(open.max(0) as u64);
            }
        }
    }
}

/// The next of 1, 2, 5, 10, 20, 50, ...
pub(super) fn nice_step(least: u64) -> u64 {
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
    use crate::report::synthetic::{Shape, Synthetic};
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_values_of_the_sample() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|q| quantile(&sorted, q)), [1, 50, 99, 100]);
        assert_eq!((quantile(&[], 0.5), quantile(&[7], 0.999)), (0, 7));
    }

    proptest! {
        #[test]
        fn a_value_lies_between_the_edges_of_its_bin(ns in 1u64..1 << 50, low in 1u64..1 << 40, per in 1i32..20) {
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

    #[test]
    fn a_series_counts_every_copied_fault_once() {
        let faults: Vec<_> = Synthetic::new(Shape::Mixed, 500).records().faults.iter().collect();
        let copied = faults.iter().filter(|fault| fault.outcome == FaultOutcome::Copied).count();
        let series = Series::of(&faults, 100);
        assert_eq!(series.ended.iter().sum::<u64>() as usize, copied);
        assert!(series.open.iter().max() > Some(&0) && series.ended.len() <= 102);
        assert_eq!(Series::of(&[], 100).ended.len(), 0);
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let faults: Vec<_> = Synthetic::new(Shape::Mixed, 500).records().faults.iter().collect();
        let sample = Sample::of(faults.iter());
        assert!(sample.faults.iter().all(|f| f[0] == f[1..].iter().sum::<u64>()));
        assert_eq!(sample.faults.len() as u64 + sample.others.iter().sum::<u64>(), faults.len() as u64);
    }
}
