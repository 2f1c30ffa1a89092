//! Made-up runs, for tests of reports.

use std::sync::Arc;

use refault_bus::clock::{Clock, ManualClock};
use refault_bus::probe::{Probe, ProbeEvent, Stage};
use refault_bus::{AddressSpace, Iova, Pasid, PrgIndex};

use crate::summary::{RunResult, RunSetup, RunSummary, ScenarioSummary};
use crate::trace::{Recorder, Records};
use refault_os::speed::Speed;

/// The shape of a made-up run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Several scenarios; some faults fail, some need two rounds, some have no recorded end.
    Mixed,
    /// All faults fail.
    Failing,
    /// One scenario, no interrupts, all times equal.
    Uniform,
}

impl Shape {
    pub(crate) const ALL: [Self; 3] = [Self::Mixed, Self::Failing, Self::Uniform];
}

/// A made-up run.
pub(crate) struct Synthetic {
    clock: Arc<ManualClock>,
    recorder: Arc<Recorder>,
    shape: Shape,
    random: u64,
    labels: Vec<(&'static str, &'static str)>,
    /// Events of the current scenario. They are generated per queue pair, then sorted by time.
    events: Vec<(u64, ProbeEvent)>,
    /// Current time of the queue pair being generated.
    at: u64,
}

const QUEUE_PAIRS: usize = 4;

const SCENARIOS: [&str; 8] =
    ["steady", "reflink-cow", "exchange", "punch", "truncate", "fsync", "kill", "pinned"];

impl Synthetic {
    /// A run with `faults` faults, the same for the same arguments.
    pub(crate) fn new(shape: Shape, faults: usize) -> Self {
        let clock = Arc::new(ManualClock::default());
        let recorder = Recorder::new(clock.clone(), faults.max(64) * 16);
        let mut run = Self {
            clock,
            recorder,
            shape,
            random: 0x9e37_79b9_7f4a_7c15,
            labels: Vec::new(),
            events: Vec::new(),
            at: 0,
        };
        let modes: &[_] = if shape == Shape::Mixed { &["pasid 4k", "odp 2m"] } else { &["pasid 4k"] };
        let names: &[_] = if shape == Shape::Uniform { &SCENARIOS[1..2] } else { &SCENARIOS };
        for &mode in modes {
            for &name in names {
                run.labels.push((name, mode));
            }
        }
        for (index, (name, mode)) in run.labels.clone().into_iter().enumerate() {
            run.scenario(index, name, mode, faults);
        }
        run
    }

    pub(crate) fn records(&self) -> Records {
        self.recorder.records()
    }

    pub(crate) fn summary(&self) -> RunSummary {
        let scenarios = self.labels.iter().map(|&(name, mode)| self.scenario_summary(name, mode)).collect();
        RunSummary {
            version: "0.1.0".into(),
            started: "2026-01-31T12:34:56Z".into(),
            result: RunResult::Pass,
            reason: None,
            seconds: 151.4,
            boot_seconds: 14.2,
            setup: RunSetup {
                command: "refault demo --host nested --cpus 2".into(),
                host: "nested".into(),
                cpus: 2,
                kernel: "7.2.12+deb13-amd64".into(),
                file_bytes: 64 << 20,
                scale: 1.0,
                guest_speed: Speed { fault_ns: 2_500, copy_rate: 1_300_000_000 },
                queue_pairs: 4,
                timing: None,
            },
            scenarios,
            guest_log: Vec::new(),
            links: Vec::new(),
            observed: self.recorder.observed(),
        }
    }

    fn scenario_summary(&self, name: &str, mode: &str) -> ScenarioSummary {
        let sum = self.recorder.scenario_summary(name, mode);
        let reason = if name == "pinned" { "ibv_reg_mr of the DAX file: EOPNOTSUPP" } else { "" };
        ScenarioSummary {
            name: name.into(),
            mode: mode.split(' ').next().unwrap_or_default().into(),
            mapping: mode.split(' ').nth(1).unwrap_or_default().into(),
            result: RunResult::Pass,
            reason: reason.into(),
            faults: sum.faults,
            page_requests: sum.page_requests,
            blocks_moved: if name == "steady" { 0 } else { sum.faults * 3 },
            bytes_verified: 67_108_864,
            bytes_wrong: 0,
            writes: 41_234,
            bytes_written: 3_221_225_472,
            operations: 120,
            seconds: 8.25,
            fault_ns: sum.fault_ns,
            split: sum.split,
        }
    }

    fn scenario(&mut self, index: usize, name: &str, mode: &str, faults: usize) {
        self.recorder.begin(name, mode);
        let share = faults / self.labels.len() + usize::from(index < faults % self.labels.len());
        let start = self.clock.now_ns() + 40_000_000;
        for pair in 0..QUEUE_PAIRS {
            self.at = start;
            for number in 0..share / QUEUE_PAIRS + usize::from(pair < share % QUEUE_PAIRS) {
                self.fault(index as u64, pair as u64, number as u64);
                if number.is_multiple_of(7) {
                    self.invalidation(number as u64);
                }
            }
        }
        let mut events = std::mem::take(&mut self.events);
        events.sort_by_key(|&(at, _)| at);
        for (at, event) in events {
            self.clock.advance(at - self.clock.now_ns());
            self.recorder.record(&event);
        }
        self.clock.advance(10_000_000);
        self.recorder.end();
    }

    /// A fault whose times spread over two decades, a little longer in every scenario.
    fn fault(&mut self, scenario: u64, pair: u64, number: u64) {
        let (qpn, group) = (17 + pair, pair * 64 + number % 64);
        let page = 0x7f12_3456_7000 + ((self.next() % 0x4000) << 12);
        let mixed = self.shape == Shape::Mixed;
        let lost = mixed && number % 97 == 50;
        let page = if lost { page + (number << 32) } else { page };
        self.pass(300, Stage::Miss, group, qpn, page);
        let rounds = if mixed && number % 29 == 5 { 2 } else { 1 };
        for _ in 0..rounds {
            self.pass(700, Stage::PageRequest, group, qpn, page);
            self.pass(900, Stage::Queued, group, qpn, page);
            if mixed && !number.is_multiple_of(5) {
                self.pass(2_500, Stage::Interrupt, group, qpn, page);
            }
            // In the second mode, the guest says how its part divides.
            if mixed && scenario >= 8 {
                self.pass(6_000, Stage::Taken, group, qpn, page);
                self.pass(4_000, Stage::Handling, group, qpn, page);
                self.pass(12_000, Stage::Handled, group, qpn, page);
            }
            self.pass(30_000 + scenario * 9_000, Stage::Response, group, qpn, page);
            self.pass(1_500, Stage::Matched, group, qpn, page);
        }
        if lost {
            return;
        }
        let failed = self.shape == Shape::Failing || mixed && scenario % 8 == 4 && number.is_multiple_of(3);
        let end = if failed { Stage::Failed } else { Stage::Copied };
        self.pass(1_800, end, group, qpn, page);
        self.at += self.random % 400_000;
    }

    fn invalidation(&mut self, number: u64) {
        self.pass(100, Stage::Invalidate, 0, 0, number << 12);
        self.pass(1_200, Stage::Invalidated, 0, 0, number << 12);
    }

    /// Lets about `ns` pass on the queue pair, then notes an event.
    fn pass(&mut self, ns: u64, stage: Stage, group: u64, qpn: u64, page: u64) {
        let factor = if self.shape == Shape::Uniform { 256 } else { self.spread() };
        self.at += ns * factor / 256;
        let event = ProbeEvent {
            group: Some(PrgIndex::truncated(group)),
            qpn: qpn as u32,
            write: true,
            ..ProbeEvent::new(stage, AddressSpace::Process(Pasid::truncated(5)), Iova(page))
        };
        self.events.push((self.at, event));
    }

    /// A factor in 256ths: mostly near one, rarely up to thirty.
    fn spread(&mut self) -> u64 {
        let (a, b) = (self.next() % 256, self.next() % 256);
        let tail = if self.next().is_multiple_of(100) { 256 * (self.next() % 30) } else { 0 };
        128 + (a + b) / 2 + tail
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[test]
fn the_same_arguments_make_the_same_run() {
    let times =
        || Synthetic::new(Shape::Mixed, 40).records().faults.iter().map(|f| f.times.end).collect::<Vec<_>>();
    assert_eq!(times(), times());
    assert!(Synthetic::new(Shape::Uniform, 1).clock.now_ns() > 0);
}
