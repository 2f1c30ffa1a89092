//! The summary of a demo: what its scenarios came to, and why the run failed if it did.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::board::{ScenarioBoard, ScenarioState};
use super::options::DemoArgs;
use super::pasids;
use super::view::View;
use crate::run::{RunEnd, guest_log};
use refault_observe::folder::timestamp;
use refault_observe::report::{self, names};
use refault_observe::save::save_atomically;
use refault_observe::summary::{LinkSummary, RunResult, RunSetup, RunSummary, ScenarioSummary};
use refault_observe::trace::Records;
use refault_os::command_line;

/// A run of a real guest that has ended.
pub(super) struct GuestRun<'a> {
    pub(super) end: RunEnd,
    pub(super) view: &'a View,
    pub(super) records: &'a Records,
    /// Has the guest's logs.
    pub(super) folder: &'a Path,
    /// What ran the guest, as reports name it.
    pub(super) host: &'static str,
    /// From before the guest's start to after its end.
    pub(super) elapsed: Duration,
    /// Counters of the frames of modes over wires.
    pub(super) links: Vec<LinkSummary>,
}

impl GuestRun<'_> {
    /// Judges the scenarios and the run.
    pub(super) fn summarize(self, args: &DemoArgs) -> RunSummary {
        let Self { end, view, records, folder, host, elapsed, links } = self;
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
            links,
            observed: records.observed.clone(),
        }
    }
}

/// Why the run failed, if it hung. The guest's kernel was asked to log its state.
fn hang(end: &RunEnd, args: &DemoArgs) -> Option<String> {
    let limit = end.timeout?.as_secs();
    let source = if args.timeout.is_some() { "--timeout" } else { "four budgets and ten minutes" };
    let log = match end.log.trim() {
        "" => "its kernel logged nothing".into(),
        log => format!("the guest's log ends with\n{log}"),
    };
    Some(format!("it hangs: not finished after {limit} s ({source}); {log}"))
}

/// Adds the progress of the scenario that ran, and the faults it waited for, to its reason.
fn explain_hang(scenarios: &mut [ScenarioSummary], board: &ScenarioBoard, records: &Records) {
    for (scenario, row) in scenarios.iter_mut().zip(&board.rows) {
        if row.state == ScenarioState::Running {
            scenario.reason = format!(
                "it hangs after {} operations and {} writes, with {} faults outstanding",
                scenario.operations, scenario.writes, records.observed.faults_open
            );
        }
    }
}

/// The worst outcome of any scenario.
pub(super) fn worst(scenarios: &[ScenarioSummary]) -> RunResult {
    let any = |outcome| scenarios.iter().any(|scenario| scenario.result == outcome);
    match () {
        () if any(RunResult::Fail) => RunResult::Fail,
        () if any(RunResult::Slow) => RunResult::Slow,
        () => RunResult::Pass,
    }
}

pub(super) fn setup(args: &DemoArgs, host: &str, board: &ScenarioBoard) -> RunSetup {
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

/// A reason, with the last message of the guest's program.
fn with_output(reason: &str, folder: &Path) -> String {
    let output = fs::read(folder.join(names::OUTPUT)).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    match output.lines().rfind(|line| line.starts_with("refault-demo:")) {
        Some(line) => format!("{reason}; {line}"),
        None => reason.to_string(),
    }
}

/// Replaces the summary's times with those measured outside an emulated machine, and regenerates the page.
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
