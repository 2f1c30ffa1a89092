//! `refault run --host nested`: the same command in an emulated machine that has KVM.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::options::{RunArgs, TERMINAL_VARIABLE};
use super::stages::Stages;
use super::{FAILED, TIMED_OUT};
use refault_guest::kernel_tree::{TREE_VARIABLE, TreeKernel};
use refault_guest::{GuestImage, IMAGE_VARIABLE};
use refault_hosts::nested::Nested;
use refault_machine::memory::pmem;
use refault_os::message::note;
use refault_os::sandbox::Grants;
use refault_os::stop::{self, GracefulStop};
use refault_os::terminal::{self, RawMode};

/// Runs refault with the same arguments in an emulated machine, and returns its exit status.
pub(super) fn nested(args: &RunArgs, image: &GuestImage, tree: Option<&TreeKernel>) -> Result<u8> {
    let mut nested = machine(args, image, tree)?;
    let grants = grants(args)?;
    // The files stay locked while the emulated machine uses them.
    let locks = nested.lent.iter().map(pmem::open).collect::<Result<Vec<_>, _>>()?;
    if let Some(grants) = grants {
        let writable = grants.clone();
        nested.confine(grants, writable.writable())?;
    }
    let _orderly = GracefulStop::begin(|stop| stop::exit(stop)).context("cannot hold signals back")?;
    let size = args.terminal();
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

/// What is written in the emulated machine: records, files from the guest, logs and cores; `None` without a sandbox.
fn grants(args: &RunArgs) -> Result<Option<Grants>> {
    let Some(mut grants) = args.grants(args.experiment()?.as_ref())? else { return Ok(None) };
    let files = args.out.iter().map(|out| out.host.as_path());
    let files = files.chain(args.extras.dump().map(PathBuf::as_path)).chain(args.serial_log.as_deref());
    for path in files.chain(args.ports.capture()) {
        let made = grants.write_at(path);
        made.with_context(|| format!("cannot make the folder of {}", path.display()))?;
    }
    Ok(Some(grants))
}

fn machine(args: &RunArgs, image: &GuestImage, tree: Option<&TreeKernel>) -> Result<Nested> {
    let arguments = std::env::args_os().skip(1).collect();
    let memory = memory(args)?;
    let mut nested = Nested::of_ourselves(image.kernel(), image.outer_initramfs(), memory, arguments)?;
    nested.environment.push((IMAGE_VARIABLE.into(), image.folder().into()));
    if let Some(tree) = tree {
        nested.environment.push((TREE_VARIABLE.into(), tree.folder().into()));
    }
    if let Some((columns, rows)) = args.terminal() {
        nested.environment.push((TERMINAL_VARIABLE.into(), format!("{columns}x{rows}").into()));
    }
    nested.lent = args.pmem_files()?;
    Ok(nested)
}

/// Bytes of the emulated machine's memory that the guest and the files beside it take.
fn memory(args: &RunArgs) -> Result<u64> {
    let anonymous: u64 =
        args.pmem.iter().filter(|pmem| pmem.file.is_none()).filter_map(|pmem| pmem.size).sum();
    let out = if args.out.is_empty() { 0 } else { args.out_size.0 };
    let stages = if args.wants_stages() { Stages::bytes(args.memory.0) } else { 0 };
    // Also reports mistakes in the scenario before the machine starts.
    let results = args.experiment()?.map_or(0, |experiment| experiment.bytes());
    let parts = [anonymous, out, stages, results];
    Ok(parts.iter().fold(args.memory.0, |sum, more| sum.saturating_add(*more)))
}
