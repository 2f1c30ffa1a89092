//! Where a policy meets the filesystem: asked before the block map changes.

use std::ops::Range;

use crate::dax::{DaxFs, FileId, FsError};

/// What is about to happen to blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They leave the file: truncate, hole punch, removal.
    Free,
    /// They stay in the file, at another page of it, or another file gets them: collapse, insert, exchange, relocation.
    Move,
    /// Another file will have them too: a reflink copy.
    Share,
    /// They are shared, one of the files is written: its page moves to a new block.
    Copy,
    /// There are none yet, or none that was written.
    Allocate,
}

/// A change of part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// The file.
    pub file: FileId,
    /// Its pages.
    pub pages: Range<u64>,
    /// What happens to their blocks.
    pub change: Change,
}

/// A policy as the filesystem asks it.
pub trait Rule: Send + Sync {
    /// Called without locks before each change; refuses it, or waits, or sees to it that nobody minds.
    fn before(&self, _fs: &DaxFs, _affected: &Affected) -> Result<(), FsError> {
        Ok(())
    }

    /// Called without locks when nothing is open or mapped any more.
    fn before_unmount(&self, _fs: &DaxFs) -> Result<(), FsError> {
        Ok(())
    }

    /// Whether a page whose block is pinned for writing stays dirty when it is written out: the device can write it
    /// again without a fault.
    fn pins_keep_dirty(&self) -> bool {
        false
    }
}

/// Everything proceeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRule;

impl Rule for NoRule {}
