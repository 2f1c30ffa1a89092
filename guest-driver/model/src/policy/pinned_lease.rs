//! A lease on the layout that cannot be broken while pages are pinned: the operation fails instead.

use std::sync::Arc;

use crate::dax::{Affected, Change, DaxFs, Errno, FsError, Rule};
use crate::policy::{Holding, LeaseBook, Policy, ProgramId, Registration, RegistrationRequest, Signal};
use crate::scheduler::{Scheduler, WaitResult};

/// The opt-in lease: pinning without one is EPERM; truncate and its like of *pinned* pages are ETXTBSY, of others they
/// work, and break the lease, which must then be taken again before more is pinned. The holder may ask to be told of
/// attempts.
///
/// With `until_unpinned`, the amendment: the lease cannot go before the last pin. Giving it up waits for that; closing the
/// file with pins left drops the lease and kills the program. That the lease counts its pins, so that an administrator
/// can see who holds which range, is why it was proposed.
pub struct PinnedLease {
    scheduler: Arc<dyn Scheduler>,
    until_unpinned: bool,
    notify_holders: bool,
    /// Who holds what.
    pub book: LeaseBook,
}

impl PinnedLease {
    /// The lease of the proposal, or with the amendment.
    pub fn new(scheduler: Arc<dyn Scheduler>, until_unpinned: bool) -> Self {
        Self { scheduler, until_unpinned, notify_holders: false, book: LeaseBook::default() }
    }

    /// Holders are told ([`Signal::LetGo`]) of operations that fail because of them.
    pub fn notifying_holders(self) -> Self {
        Self { notify_holders: true, ..self }
    }

    /// Gives a program's leases up (`F_UNLCK`). Pins made under them stay, unless the lease is to be held until unpinned:
    /// then this waits until they are gone.
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
            // A write's own copy breaks nothing: it may be the holder's, on the way to its first pin.
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
