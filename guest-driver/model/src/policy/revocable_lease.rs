//! A layout lease that is broken by force if its holder does not release it in time.

use std::sync::Arc;

use crate::dax::{Affected, Change, DaxFs, FsError, Rule};
use crate::policy::{
    Holding, LeaseBook, Policy, Program, ProgramId, Registration, RegistrationRequest, Signal,
};
use crate::scheduler::{Scheduler, WaitResult};

/// What happens to a holder that has not released its pins within the break time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBreakTimeout {
    /// Its regions are revoked: requests to them fail.
    Revoke,
    /// The program is killed.
    Kill,
}

/// Pinning a range requires a lease on it. Any change of the block map under pinned pages - with shared blocks, any
/// write - first signals the holder, waits up to the break time, and then takes the pages away.
pub struct RevocableLease {
    scheduler: Arc<dyn Scheduler>,
    break_time_ns: u64,
    on_timeout: OnBreakTimeout,
    /// The leases and their pins.
    pub book: LeaseBook,
}

impl RevocableLease {
    /// A lease with a break time of `break_time_ns` nanoseconds.
    pub fn new(scheduler: Arc<dyn Scheduler>, break_time_ns: u64, on_timeout: OnBreakTimeout) -> Self {
        Self { scheduler, break_time_ns, on_timeout, book: LeaseBook::default() }
    }

    fn take_away(&self, affected: &Affected, holders: &[Arc<dyn Program>]) -> Result<(), FsError> {
        let Affected { file, pages, .. } = affected;
        match self.on_timeout {
            OnBreakTimeout::Revoke => {
                self.book.end(*file, pages).iter().try_for_each(|region| region.revoke())
            }
            OnBreakTimeout::Kill => {
                holders.iter().for_each(|holder| holder.signal(Signal::Kill));
                match self.scheduler.wait(None, &mut || !self.book.is_pinned(*file, pages)) {
                    WaitResult::Ready => Ok(()),
                    _ => Err(FsError::Forever("a killed program to let go")),
                }
            }
        }
    }
}

impl Rule for RevocableLease {
    fn before(&self, _fs: &DaxFs, affected: &Affected) -> Result<(), FsError> {
        let Affected { file, pages, change } = affected;
        if *change == Change::Allocate || !self.book.is_pinned(*file, pages) {
            return Ok(());
        }
        let holders = self.book.begin_break(*file, pages);
        holders.iter().for_each(|holder| holder.signal(Signal::LetGo));
        let deadline = self.scheduler.now_ns() + self.break_time_ns;
        if self.scheduler.wait(Some(deadline), &mut || !self.book.is_pinned(*file, pages))
            != WaitResult::Ready
        {
            self.take_away(affected, &holders)?;
        }
        self.book.end(*file, pages);
        Ok(())
    }

    fn pins_keep_dirty(&self) -> bool {
        true
    }
}

impl Policy for RevocableLease {
    fn name(&self) -> &'static str {
        "lease"
    }

    fn prepare(&self, request: &RegistrationRequest) -> Result<(), FsError> {
        self.book.take(request);
        Ok(())
    }

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        self.book.pin(request)
    }

    /// Leases belong to the open file, and no pin outlives its lease: closing revokes the regions.
    fn closed(&self, program: ProgramId) -> Result<(), FsError> {
        let regions = self.book.end_all_of(program);
        let mut held = regions.iter().filter(|region| region.pins() > 0);
        held.try_for_each(|region| region.revoke())
    }

    fn exited(&self, program: ProgramId) {
        self.book.end_all_of(program);
    }

    fn holdings(&self) -> Vec<Holding> {
        self.book.holdings()
    }
}
