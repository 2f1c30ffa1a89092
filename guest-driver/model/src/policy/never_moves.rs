//! A filesystem that never moves blocks.

use crate::dax::{Affected, Change, DaxFs, Errno, FsError, Rule};
use crate::policy::Policy;

/// Reflink, exchange, collapse and insert are not supported; truncate and punch are refused while the file is mapped or
/// one of its pages is pinned. A page pinned for writing always counts as dirty.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeverMoves;

impl Rule for NeverMoves {
    fn before(&self, fs: &DaxFs, affected: &Affected) -> Result<(), FsError> {
        let Affected { file, pages, change } = affected;
        match change {
            Change::Allocate => Ok(()),
            Change::Free if !fs.is_mapped(*file)? && fs.pins(*file, pages.clone())?.all == 0 => Ok(()),
            Change::Free => Err(FsError::refused(Errno::ETXTBSY, "the file is mapped or pinned")),
            Change::Move | Change::Share | Change::Copy => {
                Err(FsError::refused(Errno::EOPNOTSUPP, "this filesystem does not move or share blocks"))
            }
        }
    }

    fn before_unmount(&self, fs: &DaxFs) -> Result<(), FsError> {
        fs.refuse_if_pinned()
    }

    fn pins_keep_dirty(&self) -> bool {
        true
    }
}

impl Policy for NeverMoves {
    fn name(&self) -> &'static str {
        "never-moves"
    }
}
