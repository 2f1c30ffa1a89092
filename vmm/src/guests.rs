//! The commands that boot guests, or prepare to.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Subcommand;
use refault_guest::build::Build;
use refault_guest::image::{GuestImage, clean};
use refault_guest::kernel::kernel;
use refault_hosts::nested::{Nested, serve_agent};
use refault_hosts::qemu::Emulator;
use refault_os::bug::{FAILED, exit_on_panic};

use crate::demo::options::DemoArgs;
use crate::demo::session;
use crate::doctor::doctor;
use crate::pair::{self, PairArgs};
use crate::run::options::series::SeriesArgs;
use crate::run::{self, RunArgs};
use crate::serve::{self, ServeArgs};

/// One of the commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boots a guest; runs a command in it, if one is given, and exits with its status
    ///
    /// Exit status: the command's own; 121 if --fail-on-warn found something, 122 if the guest crashed or hung after the
    /// command's end, 123 if it ended without an exit status (crashed, powered off, halted), 124 if --timeout expired, 125 if
    /// refault itself failed.
    Run(Box<RunArgs>),
    /// Boots a guest whose filesystem moves the blocks of a file under DMA, and checks every byte
    ///
    /// Exit status: 0 if every scenario passed and the guest's log is clean, 1 if something failed, 3 if no real guest could
    /// be set up and the scenarios passed on the model guest instead, 4 if nothing failed but some scenarios were too slow on
    /// this machine to prove anything, 125 if refault itself failed.
    Demo(Box<DemoArgs>),
    /// Boots two guests whose NICs are on one wire, and shows what both say; exits with the client's status
    ///
    /// refault pair [RUN ARGUMENTS] -- SERVER and [RUN ARGUMENTS] -- CLIENT. The server is 10.77.0.1, the client
    /// 10.77.0.101; each command starts when both are there. When the client has ended, the server has ten seconds.
    Pair(PairArgs),
    /// Serves the NIC and the IOMMU over vfio-user to a QEMU of your own, until stopped
    Serve(Box<ServeArgs>),
    /// Runs the QEMU that refault uses, with your arguments
    Qemu {
        /// QEMU's arguments
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Builds, finds or removes the guest image
    #[command(subcommand)]
    Guest(GuestCommand),
    /// Shows what this machine can do, what would be used, and what is missing
    #[command(display_order = 900)]
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
pub(crate) enum GuestCommand {
    /// Builds the image if any of its inputs has changed, and prints its folder
    Build {
        /// Check the archive for a newer kernel, and for a newer QEMU if one is needed
        #[arg(long)]
        update: bool,
        #[command(flatten)]
        series: SeriesArgs,
    },
    /// Prints the image's folder, after building the image if necessary
    Path {
        #[command(flatten)]
        series: SeriesArgs,
    },
    /// Removes everything that builds left in the cache
    Clean,
}

/// Runs the command and returns the exit status.
///
/// # Errors
/// An argument is wrong, or refault itself failed; the error says what to do.
pub(crate) fn execute(command: Command) -> Result<u8> {
    if matches!(command, Command::Run(_) | Command::Demo(_) | Command::Serve(_)) {
        exit_on_panic();
    }
    match command {
        Command::Run(args) => run::execute(&args),
        Command::Pair(_) => pair::execute(),
        Command::Demo(args) => session::execute(&args),
        Command::Guest(command) => guest(command),
        Command::Doctor => doctor(),
        Command::Qemu { arguments } => {
            // Returns only if QEMU cannot be started.
            let error = Emulator::find(None)?.command().args(arguments).exec();
            Err(error).context("cannot start QEMU")
        }
        Command::Serve(args) => serve::execute(&args),
        Command::Agent => serve_agent().map(|()| 0),
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

/// The low byte of a status, which is what the shell sees.
fn status_byte(status: i32) -> u8 {
    status.to_le_bytes().first().copied().unwrap_or(FAILED)
}
