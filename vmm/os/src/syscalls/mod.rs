//! Limits on system calls: one seccomp filter for the process, and one more for each kind of thread (seccomp(2)).
//!
//! Filters add up: a thread may do what all of its filters allow. The kernel evaluates them only for system calls, and
//! remembers which calls are allowed whatever their arguments: these cost the same as without. One whose arguments are looked
//! at, such as the request that sends an interrupt, takes two to three times as long. A device's DMA is no system call. A
//! call that is not allowed ends the process with a message and status 125 (`violation`).
#![expect(unsafe_code, reason = "the kernel is asked for what it offers by a system call without a wrapper")]

mod lists;
mod rules;
mod violation;

use std::sync::OnceLock;

use anyhow::{Context, Result};
use seccompiler::{BpfProgram, apply_filter};

use crate::FAILED;

/// The filters of this process, once it has entered.
static ENTERED: OnceLock<Filters> = OnceLock::new();

/// Whether other programs are to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// Never: from the start no program can be executed.
    Never,
    /// Until [`seal`] is called. They inherit a short list of system calls that fail.
    UntilSealed,
}

/// What a thread does for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// Runs a virtual CPU, and the registers of devices under it.
    Vcpu,
    /// Works for a device: copies memory, walks tables, sends interrupts.
    Device,
    /// Writes persistent memory out, for a device.
    Storage,
    /// Writes the guest's output to a stream or a file that is open.
    Output,
    /// Everything else: input, sockets, waiting, files at the end. As the process after [`seal`].
    Other,
}

/// Whose filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A process that starts programs.
    Programs,
    /// A process that starts none any more.
    Sealed,
    /// A thread.
    Thread(ThreadKind),
}

impl Phase {
    /// That of a process which enters.
    const fn of(programs: Programs) -> Self {
        match programs {
            Programs::Never => Self::Sealed,
            Programs::UntilSealed => Self::Programs,
        }
    }
}

/// All filters of a process, compiled.
struct Filters {
    programs: Vec<BpfProgram>,
    sealed: Vec<BpfProgram>,
    threads: Vec<(ThreadKind, &'static str, Vec<BpfProgram>)>,
}

impl Filters {
    /// For a process that listens on TCP or does not.
    fn new(listens: bool, programs: Programs) -> Result<Self> {
        let threads = [
            (ThreadKind::Vcpu, "a vCPU's thread"),
            (ThreadKind::Device, "a device's thread"),
            (ThreadKind::Storage, "the thread for persistent memory"),
            (ThreadKind::Output, "a thread for output"),
        ];
        let filtered = |(kind, name)| Ok((kind, name, rules::worker(kind, programs)?));
        let threads = threads.into_iter().map(filtered).collect::<Result<_>>()?;
        Ok(Self { programs: rules::programs()?, sealed: rules::sealed(listens)?, threads })
    }

    /// Installs filters for the calling thread, and those that it starts.
    fn apply(&self, phase: Phase) -> Result<()> {
        let (name, filters) = match phase {
            Phase::Programs => ("the main thread", &self.programs),
            Phase::Sealed => ("the main thread", &self.sealed),
            Phase::Thread(kind) => match self.threads.iter().find(|(found, ..)| *found == kind) {
                Some((_, name, filters)) => (*name, filters),
                None => ("a helping thread", &self.sealed),
            },
        };
        violation::call_this_thread(name);
        // The strictest last: it may forbid to install another one.
        filters.iter().try_for_each(|filter| apply_filter(filter)).context("the kernel refuses a filter")
    }
}

/// Whether filters with the actions that we use can be installed.
pub(crate) fn available() -> bool {
    [libc::SECCOMP_RET_TRAP, libc::SECCOMP_RET_ERRNO].iter().all(|action| {
        // SAFETY: the kernel reads one number, which is alive.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, action) == 0 }
    })
}

/// Limits the calling thread and those that it starts, for good. `listens`: sockets of TCP can be made.
///
/// # Errors
/// The kernel refuses a filter.
pub(crate) fn enter(listens: bool, programs: Programs) -> Result<()> {
    let filters = Filters::new(listens, programs)?;
    violation::install();
    filters.apply(Phase::of(programs))?;
    let _ = ENTERED.set(filters);
    Ok(())
}

/// From now on this thread, and those that it starts, cannot execute programs. Does nothing outside the sandbox.
///
/// # Errors
/// The kernel refuses the filter.
pub fn seal() -> Result<()> {
    ENTERED.get().map_or(Ok(()), |filters| filters.apply(Phase::Sealed))
}

/// Limits the calling thread to what its kind needs. Does nothing outside the sandbox. Ends the process if the kernel
/// refuses.
pub fn confine(kind: ThreadKind) {
    let Some(filters) = ENTERED.get() else { return };
    if let Err(error) = filters.apply(Phase::Thread(kind)) {
        eprintln!("refault: a thread cannot be confined: {error:#}");
        std::process::exit(FAILED.into());
    }
}
