//! Collects assembled faults: into the statistics of their scenario, and into the store while it has room.

use std::collections::BTreeMap;

use refault_bus::probe::{ProbeEvent, RequestEvent, Stage};
use serde::{Deserialize, Serialize};

use super::assemble::Assembler;
use super::guest::GuestStages;
use super::invalidations::{Invalidation, Invalidations};
use super::record::FaultRecord;
use super::request::{RequestRecord, RequestStore};
use super::stats::{FaultSummary, ScenarioStats};
use super::store::FaultStore;
use crate::trace::percentiles::Percentiles;
use refault_os::speed::Speed;

/// Kept faults per kept sampled request.
const REQUESTS: usize = 8;

/// Most distinct scenarios; faults of further ones count as outside scenarios.
const MAX_SCENARIOS: usize = 256;

/// All records of a run: the input of its report.
#[derive(Clone, Debug)]
pub struct Records {
    /// The scenarios. The first entry stands for the time before, between and after them.
    pub scenarios: Vec<ScenarioSpan>,
    /// The kept faults, in the order of their ends.
    pub faults: FaultStore,
    /// The kept invalidations, in the order of their completion.
    pub invalidations: Vec<Invalidation>,
    /// The kept sampled requests, in the order of their ends.
    pub requests: Vec<RequestRecord>,
    /// Counts of what was observed, kept and lost.
    pub observed: Observed,
}

impl Records {
    /// No records, with room for `bound` faults.
    pub fn empty(bound: usize) -> Self {
        Self {
            scenarios: vec![ScenarioSpan::default()],
            faults: FaultStore::new(bound),
            invalidations: Vec::new(),
            requests: Vec::new(),
            observed: Observed::default(),
        }
    }
}

/// The time span of a scenario, in nanoseconds since the recorder's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScenarioSpan {
    /// Name of the scenario.
    pub name: String,
    /// Its mode, such as `pasid 4k`.
    pub mode: String,
    /// Its first start.
    pub begin: u64,
    /// Its last end.
    pub end: u64,
}

/// Counts of what was observed, kept and lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Faults in `faults.csv`.
    pub faults_kept: u64,
    /// Faults that count in the summaries but have no record, for lack of room.
    pub faults_dropped: u64,
    /// Faults without an end when the records were taken.
    pub faults_open: u64,
    /// Accesses that joined another queue pair's fault.
    pub coalesced: u64,
    /// Faults whose access failed.
    pub failed: u64,
    /// Faults without a recorded end.
    pub abandoned: u64,
    /// Events that were lost because the queue to the assembler was full.
    pub events_lost: u64,
    /// Counts of events that did not fit, by description.
    pub anomalies: BTreeMap<String, u64>,
    /// Invalidations that the device completed.
    pub invalidations: u64,
    /// Their durations in nanoseconds.
    pub invalidation_ns: Percentiles,
    /// Speed of the machine, if it was a real one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Speed>,
    /// How the guest's part of the faults was split, if the guest traced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestStages>,
    /// Sampled requests in `requests.csv`.
    #[serde(default)]
    pub requests_kept: u64,
    /// Sampled requests that have no record, for lack of room.
    #[serde(default)]
    pub requests_dropped: u64,
    /// Sampled requests that were lost because the queue to the assembler was full.
    #[serde(default)]
    pub requests_lost: u64,
}

/// The assembled state.
#[derive(Debug)]
pub(super) struct Collector {
    assembler: Assembler,
    invalidations: Invalidations,
    scenarios: Vec<Scenario>,
    current: u16,
    store: FaultStore,
    dropped: u64,
    requests: RequestStore,
    done: Vec<FaultRecord>,
    /// Divisor of the free space that a new scenario may fill.
    share: usize,
}

#[derive(Debug)]
struct Scenario {
    span: ScenarioSpan,
    stats: ScenarioStats,
    /// Further faults of the scenario that may be kept.
    room: usize,
}

impl Collector {
    pub(super) fn new(bound: usize, share: usize) -> Self {
        let mut collector = Self {
            assembler: Assembler::new(),
            invalidations: Invalidations::new(bound / 4),
            scenarios: Vec::new(),
            current: 0,
            store: FaultStore::new(bound),
            dropped: 0,
            requests: RequestStore::new(bound / REQUESTS),
            done: Vec::new(),
            share,
        };
        collector.scenarios.push(Scenario::new("", "", 0, bound / share));
        collector
    }

    pub(super) fn take(&mut self, at: u64, event: &ProbeEvent) {
        match event.stage {
            Stage::Invalidate => return self.invalidations.begin(at, event),
            Stage::Invalidated => {
                return self.invalidations.end(at, event, &mut self.assembler.anomalies);
            }
            _ => self.assembler.take(at, self.current, event, &mut self.done),
        }
        for record in self.done.drain(..) {
            let scenario = &mut self.scenarios[usize::from(record.scenario)];
            scenario.stats.add(&record);
            if scenario.room > 0 && self.store.push(&record) {
                scenario.room -= 1;
            } else {
                self.dropped += 1;
            }
        }
    }

    /// Takes a finished sampled request, on a clock that read `origin` when the recorder started.
    pub(super) fn take_request(&mut self, event: &RequestEvent, origin: u64) {
        self.requests.push(RequestRecord::new(self.current, event, origin));
    }

    pub(super) fn requests(&self) -> &[RequestRecord] {
        self.requests.kept()
    }

    pub(super) fn begin(&mut self, at: u64, name: &str, mode: &str) {
        self.end(at);
        self.requests.share(self.share);
        let room = self.store.free() / self.share;
        let index = match self.find(name, mode) {
            Some(index) => index,
            None if self.scenarios.len() < MAX_SCENARIOS => {
                self.scenarios.push(Scenario::new(name, mode, at, room));
                self.scenarios.len() - 1
            }
            None => 0,
        };
        self.current = u16::try_from(index).unwrap_or(u16::MAX);
    }

    pub(super) fn end(&mut self, at: u64) {
        self.scenarios[usize::from(self.current)].span.end = at;
        self.current = 0;
    }

    pub(super) fn faults(&self) -> &FaultStore {
        &self.store
    }

    pub(super) fn invalidations(&self) -> &[Invalidation] {
        self.invalidations.kept()
    }

    pub(super) fn summary(&self, name: &str, mode: &str) -> FaultSummary {
        self.find(name, mode).map(|index| self.scenarios[index].stats.summary()).unwrap_or_default()
    }

    pub(super) fn observed(&self) -> Observed {
        let sums = self.scenarios.iter().map(|scenario| scenario.stats.summary());
        let (coalesced, failed, abandoned) = sums.fold((0, 0, 0), |(coalesced, failed, abandoned), sum| {
            (coalesced + sum.coalesced, failed + sum.failed, abandoned + sum.abandoned)
        });
        Observed {
            machine: None,
            faults_kept: self.store.len() as u64,
            faults_dropped: self.dropped,
            faults_open: self.assembler.open() as u64,
            coalesced,
            failed,
            abandoned,
            events_lost: 0,
            anomalies: self.assembler.anomalies.named(),
            invalidations: self.invalidations.count(),
            invalidation_ns: self.invalidations.percentiles(),
            guest: None,
            requests_kept: self.requests.kept().len() as u64,
            requests_dropped: self.requests.dropped(),
            requests_lost: 0,
        }
    }

    /// All records so far. Kept faults and invalidations are moved, not copied.
    pub(super) fn take_records(&mut self, now: u64) -> Records {
        let observed = self.observed();
        let faults = std::mem::replace(&mut self.store, FaultStore::new(0));
        let invalidations = self.invalidations.take_kept();
        Records { faults, invalidations, observed, ..self.records(now) }
    }

    pub(super) fn records(&self, now: u64) -> Records {
        let mut scenarios: Vec<_> = self.scenarios.iter().map(|scenario| scenario.span.clone()).collect();
        scenarios[usize::from(self.current)].end = now;
        scenarios[0].end = now;
        Records {
            scenarios,
            faults: self.store.clone(),
            invalidations: self.invalidations.kept().to_vec(),
            requests: self.requests.kept().to_vec(),
            observed: self.observed(),
        }
    }

    fn find(&self, name: &str, mode: &str) -> Option<usize> {
        self.scenarios.iter().position(|scenario| scenario.span.name == name && scenario.span.mode == mode)
    }
}

impl Scenario {
    fn new(name: &str, mode: &str, begin: u64, room: usize) -> Self {
        let span = ScenarioSpan { name: name.into(), mode: mode.into(), begin, end: begin };
        Self { span, stats: ScenarioStats::new(), room }
    }
}
