//! The two interfaces between a process' memory and the rest of the kernel: pagers supply pages, notifiers are called
//! before pages are reused.

use refault_bus::Iova;

use crate::ModelError;
use crate::paging::PageTables;

/// Supplies the pages of an area: the filesystem of a mapped file.
pub trait Pager: Send + Sync {
    /// Maps the page at `at`, which is page aligned, into `space`, with write access if `write`. Called without a lock
    /// of the process; the pager itself must ensure that the area still exists when it maps the page.
    ///
    /// # Errors
    ///
    /// Any error is SIGBUS for the process, and a failed page request for a device.
    fn fault(&self, space: &PageTables, at: Iova, write: bool) -> Result<(), ModelError>;

    /// Called when the process unmaps the area, before the pages are removed from its tables.
    ///
    /// # Errors
    ///
    /// If the pages could not be unmapped; the area then stays.
    fn unmapped(&self) -> Result<(), ModelError>;
}

/// An MMU notifier: called by a process for users that cache translations of its addresses.
pub trait Notifier: Send + Sync {
    /// Called after pages in the `bytes` at `start` were removed from the page tables, or write-protected. When it
    /// returns, no access through the old translations is in flight.
    ///
    /// # Errors
    ///
    /// If the device could not be stopped from using the pages.
    fn invalidate(&self, start: Iova, bytes: u64) -> Result<(), ModelError>;
}
