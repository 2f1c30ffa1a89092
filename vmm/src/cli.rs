//! The command line: parses it and dispatches to the modules of the commands.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use refault_observe::report;
use refault_os::bug::FAILED;
use refault_os::message::{Stderr, note};
use refault_os::sandbox::hint;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

#[cfg(feature = "guests")]
use crate::guests;
use crate::lab;
use crate::lab::cli::LabCommand;

#[derive(Debug, Parser)]
#[command(name = "refault", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "guests")]
    #[command(flatten)]
    Guests(guests::Command),
    /// Regenerates a run's report.html from its records, or makes one page that compares several runs; prints its path
    Report {
        /// The folder of the run, such as target/refault/latest; with more, the first is what the others are compared
        /// with
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Where to write the comparison
        #[arg(long, value_name = "FILE", default_value = "comparison.html")]
        out: PathBuf,
    },
    /// Experiments with the NIC, the IOMMU and a model guest on a virtual clock
    #[command(subcommand)]
    Lab(LabCommand),
}

/// Parses the command line, runs the command and returns its exit status.
pub fn main() -> ExitCode {
    start_log();
    match dispatch(Cli::parse().command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            note(&format!("{error:#}"));
            if let Some(hint) = hint(&error) {
                note(hint);
            }
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: Command) -> Result<u8> {
    match command {
        #[cfg(feature = "guests")]
        Command::Guests(command) => guests::execute(command),
        Command::Report { runs, out } => {
            let page = match &runs[..] {
                [run] => report::regenerate(run)?,
                runs => report::compare(runs, &out)?,
            };
            println!("{}", page.display());
            Ok(0)
        }
        Command::Lab(command) => lab::cli::execute(&command),
    }
}

/// Logs warnings to standard error, or what `RUST_LOG` selects.
fn start_log() {
    let requested = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = match requested.as_deref().map(str::parse::<Targets>) {
        Some(Ok(targets)) => targets,
        Some(Err(error)) => {
            note(&format!("RUST_LOG is not valid: {error}; write it like refault_nic=debug,warn"));
            Targets::new().with_default(LevelFilter::WARN)
        }
        None => Targets::new().with_default(LevelFilter::WARN),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Stderr).with_ansi(false);
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
