//! Counts over time in bounded memory: intervals grow with the covered time span.

use refault_bus::bits::index;

use crate::trace::{FaultOutcome, FaultRecord};

/// Most intervals. Once reached, there are always at least a fifth as many.
const MAX_STEPS: u64 = 480;

/// Counts per interval of equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::report) struct TimeSeries {
    /// Length of an interval in nanoseconds: 1, 2, 10, 20, 100, ...
    pub(in crate::report) step: u64,
    /// Index of the first interval, counted from the recorder's start.
    first: u64,
    /// From the first fault to the last.
    pub(in crate::report) steps: Vec<Interval>,
}

/// The counts of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::report) struct Interval {
    /// Faults that ended in a copy.
    pub(in crate::report) ended: u64,
    /// Total time that faults were open, in nanoseconds.
    pub(in crate::report) open_ns: u64,
    /// Invalidations that arrived.
    pub(in crate::report) invalidated: u64,
}

impl Default for TimeSeries {
    fn default() -> Self {
        Self { step: 1, first: 0, steps: Vec::new() }
    }
}

impl TimeSeries {
    /// Adds a fault. Faults may come in any order.
    pub(in crate::report) fn fault(&mut self, fault: &FaultRecord) {
        let (miss, end) = (fault.times.miss, fault.times.end.max(fault.times.miss));
        self.hold(miss, end);
        let (from, to) = (self.place(miss), self.place(end));
        for place in from..=to {
            let begin = self.begin(place);
            let open = end.min(begin + self.step) - miss.max(begin);
            self.steps[place].open_ns += open;
        }
        if fault.outcome == FaultOutcome::Copied {
            self.steps[to].ended += 1;
        }
    }

    /// Adds an invalidation.
    pub(in crate::report) fn invalidation(&mut self, at: u64) {
        self.hold(at, at);
        let place = self.place(at);
        self.steps[place].invalidated += 1;
    }

    /// Start of an interval in nanoseconds since the recorder's start. The index after the last gives the end.
    pub(in crate::report) fn begin(&self, place: usize) -> u64 {
        (self.first + place as u64) * self.step
    }

    fn place(&self, at: u64) -> usize {
        index(at / self.step - self.first)
    }

    /// Extends the series to a time span.
    fn hold(&mut self, from: u64, to: u64) {
        loop {
            let (mut first, mut last) = (from / self.step, to / self.step);
            if !self.steps.is_empty() {
                first = first.min(self.first);
                last = last.max(self.first + self.steps.len() as u64 - 1);
            }
            if last - first < MAX_STEPS {
                let before = if self.steps.is_empty() { 0 } else { self.first - first };
                self.steps.splice(0..0, (0..before).map(|_| Interval::default()));
                self.steps.resize(index(last - first + 1), Interval::default());
                self.first = first;
                return;
            }
            self.coarsen();
        }
    }

    /// Merges intervals into ones of two or five times the length.
    fn coarsen(&mut self) {
        let factor = if self.step == 10u64.pow(self.step.ilog10()) { 2 } else { 5 };
        let first = self.first / factor;
        let mut steps: Vec<Interval> = Vec::new();
        for (step, number) in self.steps.iter().zip(self.first..) {
            let place = index(number / factor - first);
            steps.resize(steps.len().max(place + 1), Interval::default());
            steps[place].ended += step.ended;
            steps[place].open_ns += step.open_ns;
            steps[place].invalidated += step.invalidated;
        }
        (self.step, self.first, self.steps) = (self.step * factor, first, steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic::{Shape, Synthetic};

    fn faults() -> Vec<FaultRecord> {
        Synthetic::new(Shape::Mixed, 500).records().faults.iter().collect()
    }

    fn series(faults: &[FaultRecord]) -> TimeSeries {
        let mut series = TimeSeries::default();
        faults.iter().for_each(|fault| series.fault(fault));
        series
    }

    #[test]
    fn every_fault_and_every_nanosecond_of_it_counts_once() {
        let faults = faults();
        let series = series(&faults);
        let copied = faults.iter().filter(|fault| fault.outcome == FaultOutcome::Copied).count();
        let open: u64 = faults.iter().map(|fault| fault.times.total()).sum();
        assert_eq!(series.steps.iter().map(|step| step.ended).sum::<u64>() as usize, copied);
        assert_eq!(series.steps.iter().map(|step| step.open_ns).sum::<u64>(), open);
        assert!((MAX_STEPS / 5..=MAX_STEPS).contains(&(series.steps.len() as u64)), "{}", series.steps.len());
    }

    #[test]
    fn the_order_of_the_faults_does_not_matter() {
        let mut faults = faults();
        let forwards = series(&faults);
        faults.reverse();
        assert_eq!(series(&faults), forwards);
    }

    #[test]
    fn times_far_apart_fit() {
        let mut series = TimeSeries::default();
        for at in [u64::MAX / 4, 7, 3] {
            series.invalidation(at);
        }
        assert_eq!(series.steps.iter().map(|step| step.invalidated).sum::<u64>(), 3);
        assert!(series.begin(0) <= 3 && series.begin(series.steps.len()) > u64::MAX / 4);
    }
}
