//! The command line. Every command is a thin call of what does the work.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::accel::{Nested, serve_nested};
use crate::demo::options::DemoArgs;
use crate::demo::session;
use crate::doctor::doctor;
use crate::guest::build::Build;
use crate::guest::image::{GuestImage, clean};
use crate::guest::kernel::kernel;
use crate::host::bug::panics_end_us;
use crate::host::say::{Messages, note};
use crate::lab::{self, cli::LabCommand};
use crate::qemu::Emulator;
use crate::report;
use crate::run::series::SeriesArgs;
use crate::run::{FAILED, RunArgs, execute};
use crate::serve::{self, cli::ServeArgs};

#[derive(Debug, Parser)]
#[command(name = "refault", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boots a guest; runs a command in it, if one is given, and exits with its status
    ///
    /// Exit status: the command's own; 121 if --fail-on-warn found something, 122 if the guest crashed or hung after the
    /// command's end, 123 if it ended without an exit status (crashed, powered off, halted), 124 if the time was up, 125 if
    /// refault itself failed.
    Run(Box<RunArgs>),
    /// Boots a guest whose file system moves the blocks of a file under DMA, and checks every byte
    ///
    /// Exit status: 0 if every scenario passed and the guest's log is clean, 1 if something failed, 3 if no real guest could
    /// be set up and the scenarios passed on the model guest instead, 4 if nothing failed but some scenarios were too slow on
    /// this machine to prove something, 125 if refault itself failed.
    Demo(Box<DemoArgs>),
    /// Serves the NIC and the IOMMU to a QEMU of your own, by vfio-user, until it is stopped
    Serve(Box<ServeArgs>),
    /// Runs the QEMU that refault uses, with your arguments
    Qemu {
        /// QEMU's arguments
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Makes, finds or removes the guest image
    #[command(subcommand)]
    Guest(GuestCommand),
    /// Makes a run's report.html again from its records, or one page that compares several runs, and prints its path
    Report {
        /// The folder of the run, such as target/refault/latest; with more, the first is what the others are compared
        /// with
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Where the comparison goes
        #[arg(long, value_name = "FILE", default_value = "comparison.html")]
        out: PathBuf,
    },
    /// Experiments with the NIC, the IOMMU and a model guest on a virtual clock
    #[command(subcommand)]
    Lab(LabCommand),
    /// Tells what this machine can do, what would be used, and what is missing
    Doctor,
    /// Inside an emulated machine: serves one command to the host
    #[command(hide = true)]
    Agent,
    /// Runs a host program inside an emulated machine that has KVM
    #[command(hide = true)]
    Outer {
        /// Memory of the machine in MiB
        #[arg(long, default_value_t = 2048)]
        memory: u64,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum GuestCommand {
    /// Builds the image if anything it is made of has changed, and prints its folder
    Build {
        /// Ask the archive for a newer kernel, and for a newer QEMU when one is needed
        #[arg(long)]
        update: bool,
        #[command(flatten)]
        series: SeriesArgs,
    },
    /// Prints the image's folder, building it first if need be
    Path {
        #[command(flatten)]
        series: SeriesArgs,
    },
    /// Removes everything that building kept
    Clean,
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    start_log();
    match dispatch(Cli::parse().command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            note(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: Command) -> Result<u8> {
    if matches!(command, Command::Run(_) | Command::Demo(_) | Command::Serve(_)) {
        panics_end_us();
    }
    match command {
        Command::Run(args) => execute(&args),
        Command::Demo(args) => session::execute(&args),
        Command::Guest(command) => guest(command),
        Command::Report { runs, out } => {
            let page = match &runs[..] {
                [run] => report::regenerate(run)?,
                runs => report::compare(runs, &out)?,
            };
            println!("{}", page.display());
            Ok(0)
        }
        Command::Lab(command) => lab::cli::execute(&command),
        Command::Doctor => doctor(),
        Command::Qemu { arguments } => {
            // Returns only if QEMU cannot be started.
            let error = Emulator::find(None)?.command().args(arguments).exec();
            Err(error).context("cannot start QEMU")
        }
        Command::Serve(args) => serve::cli::execute(&args),
        Command::Agent => serve_nested().map(|()| 0),
        Command::Outer { memory, program } => {
            let kernel = kernel(&Build::begin()?, None, false)?;
            let mut nested =
                Nested::of_ourselves(kernel.elf(), kernel.outer_initramfs(), memory << 20, Vec::new())?;
            nested.command = program;
            Ok(nested.run(None)?.map_or(FAILED, status_byte))
        }
    }
}

fn guest(command: GuestCommand) -> Result<u8> {
    let (series, update) = match command {
        GuestCommand::Build { series, update } => (series, update),
        GuestCommand::Path { series } => (series, false),
        GuestCommand::Clean => {
            println!("removed {} MB", clean()? >> 20);
            return Ok(0);
        }
    };
    if update {
        Emulator::forget()?;
    }
    println!("{}", GuestImage::ensure(series.series(), update)?.folder().display());
    Ok(0)
}

/// A status as the shell sees it.
fn status_byte(status: i32) -> u8 {
    status.to_le_bytes().first().copied().unwrap_or(FAILED)
}

/// Logs go to standard error: warnings, or what `RUST_LOG` asks for.
fn start_log() {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = match asked.as_deref().map(str::parse::<Targets>) {
        Some(Ok(targets)) => targets,
        Some(Err(error)) => {
            note(&format!("RUST_LOG is not understood: {error}; write as refault_nic=debug,warn"));
            Targets::new().with_default(LevelFilter::WARN)
        }
        None => Targets::new().with_default(LevelFilter::WARN),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Messages).with_ansi(false);
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
