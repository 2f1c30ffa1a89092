//! Operations on the blocks of two files: reflink and exchange.

use std::ops::Range;

use crate::dax::{Affected, Change, DaxFs, Errno, Extent, FileId, FsError};

impl DaxFs {
    /// FICLONE: creates a file that shares all blocks. The first write to a page of either file copies its block.
    ///
    /// The original's pages are unmapped, since a write through an old mapping would change both files.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted; the policy refuses; any error of a mapping.
    pub fn reflink(&self, file: FileId) -> Result<FileId, FsError> {
        let size = self.size(file)?;
        let copy = self.create(size)?;
        let shared = self.change(file, 0..size, Change::Share, |state| {
            let extents: Vec<Extent> = state.file(file)?.extents.iter().copied().collect();
            for extent in extents {
                (0..extent.pages).for_each(|page| state.blocks.share(super::Block(extent.block.0 + page)));
                state.file(copy)?.extents.put(extent);
            }
            // Blocks that were not written out are dirty in both files.
            let dirty = state.file(file)?.dirty.clone();
            state.file(copy)?.dirty = dirty;
            Ok(())
        });
        if shared.is_err() {
            self.lock().files.remove(&copy);
        }
        shared.map(|()| copy)
    }

    /// XFS_IOC_EXCHANGE_RANGE: exchanges the blocks of the same pages of two files.
    ///
    /// # Errors
    ///
    /// EINVAL if the files are the same or lack the pages; ENOENT, EIO if not mounted; the policy refuses; any error of
    /// a mapping.
    pub fn exchange(&self, one: FileId, other: FileId, pages: Range<u64>) -> Result<(), FsError> {
        if one == other || pages.end > self.size(one)?.min(self.size(other)?) {
            return Err(FsError::refused(
                Errno::EINVAL,
                "the files must be different and both have the pages",
            ));
        }
        self.rule().before(self, &Affected { file: other, pages: pages.clone(), change: Change::Move })?;
        self.change(one, pages.clone(), Change::Move, |state| {
            state.unmap(other, &pages)?;
            let from_one = state.file(one)?.extents.remove(pages.clone());
            let from_other = state.file(other)?.extents.remove(pages.clone());
            for (file, extents) in [(one, from_other), (other, from_one)] {
                let inode = state.file(file)?;
                extents.into_iter().for_each(|extent| drop(inode.extents.put(extent)));
            }
            let mut dirty = [one, other]
                .map(|file| state.file(file).map(|inode| inode.dirty.clone()).unwrap_or_default());
            for page in pages {
                let was = dirty.each_ref().map(|set| set.contains(&page));
                for (set, is) in dirty.iter_mut().zip([was[1], was[0]]) {
                    if is {
                        set.insert(page)
                    } else {
                        set.remove(&page)
                    };
                }
            }
            let [one_dirty, other_dirty] = dirty;
            state.file(one)?.dirty = one_dirty;
            state.file(other)?.dirty = other_dirty;
            Ok(())
        })
    }
}
