//! The interface through which the filesystem asks a policy before a block map changes.

use std::ops::Range;

use crate::dax::{DaxFs, FileId, FsError};

/// A kind of change of a block map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Blocks are freed: truncate, hole punch, removal.
    Free,
    /// Pages get other blocks, or blocks other pages: collapse, insert, exchange, relocation.
    Move,
    /// Blocks become shared with another file: a reflink copy.
    Share,
    /// A shared block is written: the page gets a copy in a new block.
    Copy,
    /// A page gets its first block, or an unwritten block is written.
    Allocate,
}

/// A change that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// The file whose block map changes.
    pub file: FileId,
    /// The pages whose blocks change.
    pub pages: Range<u64>,
    /// The kind of change.
    pub change: Change,
}

/// The filesystem's side of a policy. The default methods allow everything.
pub trait Rule: Send + Sync {
    /// Called without locks before each change. May refuse it, wait, or revoke the pages from their users.
    ///
    /// # Errors
    ///
    /// To refuse the change; or because the wait never ends.
    fn before(&self, _fs: &DaxFs, _affected: &Affected) -> Result<(), FsError> {
        Ok(())
    }

    /// Called without locks before an unmount, when no file is open or mapped.
    ///
    /// # Errors
    ///
    /// To refuse the unmount; or because the wait never ends.
    fn before_unmount(&self, _fs: &DaxFs) -> Result<(), FsError> {
        Ok(())
    }

    /// Whether pages that are pinned for writing stay dirty when they are written out, as the device can write them
    /// again without a fault.
    fn pins_keep_dirty(&self) -> bool {
        false
    }
}

/// The rule of a filesystem without a policy: allows everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRule;

impl Rule for NoRule {}
