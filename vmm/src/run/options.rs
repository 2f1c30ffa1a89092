//! `refault run`: options, the choice of where it runs, and the user's own streams.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use refault_bus::probe::{NoProbe, Probe};
use refault_nic::NicConfig;

use super::device::NicArgs;
use super::experiment::{BEGIN, END, Experiment, limits};
use super::extras::ExtraArgs;
use super::leave::Seen;
use super::parse::{Add, Out, Pmem, Size};
use super::place::HostArgs;
use super::plan::region;
use super::series::SeriesArgs;
use super::stages::Stages;
use super::verdicts::Verdicts;
use super::{FAILED, Place, Spec, Streams, TIMED_OUT, run};
use crate::devices;
use crate::lab::read_file;
use refault_guest::kernel::config::Use;
use refault_guest::kernel_tree::{TREE_VARIABLE, TreeKernel};
use refault_guest::relay::Escape;
use refault_guest::{GuestImage, IMAGE_VARIABLE};
use refault_hosts::choice::Chosen;
use refault_hosts::nested::{Nested, inside, terminal_sizes};
use refault_hosts::qemu::Extras;
use refault_lab::scenario::Scenario;
use refault_machine::config::{CpuModel, PmemConfig};
use refault_machine::memory::pmem;
use refault_observe::report::verdicts::VerdictArgs;
use refault_observe::trace::Recorder;
use refault_os::message::note;
use refault_os::output_queue::OutputQueue;
use refault_os::stop::{self, GracefulStop};
use refault_os::terminal::{self, Keys, RawMode};
use refault_rig::clock::WallClock;
use refault_rig::delays::NamedTiming;
use refault_rig::wiring::DeviceOptions;

/// Tells the program inside an emulated machine that our standard streams are a terminal of this size.
const TERMINAL_VARIABLE: &str = "REFAULT_TERMINAL";
/// Where scenarios leave their records.
const SCENARIOS: &str = "target/refault";
/// The environment of a command in the guest, besides what the user gives.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
];

/// Options of `refault run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Kernel: a bzImage or an ELF vmlinux [default: the guest image's]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Kernel that was built in this folder, with its modules and our driver built for it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kernel", "initrd", "kernel_series"])]
    kernel_tree: Option<PathBuf>,
    #[command(flatten)]
    series: SeriesArgs,
    /// Initramfs that boots by itself; no COMMAND is possible then
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Root file system image: erofs, xfs, ext4 or squashfs; never written to [default: the guest image's]
    #[arg(long, value_name = "FILE")]
    rootfs: Option<PathBuf>,
    /// More for the kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u8,
    /// Memory
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    memory: Size,
    /// Persistent memory, /dev/pmem0 and up: FILE, FILE,size=SIZE (made if absent) or size=SIZE (no file)
    #[arg(long, value_name = "SPEC")]
    pmem: Vec<Pmem>,
    /// Kernel module to load in the guest, uncompressed
    #[arg(long, value_name = "FILE.ko")]
    module: Vec<PathBuf>,
    /// File or folder for the guest
    #[arg(long, value_name = "HOST:GUEST")]
    add: Vec<Add>,
    /// File or folder from the guest, when the command has ended
    #[arg(long, value_name = "GUEST:HOST")]
    out: Vec<Out>,
    /// Room for those
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    out_size: Size,
    /// Environment variable for the command
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, OsString)>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    extras: ExtraArgs,
    /// CPU that the guest sees
    #[arg(long, value_enum, default_value_t)]
    cpu_model: CpuModel,
    /// Write the kernel's log here
    #[arg(long, value_name = "FILE")]
    serial_log: Option<PathBuf>,
    /// Stop after this time
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Give the command a terminal even so; without a COMMAND the shell gets one anyway
    #[arg(long, short)]
    tty: bool,
    /// Show the kernel's log, all of it
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    nic: NicArgs,
    /// Record the device's faults: report.html, faults.csv, trace.json and counters.json go into this folder
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    /// Do what a scenario of the lab says, in place of a COMMAND: one that is shipped, or a file
    ///
    /// The scenario makes the NIC, so that options of the NIC do not count. Faults are recorded, into
    /// target/refault/scenario-NAME if there is no --trace.
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["command", "initrd"])]
    scenario: Option<String>,
    /// Of the KTAP in the command's output, of storms, of Python's unittest with -v, or else of the command as one test
    #[command(flatten)]
    verdicts: VerdictArgs,
    /// Fail, with status 121, if the guest's log has a warning, an oops, a DMAR error, a stall or their like
    #[arg(long)]
    fail_on_warn: bool,
    /// Do not have the guest's kernel trace its part of the faults, which costs it some time for each
    #[arg(long)]
    no_guest_stages: bool,
    /// What to run in the guest [default: a shell]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn variable(text: &str) -> Result<(String, OsString), String> {
    let (name, value) = text.split_once('=').ok_or("want NAME=VALUE")?;
    Ok((name.to_string(), value.into()))
}

/// What runs if there is no command: a shell with history and completion, if the system has it.
const SHELL: [&str; 3] = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"];

/// Does it, and returns the exit status for the shell.
///
/// # Errors
/// refault itself failed; the exit status is then 125.
pub fn execute(args: &RunArgs) -> Result<u8> {
    if !inside() {
        args.verdicts.check()?;
    }
    if args.verdicts.wanted() {
        ensure!(
            args.initrd.is_none(),
            "--junit, --ktap: with --initrd there is no command whose tests count"
        );
        ensure!(!args.verdicts.ktap || !args.tty, "--ktap: not with --tty, which mixes output with input");
    }
    let whole = args.kernel.is_some() && args.initrd.is_some();
    let timing = args.nic.timing()?;
    if inside() {
        let image = (!whole).then(|| args.series.image()).transpose()?;
        return here(args, image, args.tree()?, timing, Place::Kvm);
    }
    if let Some(timing) = &timing {
        note(&timing.line());
    }
    let chosen = args.host.choose()?;
    args.extras.check(chosen)?;
    let tree = args.tree()?;
    let image = (!whole || chosen == Chosen::Nested).then(|| args.series.image()).transpose()?;
    match (chosen, image) {
        (Chosen::Nested, Some(image)) => nested(args, &image, tree.as_ref()),
        (_, image) => here(args, image, tree, timing, args.host.place(chosen)?),
    }
}

/// In a machine whose devices are in this process.
fn here(
    args: &RunArgs,
    image: Option<GuestImage>,
    tree: Option<TreeKernel>,
    timing: Option<NamedTiming>,
    place: Place,
) -> Result<u8> {
    let experiment = args.experiment()?;
    let mut spec = Spec { place, tree, extras: args.extras.extras()?, ..args.spec(image) };
    if let Some(experiment) = &experiment {
        experiment.prepare(&mut spec)?;
        note(&limits(&experiment.scenario));
    }
    let folder = args.folder(experiment.as_ref());
    let stages = args.wants_stages().then(|| Stages::ask(&mut spec)).transpose()?;
    let vmlinux = args.kernel_tree.as_ref().map(|folder| folder.join("vmlinux"));
    args.extras.announce(vmlinux.as_deref(), args.nic.fault_timeout(), args.timeout.is_some());
    // Until the end, whatever that is: the terminal is the user's.
    let _raw = spec.terminal.filter(|_| !inside()).and_then(|_| RawMode::enter());
    let mut wired = None;
    let (verdicts, start) = (args.verdicts(), Instant::now());
    let clock = Arc::new(WallClock::new());
    let recorder = folder.as_ref().map(|_| Recorder::new(clock.clone(), Recorder::DEFAULT_BOUND));
    let control = listener(experiment.as_ref(), recorder.as_ref());
    let end = run(&spec, args.streams(control, verdicts.as_ref())?, |parts| {
        let probe: Arc<dyn Probe> = match &recorder {
            Some(recorder) => recorder.clone(),
            None => Arc::new(NoProbe),
        };
        let nic = match &experiment {
            Some(experiment) => {
                NicConfig { sample_every: args.nic.config().sample_every, ..experiment.scenario.device.nic() }
            }
            None => args.nic.config(),
        };
        let iommu =
            experiment.as_ref().map(|experiment| experiment.scenario.device.iommu()).unwrap_or_default();
        let timing = timing.as_ref().map(|named| named.timing.clone());
        let options = DeviceOptions { iommu, nic, clock, probe, timing, ..DeviceOptions::default() };
        let (devices, keep) = devices::build(parts, options)?;
        wired = Some(keep);
        Ok(devices)
    })?;
    drop(_raw);
    if let (Some(folder), Some(recorder), Some(wired)) = (&folder, &recorder, &wired) {
        let seen = Seen::of(wired, recorder, stages.as_ref(), timing, spec.place.time())?;
        match experiment.filter(|_| end.status == Some(0)) {
            Some(experiment) => seen.leave_experiment(folder, &experiment)?,
            None => seen.leave(folder)?,
        }
    }
    if let Some(complaint) = end.complaint() {
        note(&complaint);
    }
    if end.status.is_none() && !args.out.is_empty() {
        note("files of --out stayed in the guest, which did not come to collect them");
    }
    let code = if args.fail_on_warn { end.strict_code() } else { end.code() };
    if args.fail_on_warn {
        end.findings.iter().for_each(|line| note(&format!("--fail-on-warn: {line}")));
    }
    if let Some(verdicts) = verdicts {
        let mut out = stdout()?;
        if end.stopped.is_some() || end.timeout.is_some() {
            // Whoever does not read must not keep us.
            let mut outlet = OutputQueue::new(out, |_| {});
            outlet.limit_waits();
            args.conclude(&verdicts, code, start.elapsed(), &mut outlet)?;
            outlet.finish();
        } else {
            args.conclude(&verdicts, code, start.elapsed(), &mut out)?;
        }
    }
    Ok(code)
}

/// Sizes that the command's terminal changes to.
fn size_changes(known: (u16, u16)) -> std::io::Result<Receiver<(u16, u16)>> {
    if inside() { terminal_sizes() } else { terminal::sizes(known) }
}

/// Standard output without a buffer of ours.
fn stdout() -> Result<File> {
    let ours = std::io::stdout().as_fd().try_clone_to_owned();
    Ok(File::from(ours.context("cannot use standard output")?))
}

/// What happens to lines on the control channel.
fn listener(
    experiment: Option<&Experiment>,
    recorder: Option<&Arc<Recorder>>,
) -> Box<dyn FnMut(&str) + Send> {
    let tell = |line: &str| note(&format!("guest: {line}"));
    let (Some(experiment), Some(recorder)) = (experiment, recorder.cloned()) else { return Box::new(tell) };
    let (name, mode) = (experiment.scenario.name.clone(), experiment.scenario.device.mode.name());
    Box::new(move |line| match line {
        BEGIN => recorder.begin(&name, mode),
        END => recorder.end(),
        other => tell(other),
    })
}

/// One level down. The arguments are our own, and say the same there.
fn nested(args: &RunArgs, image: &GuestImage, tree: Option<&TreeKernel>) -> Result<u8> {
    let anonymous: u64 =
        args.pmem.iter().filter(|pmem| pmem.file.is_none()).filter_map(|pmem| pmem.size).sum();
    let out = if args.out.is_empty() { 0 } else { args.out_size.0 };
    let arguments = std::env::args_os().skip(1).collect();
    let told = if args.wants_stages() { Stages::bytes(args.memory.0) } else { 0 };
    // What is wrong with a scenario is told before the machine starts.
    let results = args.experiment()?.map_or(0, |experiment| experiment.bytes());
    let memory =
        [anonymous, out, told, results].iter().fold(args.memory.0, |sum, more| sum.saturating_add(*more));
    let mut nested = Nested::of_ourselves(image.kernel(), image.outer_initramfs(), memory, arguments)?;
    nested.environment.push((IMAGE_VARIABLE.into(), image.folder().into()));
    if let Some(tree) = tree {
        nested.environment.push((TREE_VARIABLE.into(), tree.folder().into()));
    }
    let size = args.terminal();
    if let Some((columns, rows)) = size {
        nested.environment.push((TERMINAL_VARIABLE.into(), format!("{columns}x{rows}").into()));
    }
    nested.lent = args.pmem_files()?;
    let locks = nested.lent.iter().map(pmem::open).collect::<Result<Vec<_>, _>>()?;
    let _orderly = GracefulStop::begin(|stop| stop::exit(stop)).context("cannot hold signals back")?;
    nested.escape = size.is_some();
    nested.sizes = size.map(terminal::sizes).transpose().context("cannot watch the terminal")?;
    let raw = size.and_then(|_| RawMode::enter());
    let lent = nested.lent.clone();
    let status = nested.run(args.timeout.map(Duration::from_secs));
    drop((raw, locks));
    let status = status.map_err(|error| match pmem::lost(&lent) {
        Some(why) => error.context(why),
        None => error,
    });
    match status? {
        Some(status) => Ok(status.to_le_bytes().first().copied().unwrap_or(FAILED)),
        None => {
            note("the emulated machine was stopped, or its output not read (--timeout)");
            Ok(TIMED_OUT)
        }
    }
}

impl RunArgs {
    /// The user's own kernel, made ready.
    fn tree(&self) -> Result<Option<TreeKernel>> {
        let mut uses = vec![Use::Boot];
        uses.extend(self.extras.uses());
        uses.extend(self.wants_stages().then_some(Use::Trace));
        self.kernel_tree.as_ref().map(|folder| TreeKernel::ensure(folder, &uses)).transpose()
    }

    /// Whether the guest is to tell its part of the faults: by our own init.
    fn wants_stages(&self) -> bool {
        (self.trace.is_some() || self.scenario.is_some()) && !self.no_guest_stages && self.initrd.is_none()
    }

    /// The scenario, if there is one.
    fn experiment(&self) -> Result<Option<Experiment>> {
        let Some(name) = &self.scenario else { return Ok(None) };
        Ok(Some(Experiment::new(Scenario::open(name, &read_file)?, self.memory.0)?))
    }

    /// Where records go, if they are wanted.
    fn folder(&self, experiment: Option<&Experiment>) -> Option<PathBuf> {
        let named = |experiment: &Experiment| {
            Path::new(SCENARIOS).join(format!("scenario-{}", experiment.scenario.name))
        };
        self.trace.clone().or_else(|| experiment.map(named))
    }

    fn spec(&self, image: Option<GuestImage>) -> Spec {
        let mut environment: Vec<_> =
            ENVIRONMENT.iter().map(|(name, value)| ((*name).to_string(), OsString::from(value))).collect();
        let terminal = self.terminal();
        if let Some(term) = std::env::var_os("TERM").filter(|_| terminal.is_some()) {
            environment.push(("TERM".into(), term));
        }
        environment.extend(self.env.iter().cloned());
        let shell = || SHELL.map(OsString::from).to_vec();
        let command =
            if self.command.is_empty() && self.initrd.is_none() { shell() } else { self.command.clone() };
        Spec {
            place: Place::default(),
            image,
            kernel: self.kernel.clone(),
            tree: None,
            extras: Extras::default(),
            initrd: self.initrd.clone(),
            rootfs: self.rootfs.clone(),
            append: self.append.clone(),
            cpus: self.cpus,
            memory: self.memory.0,
            cpu_model: self.cpu_model,
            pmem: self.pmem.clone(),
            modules: self.module.clone(),
            add: self.add.clone(),
            out: self.out.clone(),
            out_size: self.out_size.0,
            command,
            shell: self.command.is_empty(),
            environment,
            terminal: terminal.filter(|_| self.initrd.is_none()),
            timeout: self.timeout.map(Duration::from_secs),
            verbose: self.verbose,
            trace_kib: None,
        }
    }

    /// Where verdicts are collected, if they are wanted.
    fn verdicts(&self) -> Option<Arc<Verdicts>> {
        self.verdicts.wanted().then(Arc::default)
    }

    /// Leaves the verdicts as it was asked for.
    fn conclude(&self, verdicts: &Verdicts, status: u8, took: Duration, out: &mut impl Write) -> Result<()> {
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        let name = self.scenario.clone().unwrap_or_else(|| words.join(" "));
        let name = if name.is_empty() { "shell" } else { name.lines().next().unwrap_or_default() };
        self.verdicts.leave(name, &verdicts.cases(name, status), took, out)
    }

    fn streams(
        &self,
        control: Box<dyn FnMut(&str) + Send>,
        verdicts: Option<&Arc<Verdicts>>,
    ) -> Result<Streams> {
        let (keys, terminal) = (Keys::new().context("cannot use standard input")?, self.terminal());
        let output: Box<dyn Write + Send> = Box::new(stdout()?);
        let mut log: Vec<Box<dyn Write + Send>> = Vec::new();
        if let Some(path) = &self.serial_log {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            log.push(Box::new(file));
        }
        if self.verbose && self.initrd.is_none() {
            log.push(Box::new(std::io::stderr()));
        }
        Ok(Streams {
            input: Some(match terminal {
                Some(_) if !inside() => Box::new(Escape::new(keys, stop::terminate)),
                _ => Box::new(keys),
            }),
            sizes: terminal.map(size_changes).transpose().context("cannot watch the terminal")?,
            output: match verdicts {
                Some(verdicts) => verdicts.watch(output, self.verdicts.ktap),
                None => output,
            },
            errors: match verdicts {
                // Python's unittest writes there.
                Some(verdicts) => verdicts.watch(Box::new(std::io::stderr()), false),
                None => Box::new(std::io::stderr()),
            },
            log,
            control,
        })
    }

    /// The size of the command's terminal, if it gets one: of ours, or of the one an emulated machine was told of.
    fn terminal(&self) -> Option<(u16, u16)> {
        if !self.tty && (!self.command.is_empty() || self.scenario.is_some()) {
            return None;
        }
        let told = std::env::var(TERMINAL_VARIABLE).ok();
        let told = told.as_deref().and_then(|text| text.split_once('x'));
        match told {
            Some((columns, rows)) => Some((columns.parse().ok()?, rows.parse().ok()?)),
            None if std::io::stdin().is_terminal() => Some(terminal::size().unwrap_or((80, 25))),
            None => None,
        }
    }

    /// Persistent memory that is in files.
    fn pmem_files(&self) -> Result<Vec<PmemConfig>> {
        self.pmem.iter().filter(|pmem| pmem.file.is_some()).map(region).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(line: &[&str]) -> Result<RunArgs, clap::Error> {
        Line::try_parse_from([&["run"], line].concat()).map(|line| line.run)
    }

    #[test]
    fn everything_behind_two_dashes_is_the_command() {
        let args = parse(&["--cpus", "2", "--memory", "512M", "--", "ls", "--cpus", "-l"]).expect("valid");
        let spec = args.spec(None);
        assert_eq!((spec.cpus, spec.memory), (2, 512 << 20));
        assert_eq!(spec.command, ["ls", "--cpus", "-l"]);
        assert_eq!(spec.terminal, None);
    }

    #[test]
    fn without_a_command_there_is_a_shell() {
        assert_eq!(parse(&[]).expect("valid").spec(None).command, SHELL);
        assert!(parse(&["--initrd", "x"]).expect("valid").spec(None).command.is_empty());
    }

    #[test]
    fn wrong_options_are_refused() {
        for line in [&["--no-such"][..], &["ls"], &["--cpus", "many"], &["--add", "x"], &["--env", "x"]] {
            assert_eq!(parse(line).expect_err("wrong").exit_code(), 2, "{line:?}");
        }
        let scenario = ["--scenario", "cold-4k"];
        for line in [["--", "ls"], ["--initrd", "x"]] {
            assert_eq!(parse(&[scenario, line].concat()).expect_err("wrong").exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_scenario_is_told_before_anything_starts() {
        let experiment = |line: &[&str]| parse(line).expect("valid").experiment();
        assert!(experiment(&[]).expect("none is fine").is_none());
        assert!(experiment(&["--scenario", "cold-4k"]).expect("shipped").is_some());
        for (line, named) in [
            (&["--scenario", "no-such"][..], "no-such"),
            (&["--scenario", "cold-4k", "--memory", "64M"], "--memory"),
        ] {
            let error = experiment(line).expect_err("wrong").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
