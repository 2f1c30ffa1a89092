//! What an area of a process is made of, and who must hear when pages of it go.

use refault_bus::Iova;

use crate::ModelError;
use crate::paging::PageTables;

/// Whoever has the pages of an area: a filesystem, for a mapped file.
pub trait Pager: Send + Sync {
    /// Maps the page at `at`, which is page aligned, into `space`; for writing too if `write`. It is called without a
    /// lock of the process, and must see to it that what it maps is still the area's.
    ///
    /// An error is a bus error for the process and a refused page for a device.
    fn fault(&self, space: &PageTables, at: Iova, write: bool) -> Result<(), ModelError>;

    /// The process has given the area up; its pages were not taken out of the tables yet.
    fn unmapped(&self) -> Result<(), ModelError>;
}

/// Whoever keeps translations of a process' addresses of its own: an MMU notifier.
pub trait Notifier: Send + Sync {
    /// The tables no longer have all of `bytes` at `start`, or no longer for writing. When this returns, nobody uses
    /// what was there.
    fn invalidate(&self, start: Iova, bytes: u64) -> Result<(), ModelError>;
}
