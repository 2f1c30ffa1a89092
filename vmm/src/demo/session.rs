//! One run of the demo, from the command line to its folder, on any host.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use refault_bus::sync::lock;
use refault_iommu::IommuConfig;

use super::conclusion::conclude;
use super::guest::{spec, streams};
use super::model;
use super::options::DemoArgs;
use super::verdict::{GuestRun, correct_times, setup};
use super::view::{View, live};
use super::wires;
use crate::run::options::series::SeriesArgs;
use crate::run::stages::Stages;
use crate::run::{Backend, RecordedRun};
use refault_guest::{GuestImage, IMAGE_VARIABLE};
use refault_hosts::{
    choice::Chosen,
    nested::{Nested, inside},
};
use refault_net::Side;
use refault_observe::folder::{RunFolder, timestamp};
use refault_observe::report;
use refault_observe::report::verdicts::VerdictArgs;
use refault_observe::summary::{RunResult, RunSetup, RunSummary};
use refault_os::message::note;
use refault_os::sandbox::Grants;

/// Passes the folder of the run to refault in an emulated machine.
const FOLDER_VARIABLE: &str = "REFAULT_DEMO_FOLDER";
/// Set if its standard output is shown on a terminal.
const LIVE_VARIABLE: &str = "REFAULT_DEMO_LIVE";
/// Exit status when a scenario failed.
const SCENARIO_FAILED: u8 = 1;
/// Exit status when no real guest could be set up and the model's scenarios passed.
const MODEL_INSTEAD: u8 = 3;
/// Exit status when nothing failed, but some scenarios were too slow to prove anything.
const TOO_SLOW: u8 = 4;

/// Runs the demo, and returns the exit status for the shell: 0 only if every scenario passed and the guest's log is clean,
/// 1 if something failed, 3 if only the model could be run, 4 if some scenarios were too slow to prove anything.
///
/// # Errors
/// refault itself failed.
pub fn execute(args: &DemoArgs) -> Result<u8> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|_| inside()) {
        in_this_process(args, Path::new(&folder), std::env::var_os(LIVE_VARIABLE).is_some(), Backend::Kvm)?;
        return Ok(0);
    }
    args.check()?;
    args.nic.check()?;
    VerdictArgs { junit: args.junit.clone(), ktap: false }.check()?;
    if args.model {
        return model(args);
    }
    if let Some(timing) = args.nic.timing()? {
        note(&timing.line());
    }
    let prepared = args
        .host
        .choose()
        .and_then(|chosen| Ok((chosen, SeriesArgs::default().image()?, args.host.backend(chosen)?)));
    let (chosen, image, backend) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            note(&format!("no real guest: {error:#}"));
            note("`refault doctor` shows what is missing; playing the scenarios on the model guest instead");
            let status = model(args)?;
            return Ok(if status == 0 { MODEL_INSTEAD } else { status });
        }
    };
    let (started, clock) = (SystemTime::now(), Instant::now());
    let folder = RunFolder::create(&args.out, started)?;
    note("booting the guest");
    match chosen {
        Chosen::Nested => nested(args, &image, folder.path())?,
        Chosen::Refault | Chosen::Qemu => in_this_process(args, folder.path(), live(), backend)?,
    }
    let summary = correct_times(folder.path(), started, clock.elapsed())?;
    let path = folder.finish()?;
    conclude(args, &summary, &path)?;
    Ok(status_of(summary.result))
}

const fn status_of(result: RunResult) -> u8 {
    match result {
        RunResult::Pass => 0,
        RunResult::Slow => TOO_SLOW,
        RunResult::Fail => SCENARIO_FAILED,
    }
}

/// Runs the scenarios on the model guest.
fn model(args: &DemoArgs) -> Result<u8> {
    let (started, clock) = (SystemTime::now(), Instant::now());
    let folder = RunFolder::create(&args.out, started)?;
    note("playing the scenarios on the model guest: real NIC and IOMMU code, virtual time, made-up delays");
    let run = model::run(args, live())?;
    let board = &run.view.board;
    let scenarios = board.scenarios();
    let passed = scenarios.iter().all(|scenario| scenario.result == RunResult::Pass);
    let summary = RunSummary {
        version: env!("CARGO_PKG_VERSION").into(),
        started: timestamp(started),
        result: if passed { RunResult::Pass } else { RunResult::Fail },
        reason: None,
        seconds: clock.elapsed().as_secs_f64(),
        boot_seconds: 0.0,
        setup: RunSetup { file_bytes: board.file_bytes, timing: None, ..setup(args, model::KERNEL, board) },
        scenarios,
        guest_log: Vec::new(),
        links: Vec::new(),
        observed: run.records.observed.clone(),
    };
    report::write(folder.path(), &run.records, &summary)?;
    let path = folder.finish()?;
    conclude(args, &summary, &path)?;
    Ok(if passed { 0 } else { SCENARIO_FAILED })
}

/// Runs refault with the same arguments in an emulated machine.
fn nested(args: &DemoArgs, image: &GuestImage, folder: &Path) -> Result<()> {
    let arguments = std::env::args_os().skip(1).collect();
    let stages = if args.guest_stages { Stages::bytes(args.memory.0) } else { 0 };
    let memory = [args.pmem.0, stages].iter().fold(args.memory.0, |sum, more| sum.saturating_add(*more));
    let mut nested = Nested::of_ourselves(image.kernel(), image.outer_initramfs(), memory, arguments)?;
    nested.environment.push((IMAGE_VARIABLE.into(), image.folder().into()));
    nested.environment.push((FOLDER_VARIABLE.into(), folder.into()));
    if live() {
        nested.environment.push((LIVE_VARIABLE.into(), "1".into()));
    }
    if let Some(grants) = grants(args, folder) {
        nested.confine(grants, [folder])?;
    }
    let status = nested.run(None)?;
    anyhow::ensure!(status == Some(0), "the run inside the emulated machine failed");
    Ok(())
}

/// The folder of the run, which is renamed at the end, and the file of --junit.
fn grants(args: &DemoArgs, folder: &Path) -> Option<Grants> {
    let mut grants = args.sandbox.grants()?;
    grants.write(if inside() { folder } else { &args.out });
    args.junit.iter().for_each(|file| grants.write(file));
    Some(grants)
}

/// Runs the guest with the devices in this process, and writes the run's files into `folder`.
fn in_this_process(args: &DemoArgs, folder: &Path, live: bool, backend: Backend) -> Result<()> {
    let start = Instant::now();
    let timing = args.nic.timing()?;
    let ports = wires::ports(args);
    let (nic, more_nics) = ports.configs(&args.nic.config(), Side::First);
    let mut recorded =
        RecordedRun::new(IommuConfig::default(), nic, timing).with_ports(more_nics, ports.cables(None)?);
    let view = Arc::new(Mutex::new(View::new(recorded.record(), live)));
    let mut spec = spec(args, SeriesArgs::default().image()?, backend);
    spec.sandbox = grants(args, folder);
    if args.guest_stages {
        recorded.request_stages(&mut spec)?;
    }
    let finished = recorded.run(&spec, streams(folder, view.clone())?)?;
    let mut view = lock(&view);
    let links = wires::links(args, finished.cables(), &finished.more_nics());
    // Before the records are taken: they add a line below the table.
    view.finish();
    let (end, records) = finished.take_records()?;
    let records = records.context("a run without devices")?.records;
    let (host, elapsed) = (spec.backend.name(), start.elapsed());
    let summary =
        GuestRun { end, view: &view, records: &records, folder, host, elapsed, links }.summarize(args);
    report::write(folder, &records, &summary)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::verdict::worst;
    use super::*;
    use refault_observe::summary::ScenarioSummary;

    #[test]
    fn a_failed_scenario_outweighs_a_slow_one() {
        let of = |outcomes: &[RunResult]| {
            let summary =
                |result: &RunResult| ScenarioSummary { result: *result, ..ScenarioSummary::default() };
            status_of(worst(&outcomes.iter().map(summary).collect::<Vec<_>>()))
        };
        assert_eq!(of(&[RunResult::Pass, RunResult::Pass]), 0);
        assert_eq!(of(&[RunResult::Pass, RunResult::Slow]), TOO_SLOW);
        assert_eq!(of(&[RunResult::Slow, RunResult::Fail, RunResult::Pass]), SCENARIO_FAILED);
    }
}
