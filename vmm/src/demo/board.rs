//! What is known of a run while it goes on: the guest's events, and the recorder's counts beside them.

use super::protocol::{Counters, Event, Subject};
use refault_observe::summary::{RunResult, ScenarioSummary};
use refault_observe::trace::FaultSummary;
use refault_os::speed::Speed;

/// Where a scenario is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// Under way.
    Running,
    /// Ended.
    Ended(RunResult),
}

/// One scenario in one mode, with mappings of one size.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Which.
    pub subject: Subject,
    /// Where it is.
    pub state: State,
    /// The guest's word, the newest.
    pub counters: Counters,
    /// The device's word, as of the newest event.
    pub faults: FaultSummary,
    /// Why it failed, or a remark.
    pub reason: String,
}

/// All of a run.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// As `uname -r` prints it; empty before the guest's program has started.
    pub kernel: String,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Queue pairs that write at the same time.
    pub queue_pairs: u32,
    /// Multiplier of every scenario's goals.
    pub scale: f64,
    /// How fast the guest is.
    pub speed: Speed,
    /// The scenarios in their order.
    pub rows: Vec<Row>,
    /// Size of the first mapping whose file system xfs_repair complains about.
    pub inconsistent: Option<String>,
    /// The guest program's own verdict, once it is through.
    pub done: Option<RunResult>,
}

impl Board {
    /// Takes an event; `faults` is asked for the scenario that it is about. Returns the number of the row
    /// that changed.
    pub fn take(&mut self, event: Event, faults: impl FnOnce(&Subject) -> FaultSummary) -> Option<usize> {
        match event {
            Event::Plan { kernel, file_bytes, queue_pairs, scale, speed, scenarios } => {
                let rows = scenarios.into_iter().map(|subject| Row { subject, ..Row::default() }).collect();
                *self = Self { kernel, file_bytes, queue_pairs, scale, speed, rows, ..Self::default() };
                None
            }
            Event::Begin(subject) => self.change(&subject, |row| row.state = State::Running),
            Event::Progress { subject, counters } => {
                let faults = faults(&subject);
                self.change(&subject, |row| (row.counters, row.faults) = (counters, faults))
            }
            Event::End { subject, result, reason, counters } => {
                let faults = faults(&subject);
                self.change(&subject, |row| {
                    (row.counters, row.faults) = (counters, faults);
                    (row.state, row.reason) = (State::Ended(result), reason);
                })
            }
            Event::Check { mapping, result } => {
                if result == RunResult::Fail {
                    self.inconsistent.get_or_insert(mapping);
                }
                None
            }
            Event::Done { result } => {
                self.done = Some(result);
                None
            }
        }
    }

    /// The scenarios' part of the summary. One that never ended has failed.
    pub fn scenarios(&self) -> Vec<ScenarioSummary> {
        self.rows.iter().map(Row::summary).collect()
    }

    /// Why the run failed, if not through a scenario: nothing for one that went through.
    pub fn trouble(&self) -> Option<String> {
        if let Some(mapping) = &self.inconsistent {
            return Some(format!("xfs_repair finds the file system inconsistent ({mapping} mappings)"));
        }
        match self.done {
            None if self.rows.is_empty() => Some("the guest's program never started".into()),
            None => Some("the guest's program did not come to its end".into()),
            Some(_) => None,
        }
    }

    fn change(&mut self, subject: &Subject, change: impl FnOnce(&mut Row)) -> Option<usize> {
        let index = self.rows.iter().position(|row| row.subject == *subject)?;
        change(self.rows.get_mut(index)?);
        Some(index)
    }
}

impl Row {
    fn summary(&self) -> ScenarioSummary {
        let (outcome, reason) = match self.state {
            State::Ended(outcome) => (outcome, self.reason.clone()),
            State::Running => (RunResult::Fail, "the guest ended while it ran".into()),
            State::Waiting => (RunResult::Fail, "it never began".into()),
        };
        let Counters { seconds, operations, writes, bytes_written, .. } = self.counters;
        let Counters { blocks_moved, bytes_verified, bytes_wrong, .. } = self.counters;
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

    fn planned(scenarios: &[&str]) -> Board {
        let scenarios = scenarios.iter().map(|name| subject(name)).collect();
        let speed = Speed { fault_ns: 900, copy_rate: 1_000_000_000 };
        let plan = Event::Plan {
            kernel: "7.2".into(),
            file_bytes: 1 << 26,
            queue_pairs: 4,
            scale: 1.0,
            speed,
            scenarios,
        };
        let mut board = Board::default();
        board.take(plan, |_| FaultSummary::default());
        board
    }

    fn ended(scenario: &str, result: RunResult) -> Event {
        let counters = Counters { writes: 9, ..Counters::default() };
        Event::End { subject: subject(scenario), result, reason: "said so".into(), counters }
    }

    #[test]
    fn a_scenario_takes_its_counts_from_guest_and_device() {
        let mut board = planned(&["steady", "kill"]);
        board.take(ended("kill", RunResult::Pass), |asked| {
            assert_eq!(asked.scenario, "kill");
            FaultSummary { faults: 7, page_requests: 8, ..FaultSummary::default() }
        });
        let kill = &board.scenarios()[1];
        assert_eq!((kill.faults, kill.page_requests, kill.writes), (7, 8, 9));
        assert_eq!((kill.result, kill.reason.as_str()), (RunResult::Pass, "said so"));
    }

    #[test]
    fn what_never_ended_has_failed() {
        let mut board = planned(&["steady", "kill"]);
        board.take(Event::Begin(subject("steady")), |_| FaultSummary::default());
        assert!(board.scenarios().iter().all(|scenario| scenario.result == RunResult::Fail));
        assert!(board.trouble().is_some_and(|text| text.contains("did not come to its end")));
    }

    #[test]
    fn an_event_about_something_unplanned_changes_nothing() {
        let mut board = planned(&["steady"]);
        assert!(board.take(ended("no-such", RunResult::Pass), |_| FaultSummary::default()).is_none());
        assert_eq!(board.rows[0].state, State::Waiting);
    }

    #[test]
    fn an_inconsistent_file_system_fails_the_run() {
        let mut board = planned(&[]);
        let check = Event::Check { mapping: "2m".into(), result: RunResult::Fail };
        board.take(check, |_| FaultSummary::default());
        board.take(Event::Done { result: RunResult::Fail }, |_| FaultSummary::default());
        assert!(board.trouble().is_some_and(|text| text.contains("2m")));
    }
}
