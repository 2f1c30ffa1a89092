//! The sandbox of a process that runs a guest: what the process may still do if the guest takes it over.
//!
//! [`enter`] limits the whole process, for good: files and TCP ports by Landlock (`files`), system calls by seccomp
//! ([`syscalls`](mod@crate::syscalls)), resources by limits (`limits`). Each thread then gives up what its work does not
//! need. A file that is not granted fails with "Permission denied".
//!
//! A kernel may lack Landlock, seccomp or both: then the process goes on without, and says so.

mod files;
mod limits;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

pub use self::files::Grants;
use crate::message::{self, note};
use crate::syscalls::{self, Programs};

/// How often, at intervals of a millisecond, to look whether an ended thread is gone.
const PATIENCE: usize = 5000;

/// Whether this process has entered.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// What this kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// Landlock's ABI version, 0 without Landlock.
    pub landlock: u32,
    /// Whether filters for system calls can be installed.
    pub seccomp: bool,
}

impl Support {
    /// Asks the kernel.
    pub fn of_this_kernel() -> Self {
        Self { landlock: files::abi(), seccomp: syscalls::available() }
    }

    /// What is missing, and how to get it; `None` if nothing is.
    pub fn missing(self) -> Option<String> {
        let files = "files are not confined, for this kernel has no Landlock (it needs Linux 5.13 or later with \
                     CONFIG_SECURITY_LANDLOCK, and landlock in its parameter lsm=)";
        let calls = "system calls are not confined, for this kernel or container refuses seccomp filters (it needs \
                     CONFIG_SECCOMP_FILTER, and seccomp(2) in the container's profile)";
        let lacking = [(self.landlock == 0, files), (!self.seccomp, calls)];
        let lacking: Vec<_> = lacking.into_iter().filter(|(lacks, _)| *lacks).map(|(_, text)| text).collect();
        (!lacking.is_empty()).then(|| lacking.join("; "))
    }
}

/// Confines this process for good. Call it before there are threads that stay: on Linux before 7.0, Landlock covers only the
/// calling thread and those that it starts later.
///
/// # Errors
/// A limit cannot be set, or the kernel refuses what it offers.
pub fn enter(grants: &Grants, programs: Programs) -> Result<()> {
    let support = Support::of_this_kernel();
    if let Some(missing) = support.missing() {
        note(&format!("sandbox: {missing}"));
    }
    wait_for_one_thread();
    limits::apply().context("sandbox: cannot limit resources")?;
    if support.landlock > 0 {
        files::restrict(grants).context("sandbox: Landlock")?;
    }
    if support.seccomp {
        syscalls::enter(grants.listens(), programs).context("sandbox: seccomp")?;
    }
    ENTERED.store(true, Ordering::Relaxed);
    // While this thread can: later, a message may come from one that cannot start threads.
    message::start();
    Ok(())
}

/// What to add to an error's message if the sandbox may be the reason.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let refused = |error: &io::Error| error.kind() == ErrorKind::PermissionDenied;
    let refused = error.chain().any(|cause| cause.downcast_ref().is_some_and(refused));
    (refused && ENTERED.load(Ordering::Relaxed)).then_some(
        "the sandbox lets refault use only the files that its options name; --no-sandbox turns it off",
    )
}

/// Waits for the end of the thread that writes messages.
fn wait_for_one_thread() {
    message::end();
    let others = || std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count().saturating_sub(1));
    for _ in 0..PATIENCE {
        if others() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    note(&format!("sandbox: {} threads are older than it; Landlock may not cover them", others()));
}
