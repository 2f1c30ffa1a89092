//! A layout lease that cannot be broken while pages are pinned under it: operations fail instead.

use std::sync::Arc;

use crate::dax::{Affected, Change, DaxFs, Errno, FsError, Rule};
use crate::policy::{Holding, LeaseBook, Policy, ProgramId, Registration, RegistrationRequest, Signal};
use crate::scheduler::{Scheduler, WaitResult};

/// The opt-in lease. Pinning without one fails with EPERM. Truncate and similar operations fail with ETXTBSY on
/// *pinned* pages. On other pages they succeed and break the lease, which must then be taken again before more is
/// pinned. The holder may ask to be notified of operations that failed.
///
/// With `until_unpinned`, the amendment to it: the lease lasts until the last pin is gone. Giving it up waits for that,
/// and closing the file with pins left kills the program. It was proposed so that a lease accounts for its pins, and an
/// administrator can see the holder of each range.
pub struct PinnedLease {
    scheduler: Arc<dyn Scheduler>,
    until_unpinned: bool,
    notify_holders: bool,
    /// The leases and their pins.
    pub book: LeaseBook,
}

impl PinnedLease {
    /// The lease as first proposed, or with the amendment if `until_unpinned`.
    pub fn new(scheduler: Arc<dyn Scheduler>, until_unpinned: bool) -> Self {
        Self { scheduler, until_unpinned, notify_holders: false, book: LeaseBook::default() }
    }

    /// Notifies holders ([`Signal::LetGo`]) of operations that failed because of their pins.
    pub fn notifying_holders(self) -> Self {
        Self { notify_holders: true, ..self }
    }

    /// Gives up a program's leases (`F_UNLCK`). The pins under them stay; with `until_unpinned`, this waits until they
    /// are gone.
    ///
    /// # Errors
    ///
    /// [`FsError::Forever`] if the pages are never unpinned.
    pub fn unlock(&self, program: ProgramId) -> Result<(), FsError> {
        let pinned = || self.book.pins_of(program) > 0;
        if self.until_unpinned && self.scheduler.wait(None, &mut || !pinned()) != WaitResult::Ready {
            return Err(FsError::Forever("the pages of a lease to be unpinned"));
        }
        self.book.end_all_of(program);
        Ok(())
    }
}

impl Rule for PinnedLease {
    fn before(&self, fs: &DaxFs, affected: &Affected) -> Result<(), FsError> {
        let Affected { file, pages, change } = affected;
        if *change == Change::Allocate {
            return Ok(());
        }
        if fs.pins(*file, pages.clone())?.all == 0 {
            // A copy-on-write does not break the lease: the holder causes one itself when it pins a shared block.
            if *change != Change::Copy && !self.book.is_pinned(*file, pages) {
                self.book.end(*file, pages);
            }
            return Ok(());
        }
        if self.notify_holders {
            let holders = self.book.holders(*file, pages);
            holders.iter().for_each(|holder| holder.signal(Signal::LetGo));
        }
        Err(FsError::refused(Errno::ETXTBSY, "a page is pinned under a layout lease"))
    }

    fn before_unmount(&self, fs: &DaxFs) -> Result<(), FsError> {
        fs.refuse_if_pinned()
    }

    fn pins_keep_dirty(&self) -> bool {
        true
    }
}

impl Policy for PinnedLease {
    fn name(&self) -> &'static str {
        if self.until_unpinned { "lease-until-unpinned" } else { "lease-truncate-fails" }
    }

    fn prepare(&self, request: &RegistrationRequest) -> Result<(), FsError> {
        self.book.take(request);
        Ok(())
    }

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        self.book.pin(request)
    }

    fn closed(&self, program: ProgramId) -> Result<(), FsError> {
        let pinned = self.book.pins_of(program) > 0;
        let holder = self.book.holder(program).filter(|_| self.until_unpinned && pinned);
        self.book.end_all_of(program);
        if let Some(holder) = holder {
            holder.signal(Signal::Kill);
        }
        Ok(())
    }

    fn exited(&self, program: ProgramId) {
        self.book.end_all_of(program);
    }

    fn holdings(&self) -> Vec<Holding> {
        self.book.holdings()
    }
}
