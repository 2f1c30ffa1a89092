//! The figures of an experiment: the columns of a sweep's table, and the basis of summaries.

use hdrhistogram::Histogram;

use refault_bus::bits::index;

use super::outcome::ExperimentOutcome;
use super::scenario::Scenario;
use refault_observe::numbers::whole;
use refault_observe::trace::FaultOutcome;

/// The value of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// A count, or whole nanoseconds.
    Whole(u64),
    /// A rate, a share or a mean.
    Real(f64),
}

/// The type of a figure, for typed tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureKind {
    /// [`Figure::Whole`].
    Whole,
    /// [`Figure::Real`].
    Real,
}

/// Name, type and meaning of each figure, in the order of the columns.
pub const FIGURES: [(&str, FigureKind, &str); 48] = [
    ("completed", FigureKind::Whole, "requests that succeeded"),
    ("failed", FigureKind::Whole, "requests that failed"),
    ("bytes", FigureKind::Whole, "payload bytes of those that succeeded"),
    ("duration_ns", FigureKind::Whole, "first arrival to last completion"),
    ("requests_per_s", FigureKind::Real, "successful requests divided by the duration"),
    ("mb_per_s", FigureKind::Real, "their payload, in 10^6 bytes per second"),
    ("latency_mean_ns", FigureKind::Real, "arrival to completion of a request"),
    ("latency_p50_ns", FigureKind::Whole, "its median; quantiles of requests are accurate to three digits"),
    ("latency_p95_ns", FigureKind::Whole, "95 %"),
    ("latency_p99_ns", FigureKind::Whole, "99 %"),
    ("latency_p999_ns", FigureKind::Whole, "99.9 %"),
    ("latency_max_ns", FigureKind::Whole, "the longest"),
    ("faults", FigureKind::Whole, "faults of the device that ended in a copy"),
    ("faults_coalesced", FigureKind::Whole, "accesses that joined another queue pair's fault"),
    ("faults_failed", FigureKind::Whole, "faults that failed or were abandoned"),
    ("page_requests", FigureKind::Whole, "page requests, or page fault events, sent"),
    ("fault_mean_ns", FigureKind::Real, "miss to copy of a fault"),
    ("fault_p50_ns", FigureKind::Whole, "its median; quantiles of faults are exact"),
    ("fault_p95_ns", FigureKind::Whole, "95 %"),
    ("fault_p99_ns", FigureKind::Whole, "99 %"),
    ("fault_p999_ns", FigureKind::Whole, "99.9 %"),
    ("fault_max_ns", FigureKind::Whole, "the longest"),
    ("device_mean_ns", FigureKind::Real, "the device's part of a fault"),
    ("iommu_mean_ns", FigureKind::Real, "the IOMMU's part"),
    ("guest_mean_ns", FigureKind::Real, "the guest's part"),
    ("again_mean_ns", FigureKind::Real, "rounds that ended with the page gone again"),
    ("handled", FigureKind::Whole, "faults that the guest handled"),
    ("prefetched", FigureKind::Whole, "pages that handlers prefetched"),
    ("handler_wait_mean_ns", FigureKind::Real, "arrival at the handlers to the start of handling"),
    ("handler_busy_mean_ns", FigureKind::Real, "a handler's time for a fault"),
    ("handler_utilisation", FigureKind::Real, "share of the handlers' time in which they were busy"),
    (
        "handler_most_outstanding",
        FigureKind::Whole,
        "most faults that waited or were being handled at one time",
    ),
    ("faults_open_mean", FigureKind::Real, "faults in flight, averaged over time"),
    ("invalidations", FigureKind::Whole, "invalidations that the device completed"),
    ("records_dropped", FigureKind::Whole, "faults that did not fit into the records: in no fault figure"),
    (
        "faulting_p50_ns",
        FigureKind::Whole,
        "arrival to completion of requests whose pages were evicted first: median",
    ),
    ("faulting_p99_ns", FigureKind::Whole, "99 %"),
    ("neighbour_p50_ns", FigureKind::Whole, "of the other requests of their queue pairs: median"),
    ("neighbour_p99_ns", FigureKind::Whole, "99 %"),
    ("bystander_p50_ns", FigureKind::Whole, "of requests of queue pairs that never fault: median"),
    ("bystander_p99_ns", FigureKind::Whole, "99 %"),
    ("packets", FigureKind::Whole, "packets sent, acknowledgements included"),
    ("sent_per_byte", FigureKind::Real, "bytes sent, headers included, for each payload byte that arrived"),
    ("packets_repeated", FigureKind::Whole, "request packets that were sent again"),
    ("rnr_naks", FigureKind::Whole, "RNR NAKs sent"),
    ("ack_timeouts", FigureKind::Whole, "ACK timeouts"),
    ("packets_lost", FigureKind::Whole, "packets lost on the wire, or for want of room"),
    (
        "held_peak_bytes",
        FigureKind::Whole,
        "most bytes that responders kept at one time while they waited for pages",
    ),
];

/// The figures of an outcome, in the order of [`FIGURES`].
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    values: Vec<Figure>,
}

impl Figures {
    /// Computes all figures. Sums follow the order of the records, so that floating point gives the same everywhere.
    pub fn of(scenario: &Scenario, outcome: &ExperimentOutcome) -> Self {
        let mut values = Vec::with_capacity(FIGURES.len());
        requests(&mut values, outcome);
        faults(&mut values, outcome);
        handlers(&mut values, scenario, outcome);
        wire(&mut values, outcome);
        debug_assert_eq!(values.len(), FIGURES.len());
        Self { values }
    }

    /// The values, in the order of [`FIGURES`].
    pub fn values(&self) -> &[Figure] {
        &self.values
    }

    /// The value of an integral figure; zero if there is no such figure.
    pub fn whole(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Figure::Whole(value)) => value,
            _ => 0,
        }
    }

    /// The value of a figure as a real number; zero if there is no such figure.
    pub fn real(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Figure::Whole(value)) => value as f64,
            Some(Figure::Real(value)) => value,
            None => 0.0,
        }
    }

    fn get(&self, name: &str) -> Option<Figure> {
        let place = FIGURES.iter().position(|(known, ..)| *known == name)?;
        self.values.get(place).copied()
    }
}

fn requests(values: &mut Vec<Figure>, outcome: &ExperimentOutcome) {
    let load = &outcome.load;
    let seconds = load.duration_ns as f64 / 1e9;
    values.extend([load.completed, load.failed, load.bytes, load.duration_ns].map(Figure::Whole));
    values.push(Figure::Real(ratio(load.completed as f64, seconds)));
    values.push(Figure::Real(ratio(load.bytes as f64 / 1e6, seconds)));
    values.push(Figure::Real(mean_of(&load.latency_ns)));
    let max = load.latency_ns.max();
    values.extend(QUANTILES.map(|share| Figure::Whole(load.latency_ns.value_at_quantile(share).min(max))));
    values.push(Figure::Whole(max));
}

/// The quantiles of each latency; its maximum follows.
const QUANTILES: [f64; 4] = [0.5, 0.95, 0.99, 0.999];

fn mean_of(histogram: &Histogram<u64>) -> f64 {
    if histogram.is_empty() { 0.0 } else { histogram.mean() }
}

fn faults(values: &mut Vec<Figure>, outcome: &ExperimentOutcome) {
    let mut outcomes = [0u64; 4];
    let mut page_requests = 0;
    let mut totals = Vec::with_capacity(outcome.records.faults.len());
    let mut parts = [0u64; 4];
    for fault in outcome.records.faults.iter() {
        outcomes[fault.outcome as usize] += 1;
        page_requests += u64::from(fault.requests);
        if fault.outcome == FaultOutcome::Copied {
            totals.push(fault.times.total());
            let split = fault.times.split();
            for (sum, part) in parts.iter_mut().zip([split.device, split.iommu, split.guest, split.again]) {
                *sum += part;
            }
        }
    }
    totals.sort_unstable();
    let [copied, failed, coalesced, abandoned] = outcomes;
    let count = copied as f64;
    values.extend([copied, coalesced, failed + abandoned, page_requests].map(Figure::Whole));
    values.push(Figure::Real(ratio(totals.iter().sum::<u64>() as f64, count)));
    values.extend(QUANTILES.map(|share| Figure::Whole(quantile(&totals, share))));
    values.push(Figure::Whole(totals.last().copied().unwrap_or(0)));
    values.extend(parts.map(|sum| Figure::Real(ratio(sum as f64, count))));
}

fn handlers(values: &mut Vec<Figure>, scenario: &Scenario, outcome: &ExperimentOutcome) {
    let handlers = &outcome.handlers;
    let duration = outcome.load.duration_ns as f64;
    let count = handlers.faults as f64;
    let busy = handlers.busy_ns as f64;
    let open: u64 = outcome.records.faults.iter().map(|fault| fault.times.total()).sum();
    values.extend([handlers.faults, handlers.prefetched].map(Figure::Whole));
    values.push(Figure::Real(ratio(handlers.wait_ns as f64, count)));
    values.push(Figure::Real(ratio(busy, count)));
    values.push(Figure::Real(ratio(busy, duration * f64::from(scenario.guest.handlers))));
    values.push(Figure::Whole(handlers.most_outstanding));
    values.push(Figure::Real(ratio(open as f64, duration)));
    let observed = &outcome.records.observed;
    values.extend([observed.invalidations, observed.faults_dropped].map(Figure::Whole));
}

fn wire(values: &mut Vec<Figure>, outcome: &ExperimentOutcome) {
    for latency in &outcome.load.by_kind_ns {
        let at = |share| Figure::Whole(latency.value_at_quantile(share).min(latency.max()));
        values.extend([0.5, 0.99].map(at));
    }
    let nic = &outcome.counters.nic;
    values.push(Figure::Whole(nic.packets));
    values.push(Figure::Real(ratio(nic.packet_bytes as f64, outcome.load.bytes as f64)));
    let counts =
        [nic.packets_repeated, nic.rnr_naks, nic.transport_retries, nic.packets_lost, nic.held_bytes_peak];
    values.extend(counts.map(Figure::Whole));
}

/// `part / whole`, or zero if `whole` is zero.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// A quantile of sorted values (nearest rank); zero if there are none.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = index(whole((share * sorted.len() as f64).ceil()));
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0)
}
