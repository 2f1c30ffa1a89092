//! One run of the demo from the command line to its folder, on whatever host runs the guest.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use super::board::{Board, State};
use super::options::DemoArgs;
use super::view::{View, live};
use super::{model, pasids};
use crate::devices;
use crate::run::parse::Pmem;
use crate::run::series::SeriesArgs;
use crate::run::stages::Stages;
use crate::run::{End, Place, Spec, Streams, guest_log, run};
use refault_guest::{GuestImage, IMAGE_VARIABLE};
use refault_hosts::choice::Chosen;
use refault_hosts::nested::{Nested, inside};
use refault_hosts::qemu::Extras;
use refault_machine::config::CpuModel;
use refault_observe::folder::{LATEST, RunFolder, timestamp};
use refault_observe::report::verdicts::{Case, Verdict, VerdictArgs};
use refault_observe::report::{self, names};
use refault_observe::summary::{Outcome, RunSummary, ScenarioSummary, Setup};
use refault_observe::trace::guest::GuestStages;
use refault_observe::trace::{Recorder, Records};
use refault_os::command_line;
use refault_os::message::note;
use refault_os::speed::Speed;
use refault_rig::clock::WallClock;
use refault_rig::wiring::DeviceOptions;

/// Tells the program inside an emulated machine where the run's files go.
const FOLDER_VARIABLE: &str = "REFAULT_DEMO_FOLDER";
/// Tells it that its standard output ends on a terminal.
const LIVE_VARIABLE: &str = "REFAULT_DEMO_LIVE";
/// What the guest's program writes for people.
const OUTPUT: &str = "output.log";
/// Exit status when a scenario failed.
const SCENARIO_FAILED: u8 = 1;
/// Exit status when no real guest could be set up and the model's scenarios passed.
const MODEL_INSTEAD: u8 = 3;
/// Exit status when nothing failed, but some scenarios were too slow to prove something.
const TOO_SLOW: u8 = 4;

/// Does it, and returns the exit status for the shell: 0 only if every scenario passed and the guest's log is clean,
/// 1 if something failed, 3 if only the model could be run, 4 if some scenarios were too slow to prove something.
///
/// # Errors
/// refault itself failed.
pub fn execute(args: &DemoArgs) -> Result<u8> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|_| inside()) {
        here(args, Path::new(&folder), std::env::var_os(LIVE_VARIABLE).is_some(), Place::Kvm)?;
        return Ok(0);
    }
    args.check()?;
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
        .and_then(|chosen| Ok((chosen, SeriesArgs::default().image()?, args.host.place(chosen)?)));
    let (chosen, image, place) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            note(&format!("no real guest: {error:#}"));
            note("`refault doctor` tells what is missing; the model guest plays the scenarios instead");
            let status = model(args)?;
            return Ok(if status == 0 { MODEL_INSTEAD } else { status });
        }
    };
    let (started, clock) = (SystemTime::now(), Instant::now());
    let folder = RunFolder::create(&args.out, started)?;
    note("booting the guest");
    match chosen {
        Chosen::Nested => nested(args, &image, folder.path())?,
        Chosen::Refault | Chosen::Qemu => here(args, folder.path(), live(), place)?,
    }
    let summary = stamp(folder.path(), started, clock.elapsed())?;
    let path = folder.finish()?;
    conclude(args, &summary, &path)?;
    Ok(status_of(summary.result))
}

const fn status_of(result: Outcome) -> u8 {
    match result {
        Outcome::Pass => 0,
        Outcome::Slow => TOO_SLOW,
        Outcome::Fail => SCENARIO_FAILED,
    }
}

/// The same table on the model guest.
fn model(args: &DemoArgs) -> Result<u8> {
    let (started, clock) = (SystemTime::now(), Instant::now());
    let folder = RunFolder::create(&args.out, started)?;
    note("playing the scenarios on the model guest: real NIC and IOMMU code, virtual time, made-up delays");
    let played = model::play(args, live())?;
    let board = &played.view.board;
    let scenarios = board.scenarios();
    let passed = scenarios.iter().all(|scenario| scenario.result == Outcome::Pass);
    let summary = RunSummary {
        version: env!("CARGO_PKG_VERSION").into(),
        started: timestamp(started),
        result: if passed { Outcome::Pass } else { Outcome::Fail },
        reason: None,
        seconds: clock.elapsed().as_secs_f64(),
        boot_seconds: 0.0,
        setup: Setup { file_bytes: board.file_bytes, timing: None, ..setup(args, model::KERNEL, board) },
        scenarios,
        guest_log: Vec::new(),
        observed: played.records.observed.clone(),
    };
    report::write(folder.path(), &played.records, &summary)?;
    let path = folder.finish()?;
    conclude(args, &summary, &path)?;
    Ok(if passed { 0 } else { SCENARIO_FAILED })
}

/// One level down, with our own arguments.
fn nested(args: &DemoArgs, image: &GuestImage, folder: &Path) -> Result<()> {
    let arguments = std::env::args_os().skip(1).collect();
    let told = if args.guest_stages { Stages::bytes(args.memory.0) } else { 0 };
    let memory = [args.pmem.0, told].iter().fold(args.memory.0, |sum, more| sum.saturating_add(*more));
    let mut nested = Nested::of_ourselves(image.kernel(), image.outer_initramfs(), memory, arguments)?;
    nested.environment.push((IMAGE_VARIABLE.into(), image.folder().into()));
    nested.environment.push((FOLDER_VARIABLE.into(), folder.into()));
    if live() {
        nested.environment.push((LIVE_VARIABLE.into(), "1".into()));
    }
    let status = nested.run(None)?;
    anyhow::ensure!(status == Some(0), "the run inside the emulated machine failed");
    Ok(())
}

/// Runs the guest and writes the run's files into `folder`.
fn here(args: &DemoArgs, folder: &Path, live: bool, place: Place) -> Result<()> {
    let start = Instant::now();
    let clock = Arc::new(WallClock::new());
    let recorder = Recorder::new(clock.clone(), Recorder::DEFAULT_BOUND);
    let view = Arc::new(Mutex::new(View::new(recorder.clone(), live)));
    let mut wired = None;
    let mut spec = Spec { place, ..spec(args, SeriesArgs::default().image()?) };
    let stages = args.guest_stages.then(|| Stages::ask(&mut spec)).transpose()?;
    let timing = args.nic.timing()?.map(|named| named.timing);
    let end = run(&spec, streams(folder, view.clone())?, |parts| {
        let (nic, probe) = (args.nic.config(), recorder.clone());
        let options = DeviceOptions { nic, clock, probe, timing, ..DeviceOptions::default() };
        let (devices, keep) = devices::build(parts, options)?;
        wired = Some(keep);
        Ok(devices)
    });
    // The NIC's threads end before the records are taken.
    drop(wired);
    let end = end?;
    let mut view = lock(&view);
    view.finish();
    let mut records = recorder.records();
    records.observed.machine = Some(Speed::measure());
    if let Some(stages) = stages {
        stages.merge(&recorder, &mut records)?;
        note(&records.observed.guest.as_ref().map(GuestStages::line).unwrap_or_default());
    }
    let summary = summarize(args, &view, &records, end, folder, spec.place.name(), start.elapsed());
    report::write(folder, &records, &summary)?;
    Ok(())
}

fn spec(args: &DemoArgs, image: GuestImage) -> Spec {
    Spec {
        place: Place::default(),
        image: Some(image),
        tree: None,
        extras: Extras::default(),
        kernel: None,
        initrd: None,
        rootfs: None,
        append: String::new(),
        cpus: args.cpus,
        memory: args.memory.0,
        cpu_model: CpuModel::default(),
        pmem: vec![Pmem { file: None, size: Some(args.pmem.0) }],
        modules: Vec::new(),
        add: Vec::new(),
        out: Vec::new(),
        out_size: 0,
        command: args.command(),
        shell: false,
        environment: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        terminal: None,
        timeout: Some(args.net()),
        verbose: false,
        trace_kib: None,
    }
}

fn streams(folder: &Path, view: Arc<Mutex<View>>) -> Result<Streams> {
    let create = |name: &str| {
        let path = folder.join(name);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok::<_, anyhow::Error>(file)
    };
    let output = Arc::new(Mutex::new(create(OUTPUT)?));
    Ok(Streams {
        input: None,
        sizes: None,
        output: Box::new(Shared(output.clone())),
        errors: Box::new(Shared(output)),
        log: vec![Box::new(create(names::SERIAL)?)],
        control: Box::new(move |line| lock(&view).take(line)),
    })
}

/// Standard output and standard error of the guest's program, in one file.
struct Shared(Arc<Mutex<File>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        lock(&self.0).flush()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn summarize(
    args: &DemoArgs,
    view: &View,
    records: &Records,
    end: End,
    folder: &Path,
    host: &str,
    elapsed: Duration,
) -> RunSummary {
    let board = &view.board;
    let log = fs::read(folder.join(names::SERIAL)).unwrap_or_default();
    let guest_log = guest_log::findings(&String::from_utf8_lossy(&log));
    let mut scenarios = board.scenarios();
    pasids::judge(&mut scenarios, records);
    if end.timeout.is_some() {
        say_what_hung(&mut scenarios, board, records);
    }
    let reason = hang(&end, args)
        .or_else(|| end.complaint())
        .or_else(|| board.trouble())
        .map(|reason| with_output(&reason, folder))
        .or_else(|| (!guest_log.is_empty()).then(|| "the guest's log has lines of trouble".to_string()));
    let result = match reason {
        Some(_) => Outcome::Fail,
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
fn say_what_hung(scenarios: &mut [ScenarioSummary], board: &Board, records: &Records) {
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
fn worst(scenarios: &[ScenarioSummary]) -> Outcome {
    let any = |outcome| scenarios.iter().any(|scenario| scenario.result == outcome);
    match () {
        () if any(Outcome::Fail) => Outcome::Fail,
        () if any(Outcome::Slow) => Outcome::Slow,
        () => Outcome::Pass,
    }
}

fn setup(args: &DemoArgs, host: &str, board: &Board) -> Setup {
    Setup {
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
    let output = fs::read(folder.join(OUTPUT)).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    match output.lines().rfind(|line| line.starts_with("refault-demo:")) {
        Some(line) => format!("{reason}; {line}"),
        None => reason.to_string(),
    }
}

/// Gives the summary the time as it passed out here, and makes the page anew with it.
fn stamp(folder: &Path, started: SystemTime, elapsed: Duration) -> Result<RunSummary> {
    let path = folder.join(names::SUMMARY);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut summary: RunSummary = serde_json::from_slice(&text)?;
    let outside = elapsed.as_secs_f64();
    summary.boot_seconds += outside - summary.seconds;
    summary.seconds = outside;
    summary.started = timestamp(started);
    let mut text = serde_json::to_vec_pretty(&summary)?;
    text.push(b'\n');
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    report::regenerate(folder)?;
    Ok(summary)
}

/// What the user is told in the end.
fn conclude(args: &DemoArgs, summary: &RunSummary, path: &Path) -> Result<()> {
    for scenario in &summary.scenarios {
        let how = match scenario.result {
            Outcome::Pass => continue,
            Outcome::Slow => "was too slow",
            Outcome::Fail => "failed",
        };
        note(&format!("{} ({}) {how}: {}", scenario.name, scenario.label(), scenario.reason));
    }
    if let Some(reason) = &summary.reason {
        note(&format!("the run failed: {reason}"));
    }
    summary.guest_log.iter().for_each(|line| note(&format!("guest: {line}")));
    let passed = summary.scenarios.iter().filter(|scenario| scenario.result == Outcome::Pass).count();
    let faults: u64 = summary.scenarios.iter().map(|scenario| scenario.faults).sum();
    note(&format!(
        "{passed} of {} scenarios passed with {faults} faults in {:.0} s, {:.0} s of them to boot",
        summary.scenarios.len(),
        summary.seconds,
        summary.boot_seconds
    ));
    if let Some(machine) = summary.observed.machine {
        let guest = Some(summary.setup.guest_speed).filter(|speed| *speed != Speed::default());
        let guest = guest.map(|speed| format!("; in the guest {}", speed.line())).unwrap_or_default();
        note(&format!("on this machine {}{guest}", machine.line()));
    }
    let latest: PathBuf = path.with_file_name(LATEST);
    note(&format!("report: {} (also at {})", path.join(names::REPORT).display(), latest.display()));
    let verdicts = VerdictArgs { junit: args.junit.clone(), ktap: false };
    let took = Duration::from_secs_f64(summary.seconds);
    verdicts.leave("refault demo", &cases(summary), took, &mut std::io::sink())
}

/// A test for each scenario, and one for the run if that failed for a reason of its own.
fn cases(summary: &RunSummary) -> Vec<Case> {
    let scenarios = summary.scenarios.iter().map(|scenario| Case {
        name: format!("{} {}", scenario.name, scenario.label()),
        verdict: match scenario.result {
            Outcome::Pass => Verdict::Pass,
            Outcome::Slow => Verdict::Skip(format!("too slow: {}", scenario.reason)),
            Outcome::Fail => Verdict::Fail(scenario.reason.clone()),
        },
    });
    let run = summary.reason.iter().map(|reason| Case::new("run", Some(reason.clone())));
    scenarios.chain(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_failed_outweighs_one_that_was_slow() {
        let of = |outcomes: &[Outcome]| {
            let summary =
                |result: &Outcome| ScenarioSummary { result: *result, ..ScenarioSummary::default() };
            status_of(worst(&outcomes.iter().map(summary).collect::<Vec<_>>()))
        };
        assert_eq!(of(&[Outcome::Pass, Outcome::Pass]), 0);
        assert_eq!(of(&[Outcome::Pass, Outcome::Slow]), TOO_SLOW);
        assert_eq!(of(&[Outcome::Slow, Outcome::Fail, Outcome::Pass]), SCENARIO_FAILED);
    }
}
