//! Options of `refault run`, and the guest they describe.

pub mod device;
mod extras;
pub mod host;
pub mod parse;
pub mod ports;
pub mod series;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::device::NicArgs;
use self::extras::ExtraArgs;
use self::host::HostArgs;
use self::parse::{Add, Out, Pmem, Size};
use self::ports::PortArgs;
use self::series::SeriesArgs;
use super::Spec;
use super::experiment::GuestExperiment;
use super::plan::region;
use super::sandbox::SandboxArgs;
use crate::lab::read_file;
use refault_guest::GuestImage;
use refault_guest::kernel::config::Use;
use refault_guest::kernel_tree::TreeKernel;
use refault_lab::scenario::Scenario;
use refault_machine::config::{CpuModel, PmemConfig};
use refault_observe::report::verdicts::VerdictArgs;
use refault_os::sandbox::Grants;
use refault_os::terminal;

/// Passes the size of our terminal to refault in an emulated machine, as COLUMNSxROWS.
pub(super) const TERMINAL_VARIABLE: &str = "REFAULT_TERMINAL";
/// Where scenarios write their records.
const SCENARIOS: &str = "target/refault";
/// The environment of a command in the guest, besides the user's variables.
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
    pub(super) kernel: Option<PathBuf>,
    /// Kernel that was built in this folder, with its modules and our driver built for it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kernel", "initrd", "kernel_series"])]
    pub(super) kernel_tree: Option<PathBuf>,
    #[command(flatten)]
    pub(super) series: SeriesArgs,
    /// Initramfs that boots by itself, without a COMMAND
    #[arg(long, value_name = "FILE")]
    pub(super) initrd: Option<PathBuf>,
    /// Root file system image: erofs, xfs, ext4 or squashfs; never written to [default: the guest image's]
    #[arg(long, value_name = "FILE")]
    pub(super) rootfs: Option<PathBuf>,
    /// Text to append to the kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    pub(super) append: String,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) cpus: u8,
    /// Memory
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(super) memory: Size,
    /// Persistent memory, /dev/pmem0 and up: FILE, FILE,size=SIZE (made if absent) or size=SIZE (no file)
    #[arg(long, value_name = "SPEC")]
    pub(super) pmem: Vec<Pmem>,
    /// Kernel module to load in the guest, uncompressed
    #[arg(long, value_name = "FILE.ko")]
    pub(super) module: Vec<PathBuf>,
    /// File or folder to copy into the guest
    #[arg(long, value_name = "HOST:GUEST")]
    pub(super) add: Vec<Add>,
    /// File or folder to copy out of the guest when the command has ended
    #[arg(long, value_name = "GUEST:HOST")]
    pub(super) out: Vec<Out>,
    /// Room for the files of --out
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub(super) out_size: Size,
    /// Environment variable for the command
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(super) env: Vec<(String, OsString)>,
    #[command(flatten)]
    pub(super) host: HostArgs,
    #[command(flatten)]
    pub(super) extras: ExtraArgs,
    #[command(flatten)]
    pub(super) sandbox: SandboxArgs,
    /// CPU that the guest sees
    #[arg(long, value_enum, default_value_t)]
    pub(super) cpu_model: CpuModel,
    /// Write the kernel's log here
    #[arg(long, value_name = "FILE")]
    pub(super) serial_log: Option<PathBuf>,
    /// Stop after this time
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    /// Give the command a terminal; a shell (no COMMAND) always gets one
    #[arg(long, short)]
    pub(super) tty: bool,
    /// Show the kernel's whole log
    #[arg(long, short)]
    pub(super) verbose: bool,
    #[command(flatten)]
    pub(super) ports: PortArgs,
    #[command(flatten)]
    pub(super) nic: NicArgs,
    /// Record the device's faults, and write report.html, faults.csv, trace.json and counters.json into this folder
    #[arg(long, value_name = "DIR")]
    pub(super) trace: Option<PathBuf>,
    /// Run a scenario of the lab in place of a COMMAND: a shipped one, or a file
    ///
    /// The scenario configures the NIC, so options of the NIC have no effect. Faults are recorded in
    /// target/refault/scenario-NAME without --trace.
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["command", "initrd"])]
    pub(super) scenario: Option<String>,
    /// Verdicts of the KTAP in the command's output, of storms, of Python's unittest with -v, or else of the command
    #[command(flatten)]
    pub(super) verdicts: VerdictArgs,
    /// Fail, with status 121, if the guest's log has a warning, an oops, a DMAR error, a stall or the like
    #[arg(long)]
    pub(super) fail_on_warn: bool,
    /// Do not trace the guest kernel's part of each fault; tracing costs the guest some time
    #[arg(long)]
    pub(super) no_guest_stages: bool,
    /// What to run in the guest [default: a shell]
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

fn variable(text: &str) -> Result<(String, OsString), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_string(), value.into()))
}

/// Before a command that waits for another machine.
const WAIT: [&str; 4] = ["/bin/sh", "-c", "refault-net wait && exec \"$@\"", "sh"];
/// The command by default: a shell with history and completion, if the system has one.
const SHELL: [&str; 3] = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"];

impl RunArgs {
    /// The user's own kernel, prepared for these options.
    pub(super) fn tree(&self) -> Result<Option<TreeKernel>> {
        let mut uses = vec![Use::Boot];
        uses.extend(self.extras.uses());
        uses.extend(self.wants_stages().then_some(Use::Trace));
        self.kernel_tree.as_ref().map(|folder| TreeKernel::ensure(folder, &uses)).transpose()
    }

    /// Whether the guest traces its part of the faults, which needs refault's own init.
    pub(super) fn wants_stages(&self) -> bool {
        (self.trace.is_some() || self.scenario.is_some()) && !self.no_guest_stages && self.initrd.is_none()
    }

    /// The scenario, if one is given.
    pub(super) fn experiment(&self) -> Result<Option<GuestExperiment>> {
        let Some(name) = &self.scenario else { return Ok(None) };
        Ok(Some(GuestExperiment::new(Scenario::open(name, &read_file)?, self.memory.0)?))
    }

    /// Checks the NICs, and what else is asked of them.
    ///
    /// # Errors
    /// As [`PortArgs::check`], or there are several for a scenario or for records.
    pub(super) fn check_ports(&self) -> Result<()> {
        self.ports.check()?;
        ensure!(
            self.scenario.is_none() || !self.ports.is_given(),
            "--scenario configures the NIC: leave out --nic"
        );
        ensure!(
            self.trace.is_none() || !self.ports.are_several(),
            "--trace records the faults of a single NIC: give --nic once"
        );
        Ok(())
    }

    /// Where to write records, if faults are recorded.
    pub(super) fn folder(&self, experiment: Option<&GuestExperiment>) -> Option<PathBuf> {
        let named = |experiment: &GuestExperiment| {
            Path::new(SCENARIOS).join(format!("scenario-{}", experiment.scenario.name))
        };
        self.trace.clone().or_else(|| experiment.map(named))
    }

    /// The files that are written at the end; `None` without a sandbox.
    pub(super) fn grants(&self, experiment: Option<&GuestExperiment>) -> Result<Option<Grants>> {
        let Some(mut grants) = self.sandbox.grants() else { return Ok(None) };
        if let Some(folder) = self.folder(experiment) {
            let made = grants.write_folder(&folder);
            made.with_context(|| format!("cannot make folder {}", folder.display()))?;
        }
        self.verdicts.junit.iter().for_each(|file| grants.write(file));
        Ok(Some(grants))
    }

    pub(super) fn spec(&self, image: Option<GuestImage>) -> Spec {
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
        let waits = self.ports.waits_for_uplink() && self.initrd.is_none();
        let command = if waits { WAIT.iter().map(OsString::from).chain(command).collect() } else { command };
        Spec {
            image,
            kernel: self.kernel.clone(),
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
            ethernet: self.ports.has_ethernet(),
            ..Spec::default()
        }
    }

    /// Columns and rows of the command's terminal, if it gets one: ours, or the one passed to an emulated machine.
    pub(super) fn terminal(&self) -> Option<(u16, u16)> {
        if !self.tty && (!self.command.is_empty() || self.scenario.is_some()) {
            return None;
        }
        let passed = std::env::var(TERMINAL_VARIABLE).ok();
        let passed = passed.as_deref().and_then(|text| text.split_once('x'));
        match passed {
            Some((columns, rows)) => Some((columns.parse().ok()?, rows.parse().ok()?)),
            None if std::io::stdin().is_terminal() => Some(terminal::size().unwrap_or((80, 25))),
            None => None,
        }
    }

    /// Persistent memory backed by files.
    pub(super) fn pmem_files(&self) -> Result<Vec<PmemConfig>> {
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
    fn everything_after_two_dashes_is_the_command() {
        let args = parse(&["--cpus", "2", "--memory", "512M", "--", "ls", "--cpus", "-l"]).expect("valid");
        let spec = args.spec(None);
        assert_eq!((spec.cpus, spec.memory), (2, 512 << 20));
        assert_eq!(spec.command, ["ls", "--cpus", "-l"]);
        assert_eq!(spec.terminal, None);
    }

    #[test]
    fn the_default_command_is_a_shell() {
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
    fn records_and_scenarios_are_of_one_nic() {
        let check = |line: &[&str]| parse(line).expect("valid apart").check_ports();
        check(&["--trace", "x", "--nic", "roce"]).expect("one");
        for line in
            [&["--trace", "x", "--nic", "ib", "--nic", "ib"][..], &["--scenario", "cold-4k", "--nic", "roce"]]
        {
            assert!(check(line).expect_err("several").to_string().contains("--nic"), "{line:?}");
        }
    }

    #[test]
    fn mistakes_in_a_scenario_are_reported_before_anything_starts() {
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
