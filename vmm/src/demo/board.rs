//! The state of a run in progress: the guest's events, with the recorder's counts.

use super::protocol::{DemoEvent, GuestCounters, Subject};
use refault_observe::summary::{RunResult, ScenarioSummary};
use refault_observe::trace::FaultSummary;
use refault_os::speed::Speed;

/// The progress of a scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScenarioState {
    /// Not started.
    #[default]
    Waiting,
    /// In progress.
    Running,
    /// Ended, with this outcome.
    Ended(RunResult),
}

/// One scenario in one mode, with mappings of one size.
#[derive(Clone, Debug, Default)]
pub struct ScenarioRow {
    /// The scenario, its mode and its mapping size.
    pub subject: Subject,
    /// Its progress.
    pub state: ScenarioState,
    /// The guest's latest counters.
    pub counters: GuestCounters,
    /// The device's faults, as of the latest event.
    pub faults: FaultSummary,
    /// Why it failed or was slow, or a remark.
    pub reason: String,
}

/// All scenarios of a run.
#[derive(Clone, Debug, Default)]
pub struct ScenarioBoard {
    /// Kernel release, as `uname -r` prints it; empty before the guest's program has started.
    pub kernel: String,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Queue pairs that write at the same time.
    pub queue_pairs: u32,
    /// Multiplier of every scenario's goals.
    pub scale: f64,
    /// The guest's speed.
    pub speed: Speed,
    /// The scenarios in their order.
    pub rows: Vec<ScenarioRow>,
    /// Mapping size (`4k`, `2m`) of the first filesystem that xfs_repair finds inconsistent.
    pub inconsistent: Option<String>,
    /// The guest program's own verdict, once it has finished.
    pub done: Option<RunResult>,
}

impl ScenarioBoard {
    /// Takes an event. `faults` is called for the event's scenario. Returns the index of the row that changed.
    pub fn take(&mut self, event: DemoEvent, faults: impl FnOnce(&Subject) -> FaultSummary) -> Option<usize> {
        match event {
            DemoEvent::Plan { kernel, file_bytes, queue_pairs, scale, speed, scenarios } => {
                let rows = scenarios
                    .into_iter()
                    .map(|subject| ScenarioRow { subject, ..ScenarioRow::default() })
                    .collect();
                *self = Self { kernel, file_bytes, queue_pairs, scale, speed, rows, ..Self::default() };
                None
            }
            DemoEvent::Begin(subject) => self.change(&subject, |row| row.state = ScenarioState::Running),
            DemoEvent::Progress { subject, counters } => {
                let faults = faults(&subject);
                self.change(&subject, |row| (row.counters, row.faults) = (counters, faults))
            }
            DemoEvent::End { subject, result, reason, counters } => {
                let faults = faults(&subject);
                self.change(&subject, |row| {
                    (row.counters, row.faults) = (counters, faults);
                    (row.state, row.reason) = (ScenarioState::Ended(result), reason);
                })
            }
            DemoEvent::Check { mapping, result } => {
                if result == RunResult::Fail {
                    self.inconsistent.get_or_insert(mapping);
                }
                None
            }
            DemoEvent::Done { result } => {
                self.done = Some(result);
                None
            }
        }
    }

    /// The scenarios' part of the summary. One that did not end has failed.
    pub fn scenarios(&self) -> Vec<ScenarioSummary> {
        self.rows.iter().map(ScenarioRow::summary).collect()
    }

    /// Why the run failed, other than by a failed scenario; none if it completed.
    pub fn trouble(&self) -> Option<String> {
        if let Some(mapping) = &self.inconsistent {
            return Some(format!("xfs_repair finds the filesystem inconsistent ({mapping} mappings)"));
        }
        match self.done {
            None if self.rows.is_empty() => Some("the guest's program never started".into()),
            None => Some("the guest's program did not finish".into()),
            Some(_) => None,
        }
    }

    fn change(&mut self, subject: &Subject, change: impl FnOnce(&mut ScenarioRow)) -> Option<usize> {
        let index = self.rows.iter().position(|row| row.subject == *subject)?;
        change(self.rows.get_mut(index)?);
        Some(index)
    }
}

impl ScenarioRow {
    fn summary(&self) -> ScenarioSummary {
        let (outcome, reason) = match self.state {
            ScenarioState::Ended(outcome) => (outcome, self.reason.clone()),
            ScenarioState::Running => (RunResult::Fail, "the guest ended while it ran".into()),
            ScenarioState::Waiting => (RunResult::Fail, "it never began".into()),
        };
        let GuestCounters { seconds, operations, writes, bytes_written, .. } = self.counters;
        let GuestCounters { blocks_moved, bytes_verified, bytes_wrong, .. } = self.counters;
        ScenarioSummary {
            name: self.subject.scenario.clone(),
            mode: self.subject.mode.clone(),
            mapping: self.subject.mapping.clone(),
            result: outcome,
            reason,
            faults: self.faults.faults,
            page_requests: self.faults.page_requests,
            blocks_moved,
            bytes_verified,
            bytes_wrong,
            writes,
            bytes_written,
            operations,
            seconds,
            fault_ns: self.faults.fault_ns,
            split: self.faults.split,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(scenario: &str) -> Subject {
        Subject { scenario: scenario.into(), mode: "pasid".into(), mapping: "4k".into() }
    }

    fn planned(scenarios: &[&str]) -> ScenarioBoard {
        let scenarios = scenarios.iter().map(|name| subject(name)).collect();
        let speed = Speed { fault_ns: 900, copy_rate: 1_000_000_000 };
        let plan = DemoEvent::Plan {
            kernel: "7.2".into(),
            file_bytes: 1 << 26,
            queue_pairs: 4,
            scale: 1.0,
            speed,
            scenarios,
        };
        let mut board = ScenarioBoard::default();
        board.take(plan, |_| FaultSummary::default());
        board
    }

    fn ended(scenario: &str, result: RunResult) -> DemoEvent {
        let counters = GuestCounters { writes: 9, ..GuestCounters::default() };
        DemoEvent::End { subject: subject(scenario), result, reason: "said so".into(), counters }
    }

    #[test]
    fn a_scenario_has_counts_of_guest_and_device() {
        let mut board = planned(&["steady", "kill"]);
        board.take(ended("kill", RunResult::Pass), |requested| {
            assert_eq!(requested.scenario, "kill");
            FaultSummary { faults: 7, page_requests: 8, ..FaultSummary::default() }
        });
        let kill = &board.scenarios()[1];
        assert_eq!((kill.faults, kill.page_requests, kill.writes), (7, 8, 9));
        assert_eq!((kill.result, kill.reason.as_str()), (RunResult::Pass, "said so"));
    }

    #[test]
    fn a_scenario_that_did_not_end_has_failed() {
        let mut board = planned(&["steady", "kill"]);
        board.take(DemoEvent::Begin(subject("steady")), |_| FaultSummary::default());
        assert!(board.scenarios().iter().all(|scenario| scenario.result == RunResult::Fail));
        assert!(board.trouble().is_some_and(|text| text.contains("did not finish")));
    }

    #[test]
    fn an_event_of_an_unknown_scenario_changes_nothing() {
        let mut board = planned(&["steady"]);
        assert!(board.take(ended("no-such", RunResult::Pass), |_| FaultSummary::default()).is_none());
        assert_eq!(board.rows[0].state, ScenarioState::Waiting);
    }

    #[test]
    fn an_inconsistent_file_system_fails_the_run() {
        let mut board = planned(&[]);
        let check = DemoEvent::Check { mapping: "2m".into(), result: RunResult::Fail };
        board.take(check, |_| FaultSummary::default());
        board.take(DemoEvent::Done { result: RunResult::Fail }, |_| FaultSummary::default());
        assert!(board.trouble().is_some_and(|text| text.contains("2m")));
    }
}
