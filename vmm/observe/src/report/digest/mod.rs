//! The input of a page: statistics of a run's records, collected one by one in memory that does not depend on their number.

pub(in crate::report) mod bins;
pub(in crate::report) mod series;

use super::files::faults_read::Labels;
use crate::trace::{Component, Durations, FaultOutcome, FaultRecord, Invalidation, SEGMENTS};
use crate::trace::{RequestRecord, RequestTimes};
use bins::LogBins;
use series::TimeSeries;

/// The parts of a fault's time, in the order of the stacked charts.
pub(in crate::report) const PARTS: [Part; 4] = [
    Part { name: "device", class: "device" },
    Part { name: "IOMMU", class: "iommu" },
    Part { name: "guest", class: "guest" },
    Part { name: "earlier rounds", class: "again" },
];

/// One part of a fault's time.
pub(in crate::report) struct Part {
    pub(in crate::report) name: &'static str,
    /// CSS class of its colour.
    pub(in crate::report) class: &'static str,
}

/// The component that spends a segment, by its index in [`SEGMENTS`].
pub(in crate::report) const fn component(segment: usize) -> Component {
    match segment {
        0 | 1 | 10 => Component::Device,
        2 | 3 | 9 => Component::Iommu,
        _ => Component::Guest,
    }
}

/// Bars per decade of latency.
pub(in crate::report) const PER_DECADE: usize = 12;

/// Decades with bars: from a nanosecond to three hours.
const DECADES: u32 = 13;

/// The statistics of a run.
#[derive(Clone, Debug)]
pub(in crate::report) struct Digest {
    /// Faults by scenario, and by kind: 0 page requests of a process, 1 all others.
    groups: Vec<[Option<Box<Group>>; 2]>,
    /// Start of the first and end of the last fault of each scenario.
    pub(in crate::report) spans: Vec<(u64, u64)>,
    /// The run over time.
    pub(in crate::report) series: TimeSeries,
    /// Durations of invalidations.
    pub(in crate::report) invalidations: Durations,
    /// Durations of sampled requests.
    pub(in crate::report) requests: RequestTimes,
    /// Names and modes of the scenarios.
    pub(in crate::report) labels: Vec<(String, String)>,
}

impl Digest {
    pub(in crate::report) fn new() -> Self {
        Self {
            groups: Vec::new(),
            spans: Vec::new(),
            series: TimeSeries::default(),
            invalidations: Durations::new(),
            requests: RequestTimes::default(),
            labels: Vec::new(),
        }
    }

    /// Adds a fault; its `scenario` is an index into the labels of [`Self::finish`].
    pub(in crate::report) fn fault(&mut self, fault: &FaultRecord) {
        let scenario = usize::from(fault.scenario);
        if scenario >= self.groups.len() {
            self.groups.resize_with(scenario + 1, Default::default);
            self.spans.resize(scenario + 1, (u64::MAX, 0));
        }
        let way = usize::from(fault.space.pasid().is_none());
        self.groups[scenario][way].get_or_insert_default().add(fault);
        let span = &mut self.spans[scenario];
        *span = (span.0.min(fault.times.miss), span.1.max(fault.times.end));
        self.series.fault(fault);
    }

    /// Adds an invalidation.
    pub(in crate::report) fn invalidation(&mut self, invalidation: &Invalidation) {
        self.series.invalidation(invalidation.start);
        self.invalidations.record(u64::from(invalidation.duration));
    }

    /// Adds a sampled request.
    pub(in crate::report) fn request(&mut self, request: &RequestRecord) {
        self.requests.record(request);
    }

    /// Completes the digest.
    pub(in crate::report) fn finish(mut self, labels: Labels) -> Self {
        self.labels = labels.all;
        self
    }

    /// The faults of one scenario.
    pub(in crate::report) fn scenario(&self, index: usize) -> Group {
        Group::merged(self.groups.get(index).into_iter().flatten().flatten().map(AsRef::as_ref))
    }

    /// All faults.
    pub(in crate::report) fn all(&self) -> Group {
        Group::merged(self.groups.iter().flatten().flatten().map(AsRef::as_ref))
    }

    /// The faults that were page requests to the IOMMU.
    pub(in crate::report) fn by_request(&self) -> Group {
        Group::merged(self.groups.iter().filter_map(|ways| ways[0].as_deref()))
    }

    /// Whether there are faults of on-demand regions.
    pub(in crate::report) fn has_others(&self) -> bool {
        self.groups.iter().any(|ways| ways[1].is_some())
    }
}

/// Statistics of a group of faults. All but [`Self::others`] cover those that ended in a copy.
#[derive(Clone, Debug)]
pub(in crate::report) struct Group {
    /// Nanoseconds from miss to copy.
    pub(in crate::report) total: Durations,
    /// The [`PARTS`] of that time; the last one only over faults that have it.
    pub(in crate::report) parts: [Durations; 4],
    /// The [`SEGMENTS`] of the last rounds, each over the faults in which it was recorded.
    pub(in crate::report) segments: [Durations; SEGMENTS.len()],
    /// Faults by latency, indexed like [`Self::every_bar`].
    bars: Vec<LatencyBar>,
    /// Numbers of other faults: failed, coalesced, abandoned.
    pub(in crate::report) others: [u64; 3],
}

/// Faults of similar latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::report) struct LatencyBar {
    pub(in crate::report) faults: u64,
    /// Sum of their latencies.
    pub(in crate::report) total: u64,
    /// Sums of their parts.
    pub(in crate::report) parts: [u64; 4],
}

impl Default for Group {
    fn default() -> Self {
        Self {
            total: Durations::new(),
            parts: std::array::from_fn(|_| Durations::new()),
            segments: std::array::from_fn(|_| Durations::new()),
            bars: vec![LatencyBar::default(); PER_DECADE * DECADES as usize],
            others: [0; 3],
        }
    }
}

impl Group {
    fn merged<'a>(groups: impl Iterator<Item = &'a Self>) -> Self {
        let mut whole = Self::default();
        groups.for_each(|group| whole.merge(group));
        whole
    }

    fn merge(&mut self, other: &Self) {
        self.total.merge(&other.total);
        let parts = self.parts.iter_mut().chain(&mut self.segments);
        parts.zip(other.parts.iter().chain(&other.segments)).for_each(|(own, more)| own.merge(more));
        for (bar, more) in self.bars.iter_mut().zip(&other.bars) {
            bar.faults += more.faults;
            bar.total += more.total;
            bar.parts.iter_mut().zip(more.parts).for_each(|(own, more)| *own += more);
        }
        self.others.iter_mut().zip(other.others).for_each(|(own, more)| *own += more);
    }

    fn add(&mut self, fault: &FaultRecord) {
        match fault.outcome {
            FaultOutcome::Copied => self.copied(fault),
            FaultOutcome::Failed => self.others[0] += 1,
            FaultOutcome::Coalesced => self.others[1] += 1,
            FaultOutcome::Abandoned => self.others[2] += 1,
        }
    }

    fn copied(&mut self, fault: &FaultRecord) {
        let total = fault.times.total();
        let mut parts = [0, 0, 0, fault.times.round.saturating_sub(fault.times.miss)];
        let mut place = 0;
        for segment in fault.times.segments() {
            // Segments are in the order of the list, so each is found a step or two after the one before.
            place += SEGMENTS[place..].iter().position(|&name| name == segment.name).unwrap_or(0);
            let ns = segment.to - segment.from;
            self.segments[place].record(ns);
            parts[segment.component as usize] += ns;
        }
        self.total.record(total);
        for (part, (own, ns)) in self.parts.iter_mut().zip(parts).enumerate() {
            // The last part is recorded only for faults with earlier rounds.
            if part < 3 || ns > 0 {
                own.record(ns);
            }
        }
        let bar = &mut self.bars[Self::every_bar().bin(total)];
        bar.faults += 1;
        bar.total += total;
        bar.parts.iter_mut().zip(parts).for_each(|(own, ns)| *own += ns);
    }

    /// The bins of [`Self::bars`].
    fn every_bar() -> LogBins {
        LogBins::around(1, 10u64.pow(DECADES) - 1, PER_DECADE)
    }

    /// The bar over a bin of `bins`, which must have [`PER_DECADE`] bins per decade.
    pub(in crate::report) fn bar_of(&self, bins: &LogBins, bin: usize) -> LatencyBar {
        self.bars.get(bins.number_of(bin)).copied().unwrap_or_default()
    }

    /// Faults that ended in a copy.
    pub(in crate::report) fn faults(&self) -> u64 {
        self.total.count()
    }

    /// Mean nanoseconds of a segment over all faults, including those without it. The index after the last segment stands
    /// for earlier rounds.
    pub(in crate::report) fn mean_of(&self, segment: usize) -> f64 {
        let durations = self.segments.get(segment).unwrap_or(&self.parts[3]);
        durations.sum() as f64 / self.faults().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic::{Shape, Synthetic};

    fn digest(shape: Shape) -> (Digest, Vec<FaultRecord>) {
        let faults: Vec<_> = Synthetic::new(shape, 500).records().faults.iter().collect();
        let mut digest = Digest::new();
        faults.iter().for_each(|fault| digest.fault(fault));
        (digest, faults)
    }

    #[test]
    fn every_fault_is_in_exactly_one_group() {
        for shape in Shape::ALL {
            let (digest, faults) = digest(shape);
            let all = digest.all();
            assert_eq!(all.faults() + all.others.iter().sum::<u64>(), faults.len() as u64);
            let by_scenario = (0..digest.groups.len()).map(|index| digest.scenario(index).faults());
            assert_eq!(by_scenario.sum::<u64>(), all.faults());
            assert_eq!(all.bars.iter().map(|bar| bar.faults).sum::<u64>(), all.faults());
        }
    }

    #[test]
    fn parts_bars_and_segments_add_up_to_the_whole() {
        let all = digest(Shape::Mixed).0.all();
        assert!(all.bars.iter().all(|bar| bar.total == bar.parts.iter().sum::<u64>()));
        let parts: u128 = all.parts.iter().map(Durations::sum).sum();
        let segments: u128 = all.segments.iter().chain([&all.parts[3]]).map(Durations::sum).sum();
        assert_eq!((parts, segments), (all.total.sum(), all.total.sum()));
        let means: f64 = (0..=SEGMENTS.len()).map(|segment| all.mean_of(segment)).sum();
        assert!((means - all.total.mean() as f64).abs() < 2.0);
    }

    #[test]
    fn each_segment_has_the_component_that_the_records_give_it() {
        let (_, faults) = digest(Shape::Mixed);
        let mut seen = [false; SEGMENTS.len()];
        for segment in faults.iter().flat_map(|fault| fault.times.segments()) {
            let place = SEGMENTS.iter().position(|&name| name == segment.name).unwrap();
            assert_eq!(component(place), segment.component, "{}", segment.name);
            seen[place] = true;
        }
        assert!(seen.iter().filter(|&&seen| seen).count() >= 6);
    }

    #[test]
    fn a_digest_of_more_faults_is_no_larger() {
        let series = |count| {
            let mut digest = Digest::new();
            Synthetic::new(Shape::Uniform, count)
                .records()
                .faults
                .iter()
                .for_each(|fault| digest.fault(&fault));
            digest.series.steps.len()
        };
        assert!(series(100_000) <= 480 && series(10) <= 480);
    }
}
