//! `refault run`: checks its options, runs the guest here or one level down, and reports the end.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use refault_iommu::IommuConfig;
use refault_net::Side;
use refault_nic::NicConfig;

use super::experiment::{BEGIN, END, GuestExperiment, limits};
use super::nested::nested;
use super::options::RunArgs;
use super::output::Verdicts;
use super::output::streams::{stdout, streams};
use super::recorded::{FinishedRun, RecordedRun};
use super::{Backend, ControlListener, RunEnd, Spec};
use refault_guest::GuestImage;
use refault_guest::kernel_tree::TreeKernel;
use refault_hosts::{choice::Chosen, nested::inside};
use refault_observe::trace::Recorder;
use refault_os::message::note;
use refault_os::output_queue::OutputQueue;
use refault_os::terminal::RawMode;
use refault_rig::cable::CableCounters;
use refault_rig::delays::NamedTiming;

/// Runs the command, and returns the exit status for the shell.
///
/// # Errors
/// refault itself failed; the exit status is then 125.
pub fn execute(args: &RunArgs) -> Result<u8> {
    if !inside() {
        args.verdicts.check()?;
    }
    if args.verdicts.requested() {
        ensure!(
            args.initrd.is_none(),
            "--junit, --ktap: with --initrd there is no command whose tests count"
        );
        ensure!(!args.verdicts.ktap || !args.tty, "--ktap: not with --tty, which mixes output with input");
    }
    let own_system = args.kernel.is_some() && args.initrd.is_some();
    args.nic.check()?;
    args.check_ports()?;
    let timing = args.nic.timing()?;
    if inside() {
        let image = (!own_system).then(|| args.series.image()).transpose()?;
        return in_this_process(args, image, args.tree()?, timing, Backend::Kvm);
    }
    if let Some(timing) = &timing {
        note(&timing.line());
    }
    let chosen = args.host.choose()?;
    args.extras.check(chosen)?;
    let tree = args.tree()?;
    let image = (!own_system || chosen == Chosen::Nested).then(|| args.series.image()).transpose()?;
    match (chosen, image) {
        (Chosen::Nested, Some(image)) => {
            args.ports.check_nested()?;
            nested(args, &image, tree.as_ref())
        }
        (_, image) => in_this_process(args, image, tree, timing, args.host.backend(chosen)?),
    }
}

/// Runs the guest with the devices in this process.
fn in_this_process(
    args: &RunArgs,
    image: Option<GuestImage>,
    tree: Option<TreeKernel>,
    timing: Option<NamedTiming>,
    backend: Backend,
) -> Result<u8> {
    let experiment = args.experiment()?;
    let mut spec = Spec { backend, tree, extras: args.extras.extras()?, ..args.spec(image) };
    if let Some(experiment) = &experiment {
        experiment.prepare(&mut spec)?;
        note(&limits(&experiment.scenario));
    }
    spec.sandbox = args.grants(experiment.as_ref())?;
    let (iommu, nic) = devices(args, experiment.as_ref());
    let uplink = args.ports.open_uplink()?;
    let side = uplink.as_ref().map_or(Side::First, |uplink| uplink.side());
    let (nic, more_nics) = args.ports.configs(&nic, side);
    let mut recorded = RecordedRun::new(iommu, nic, timing).with_ports(more_nics, args.ports.cables(uplink)?);
    args.ports.lines().iter().for_each(|line| note(line));
    if args.wants_stages() {
        recorded.request_stages(&mut spec)?;
    }
    let vmlinux = args.kernel_tree.as_ref().map(|folder| folder.join("vmlinux"));
    args.extras.announce(vmlinux.as_deref(), args.nic.fault_timeout(), args.timeout.is_some());
    // Held until the guest has ended, whatever ends it: the terminal is the user's.
    let raw = spec.terminal.filter(|_| !inside()).and_then(|_| RawMode::enter());
    let (verdicts, start) = (args.verdicts.requested().then(Arc::<Verdicts>::default), Instant::now());
    let recorder = args.folder(experiment.as_ref()).map(|_| recorded.record());
    let control = listener(experiment.as_ref(), recorder);
    let finished = recorded.run(&spec, streams(args, control, verdicts.as_ref())?)?;
    drop(raw);
    if args.ports.reports() {
        finished.cables().iter().flat_map(CableCounters::lines).for_each(|line| note(&line));
    }
    let end = write_records(args, finished, experiment.as_ref())?;
    let code = report_end(args, &end);
    if let Some(verdicts) = verdicts {
        print_verdicts(args, &verdicts, &end, (code, start.elapsed()))?;
    }
    Ok(code)
}

/// The devices' configuration: a scenario's, or that of the options.
fn devices(args: &RunArgs, experiment: Option<&GuestExperiment>) -> (IommuConfig, NicConfig) {
    let Some(experiment) = experiment else { return (IommuConfig::default(), args.nic.config()) };
    let scenario = &experiment.scenario;
    let nic = NicConfig { sample_every: args.nic.config().sample_every, ..scenario.nic() };
    (scenario.device.iommu(), nic)
}

/// Handles lines of the control channel: a scenario's program marks its begin and end, and waits until they have been
/// handled; other lines are shown. Those of a program that was started by hand are shown, too, and it waits as well.
fn listener(experiment: Option<&GuestExperiment>, recorder: Option<Arc<Recorder>>) -> ControlListener {
    let names = experiment
        .map(|experiment| (experiment.scenario.name.clone(), experiment.scenario.device.mode.name()));
    let scenario = recorder.zip(names);
    Box::new(move |line| {
        match (line, &scenario) {
            (BEGIN, Some((recorder, (name, mode)))) => recorder.begin(name, mode),
            (END, Some((recorder, _))) => recorder.end(),
            _ => note(&format!("guest: {line}")),
        }
        matches!(line, BEGIN | END)
    })
}

/// Writes the run's folder, if faults were recorded. A scenario whose program failed has no results of its own.
fn write_records(
    args: &RunArgs,
    finished: FinishedRun,
    experiment: Option<&GuestExperiment>,
) -> Result<RunEnd> {
    let (end, records) = finished.take_records()?;
    if let (Some(folder), Some(records)) = (args.folder(experiment), records) {
        match experiment.filter(|_| end.status == Some(0)) {
            Some(experiment) => records.write_experiment(&folder, experiment)?,
            None => records.write(&folder)?,
        }
    }
    Ok(end)
}

/// Reports what went wrong in the guest, and returns the exit status.
fn report_end(args: &RunArgs, end: &RunEnd) -> u8 {
    if let Some(complaint) = end.complaint() {
        note(&complaint);
    }
    if end.status.is_none() && !args.out.is_empty() {
        note("files of --out were not collected: the guest ended before that");
    }
    if !args.fail_on_warn {
        return end.code();
    }
    end.findings.iter().for_each(|line| note(&format!("--fail-on-warn: {line}")));
    end.strict_code()
}

fn print_verdicts(
    args: &RunArgs,
    verdicts: &Verdicts,
    end: &RunEnd,
    (status, took): (u8, Duration),
) -> Result<()> {
    let words: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
    let name = args.scenario.clone().unwrap_or_else(|| words.join(" "));
    let name = if name.is_empty() { "shell" } else { name.lines().next().unwrap_or_default() };
    let cases = verdicts.cases(name, status);
    let leave = |out: &mut dyn Write| args.verdicts.leave(name, &cases, took, &mut { out });
    let mut out = stdout()?;
    if end.stopped.is_none() && end.timeout.is_none() {
        return leave(&mut out);
    }
    // The run is to end, so a reader that stalls must not hold it up.
    let mut outlet = OutputQueue::new(out, |_| {});
    outlet.limit_waits();
    leave(&mut outlet)?;
    outlet.finish();
    Ok(())
}
