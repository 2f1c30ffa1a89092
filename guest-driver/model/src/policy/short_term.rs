//! Short-term pins, for the duration of an I/O: changes of the block map wait for them.

use std::sync::Arc;

use crate::dax::{Affected, Change, DaxFs, FsError, Rule};
use crate::policy::Policy;
use crate::scheduler::{Scheduler, WaitResult};

/// The protocol of direct I/O. Truncate and similar operations unmap the pages, so that no pin can be added, and then
/// wait until none of them is pinned (`dax_layout_busy_page`, `xfs_break_dax_layouts`). With a pin that is never
/// released they wait forever.
///
/// A write to a shared block does not wait: a device that pinned the page for reading keeps reading the old block,
/// which is not reused before it is unpinned.
pub struct ShortTermPin {
    scheduler: Arc<dyn Scheduler>,
}

impl ShortTermPin {
    /// A policy that waits by means of `scheduler`.
    pub fn new(scheduler: Arc<dyn Scheduler>) -> Self {
        Self { scheduler }
    }

    fn wait(&self, mut pinned: impl FnMut() -> bool) -> Result<(), FsError> {
        match self.scheduler.wait(None, &mut || !pinned()) {
            WaitResult::Ready => Ok(()),
            WaitResult::TimedOut | WaitResult::Deadlock => Err(FsError::Forever("a page to be unpinned")),
        }
    }
}

impl Rule for ShortTermPin {
    fn before(&self, fs: &DaxFs, affected: &Affected) -> Result<(), FsError> {
        let Affected { file, pages, change } = affected;
        if matches!(change, Change::Copy | Change::Allocate) {
            return Ok(());
        }
        fs.unmap(*file, pages)?;
        self.wait(|| fs.pins(*file, pages.clone()).is_ok_and(|pins| pins.all > 0))
    }

    fn before_unmount(&self, fs: &DaxFs) -> Result<(), FsError> {
        self.wait(|| fs.all_pins() > 0)
    }

    fn pins_keep_dirty(&self) -> bool {
        true
    }
}

impl Policy for ShortTermPin {
    fn name(&self) -> &'static str {
        "short-pin"
    }
}
