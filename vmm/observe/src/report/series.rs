//! What happened when, in bounded room: the steps grow with the time that passes.

use crate::trace::{FaultOutcome, FaultRecord};

/// Steps at most; there are a fifth as many at least, once there were that many.
const MAX_STEPS: u64 = 480;

/// Something per equal step of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// Length of a step in nanoseconds: 1, 2, 10, 20, 100, ...
    pub(super) step: u64,
    /// Number of the first step that is kept, counted from the recorder's start.
    first: u64,
    /// From the first fault to the last.
    pub(super) steps: Vec<Step>,
}

/// What happened in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Faults that ended in a copy.
    pub(super) ended: u64,
    /// Sum of the time that faults were open.
    pub(super) open_ns: u64,
    /// Invalidations that arrived.
    pub(super) invalidated: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { step: 1, first: 0, steps: Vec::new() }
    }
}

impl Series {
    /// Takes in a fault. They may come in any order.
    pub(super) fn fault(&mut self, fault: &FaultRecord) {
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

    /// Takes in an invalidation.
    pub(super) fn invalidation(&mut self, at: u64) {
        self.hold(at, at);
        let place = self.place(at);
        self.steps[place].invalidated += 1;
    }

    /// When a step begins, in nanoseconds since the recorder's start; one beyond the last is where all ends.
    pub(super) fn begin(&self, place: usize) -> u64 {
        (self.first + place as u64) * self.step
    }

    fn place(&self, at: u64) -> usize {
        (at / self.step - self.first) as usize
    }

    /// Makes room for a span of time.
    fn hold(&mut self, from: u64, to: u64) {
        loop {
            let (mut first, mut last) = (from / self.step, to / self.step);
            if !self.steps.is_empty() {
                first = first.min(self.first);
                last = last.max(self.first + self.steps.len() as u64 - 1);
            }
            if last - first < MAX_STEPS {
                let before = if self.steps.is_empty() { 0 } else { self.first - first };
                self.steps.splice(0..0, (0..before).map(|_| Step::default()));
                self.steps.resize((last - first + 1) as usize, Step::default());
                self.first = first;
                return;
            }
            self.coarsen();
        }
    }

    /// Steps of twice, or five times, the length.
    fn coarsen(&mut self) {
        let factor = if self.step == 10u64.pow(self.step.ilog10()) { 2 } else { 5 };
        let first = self.first / factor;
        let mut steps: Vec<Step> = Vec::new();
        for (step, number) in self.steps.iter().zip(self.first..) {
            let place = (number / factor - first) as usize;
            steps.resize(steps.len().max(place + 1), Step::default());
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

    fn series(faults: &[FaultRecord]) -> Series {
        let mut series = Series::default();
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
    fn times_far_apart_are_held() {
        let mut series = Series::default();
        for at in [u64::MAX / 4, 7, 3] {
            series.invalidation(at);
        }
        assert_eq!(series.steps.iter().map(|step| step.invalidated).sum::<u64>(), 3);
        assert!(series.begin(0) <= 3 && series.begin(series.steps.len()) > u64::MAX / 4);
    }
}
