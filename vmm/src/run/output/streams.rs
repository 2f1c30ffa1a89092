//! The user's own streams, as those of a guest's command.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use anyhow::{Context, Result};

use super::Verdicts;
use crate::run::options::RunArgs;
use crate::run::{ControlListener, SizeChanges, Streams};
use refault_guest::relay::Escape;
use refault_hosts::nested::{inside, terminal_sizes};
use refault_os::stop;
use refault_os::terminal::{self, Keys};

/// The streams of a run with these options. Lines of the control channel go to `control`.
///
/// # Errors
/// A stream or the terminal cannot be used, or the file of --serial-log cannot be written.
pub(crate) fn streams(
    args: &RunArgs,
    control: ControlListener,
    verdicts: Option<&Arc<Verdicts>>,
) -> Result<Streams> {
    let (keys, terminal) = (Keys::new().context("cannot use standard input")?, args.terminal());
    let output: Box<dyn Write + Send> = Box::new(stdout()?);
    Ok(Streams {
        input: Some(match terminal {
            Some(_) if !inside() => Box::new(Escape::new(keys, stop::terminate)),
            _ => Box::new(keys),
        }),
        sizes: terminal.map(|known| Box::new(move || size_changes(known)) as SizeChanges),
        output: match verdicts {
            Some(verdicts) => verdicts.watch(output, args.verdicts.ktap),
            None => output,
        },
        errors: match verdicts {
            // Python's unittest writes its verdicts there.
            Some(verdicts) => verdicts.watch(Box::new(std::io::stderr()), false),
            None => Box::new(std::io::stderr()),
        },
        log: kernel_log(args)?,
        control,
    })
}

/// Where the kernel's log goes.
fn kernel_log(args: &RunArgs) -> Result<Vec<Box<dyn Write + Send>>> {
    let mut log: Vec<Box<dyn Write + Send>> = Vec::new();
    if let Some(path) = &args.serial_log {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        log.push(Box::new(file));
    }
    if args.verbose && args.initrd.is_none() {
        log.push(Box::new(std::io::stderr()));
    }
    Ok(log)
}

/// Later sizes of the command's terminal, as columns and rows.
fn size_changes(known: (u16, u16)) -> std::io::Result<Receiver<(u16, u16)>> {
    if inside() { terminal_sizes() } else { terminal::sizes(known) }
}

/// Standard output without a buffer of ours.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn stdout() -> Result<File> {
    let ours = std::io::stdout().as_fd().try_clone_to_owned();
    Ok(File::from(ours.context("cannot use standard output")?))
}
