//! The summary of a demo: what its scenarios came to, and why the run failed if it did.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::board::{Board, State};
use super::options::DemoArgs;
use super::pasids;
use super::view::View;
use crate::run::{End, guest_log};
use refault_observe::folder::timestamp;
use refault_observe::report::{self, names};
use refault_observe::save::save_atomically;
use refault_observe::summary::{RunResult, RunSetup, RunSummary, ScenarioSummary};
use refault_observe::trace::Records;
use refault_os::command_line;

/// A run of a real guest that has ended.
pub(super) struct GuestRun<'a> {
    pub(super) end: End,
    pub(super) view: &'a View,
    pub(super) records: &'a Records,
    /// Has the guest's logs.
    pub(super) folder: &'a Path,
    /// What ran the guest, as reports name it.
    pub(super) host: &'static str,
    /// From before the guest's start to after its end.
    pub(super) elapsed: Duration,
}

impl GuestRun<'_> {
    /// Judges the scenarios and the run.
    pub(super) fn summarize(self, args: &DemoArgs) -> RunSummary {
        let Self { end, view, records, folder, host, elapsed } = self;
        let board = &view.board;
        let log = fs::read(folder.join(names::SERIAL)).unwrap_or_default();
        let guest_log = guest_log::findings(&String::from_utf8_lossy(&log));
        let mut scenarios = board.scenarios();
        pasids::judge(&mut scenarios, records);
        if end.timeout.is_some() {
            explain_hang(&mut scenarios, board, records);
        }
        let reason = hang(&end, args)
            .or_else(|| end.complaint())
            .or_else(|| board.trouble())
            .map(|reason| with_output(&reason, folder))
            .or_else(|| (!guest_log.is_empty()).then(|| "the guest's log has lines of trouble".to_string()));
        let result = match reason {
            Some(_) => RunResult::Fail,
            None => worst(&scenarios),
        };
        RunSummary {
            version: env!("CARGO_PKG_VERSION").into(),
            started: String::new(),
            result,
            reason,
            seconds: elapsed.as_secs_f64(),
            boot_seconds: view.boot.unwrap_or(elapsed).as_secs_f64(),
            setup: setup(args, host, board),
            scenarios,
            guest_log,
            observed: records.observed.clone(),
        }
    }
}

/// The net around the run has caught something: the guest's kernel was asked to log what it does.
fn hang(end: &End, args: &DemoArgs) -> Option<String> {
    let limit = end.timeout?.as_secs();
    let net = if args.timeout.is_some() { "--timeout" } else { "four budgets and ten minutes" };
    let log = match end.log.trim() {
        "" => "its kernel logged nothing".into(),
        log => format!("the guest's log ends with\n{log}"),
    };
    Some(format!("it hangs: still not done after {limit} s ({net}); {log}"))
}

/// Of the scenario that ran, how far it was and what it waited for.
fn explain_hang(scenarios: &mut [ScenarioSummary], board: &Board, records: &Records) {
    for (scenario, row) in scenarios.iter_mut().zip(&board.rows) {
        if row.state == State::Running {
            scenario.reason = format!(
                "it hangs after {} operations and {} writes, with {} faults not answered",
                scenario.operations, scenario.writes, records.observed.faults_open
            );
        }
    }
}

/// One failure is everybody's, and so is one that was slow.
pub(super) fn worst(scenarios: &[ScenarioSummary]) -> RunResult {
    let any = |outcome| scenarios.iter().any(|scenario| scenario.result == outcome);
    match () {
        () if any(RunResult::Fail) => RunResult::Fail,
        () if any(RunResult::Slow) => RunResult::Slow,
        () => RunResult::Pass,
    }
}

pub(super) fn setup(args: &DemoArgs, host: &str, board: &Board) -> RunSetup {
    RunSetup {
        command: command_line(),
        host: host.into(),
        cpus: args.cpus.into(),
        kernel: board.kernel.clone(),
        file_bytes: args.size.0,
        scale: board.scale,
        guest_speed: board.speed,
        queue_pairs: args.queue_pairs,
        timing: args.nic.timing_name(),
    }
}

/// A reason, and what the guest's program said last.
fn with_output(reason: &str, folder: &Path) -> String {
    let output = fs::read(folder.join(names::OUTPUT)).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    match output.lines().rfind(|line| line.starts_with("refault-demo:")) {
        Some(line) => format!("{reason}; {line}"),
        None => reason.to_string(),
    }
}

/// Gives the summary the time as it passed out here, and makes the page anew with it.
pub(super) fn correct_times(folder: &Path, started: SystemTime, elapsed: Duration) -> Result<RunSummary> {
    let path = folder.join(names::SUMMARY);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut summary: RunSummary = serde_json::from_slice(&text)?;
    let outside = elapsed.as_secs_f64();
    summary.boot_seconds += outside - summary.seconds;
    summary.seconds = outside;
    summary.started = timestamp(started);
    let mut text = serde_json::to_vec_pretty(&summary)?;
    text.push(b'\n');
    save_atomically(&path, |out| out.write_all(&text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    report::regenerate(folder)?;
    Ok(summary)
}
