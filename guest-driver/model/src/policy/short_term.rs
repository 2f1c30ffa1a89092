//! Pins that last as long as an I/O does: those who change the block map wait for them.

use std::sync::Arc;

use crate::dax::{Affected, Change, DaxFs, FsError, Rule};
use crate::policy::Policy;
use crate::scheduler::{Scheduler, WaitResult};

/// What direct I/O does: truncate and its like unmap the pages, so that no pin can be added, then wait until no page of
/// them is pinned (`dax_layout_busy_page`, `xfs_break_dax_layouts`). A pin that is never given back is waited for for
/// ever.
///
/// A write to a shared block does not wait: whoever pinned the page for reading goes on reading what was there. The block
/// itself is not given to anybody else before.
pub struct ShortTermPin {
    scheduler: Arc<dyn Scheduler>,
}

impl ShortTermPin {
    /// On that clock.
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
