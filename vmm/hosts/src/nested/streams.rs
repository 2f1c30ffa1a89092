//! The standard streams of this process, as the output of a nested machine.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::qemu::end;
use refault_os::message;
use refault_os::output_queue::OutputQueue;

/// How much longer than its program's own limit a nested machine may take.
const GRACE: Duration = Duration::from_secs(60);

/// Our standard output and standard error.
#[derive(Clone)]
pub(super) struct OwnStreams {
    pub(super) output: OutputQueue,
    pub(super) errors: OutputQueue,
    failed: Arc<OnceLock<String>>,
    late: Arc<AtomicBool>,
}

impl OwnStreams {
    /// If they cannot be written to, `child` is killed.
    pub(super) fn new(child: &Arc<Mutex<Child>>) -> Result<Self> {
        let failed = Arc::<OnceLock<String>>::default();
        let queue = |to| {
            let (failed, child) = (Arc::clone(&failed), Arc::clone(child));
            OutputQueue::new(to, move |error| {
                let _ = failed.set(format!("the command's output cannot be written: {error}"));
                end(&child);
            })
        };
        let file = |stream: BorrowedFd<'_>| {
            stream.try_clone_to_owned().map(File::from).context("cannot use the standard streams")
        };
        let output = queue(file(std::io::stdout().as_fd())?);
        let errors = queue(file(std::io::stderr().as_fd())?);
        Ok(Self { output, errors, failed, late: Arc::default() })
    }

    /// The program inside has a limit of its own, which began when its guest started.
    pub(super) fn limit_waits_after(&self, limit: Duration, child: &Mutex<Child>) {
        std::thread::sleep(limit);
        self.output.limit_waits();
        self.errors.limit_waits();
        message::limit_waits();
        std::thread::sleep(GRACE);
        self.late.store(true, Ordering::Release);
        end(child);
    }

    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    /// Waits until everything is written. False if the time limit expired first.
    pub(super) fn finish(&self) -> Result<bool> {
        // Wait for both: one may be late because of the other's reader.
        let complete = self.output.finish() & self.errors.finish();
        self.failed.get().map_or(Ok(complete), |why| bail!("{why}"))
    }
}
