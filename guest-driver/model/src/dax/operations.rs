//! Operations on a file's own blocks: truncate, punch, collapse, insert, allocate, relocate.

use std::ops::Range;

use crate::ModelError;
use crate::dax::state::FsState;
use crate::dax::{Affected, Change, DaxFs, Errno, Extent, FileId, FsError};
use crate::memory::FRAME;

impl DaxFs {
    /// Asks the rule, removes the pages from all tables, and then calls `apply` to change the block map.
    pub(super) fn change(
        &self,
        file: FileId,
        pages: Range<u64>,
        change: Change,
        apply: impl FnOnce(&mut FsState) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        if pages.start > pages.end {
            return Err(FsError::refused(Errno::EINVAL, "the range ends before it begins"));
        }
        self.rule().before(self, &Affected { file, pages: pages.clone(), change })?;
        let mut state = self.lock();
        state.unmap(file, &pages)?;
        apply(&mut state)
    }

    /// truncate(2) to `size` pages. Frees the blocks beyond; added pages are holes.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted; the policy refuses; any error of a mapping.
    pub fn truncate(&self, file: FileId, size: u64) -> Result<(), FsError> {
        let before = self.size(file)?;
        if size >= before {
            self.lock().file(file)?.size = size;
            return Ok(());
        }
        self.change(file, size..before, Change::Free, |state| {
            let inode = state.file(file)?;
            inode.size = size;
            inode.dirty.retain(|&page| page < size);
            let freed = inode.extents.remove(size..u64::MAX);
            state.release(&freed);
            Ok(())
        })
    }

    /// FALLOC_FL_PUNCH_HOLE: frees the blocks of a range.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted; the policy refuses; any error of a mapping.
    pub fn punch(&self, file: FileId, pages: Range<u64>) -> Result<(), FsError> {
        self.change(file, pages.clone(), Change::Free, |state| {
            let inode = state.file(file)?;
            inode.dirty.retain(|page| !pages.contains(page));
            let freed = inode.extents.remove(pages.clone());
            state.release(&freed);
            Ok(())
        })
    }

    /// FALLOC_FL_COLLAPSE_RANGE: removes a range from the file and moves the pages behind it down.
    ///
    /// # Errors
    ///
    /// EINVAL if the range is empty or not within the file; ENOENT, EIO if not mounted; the policy refuses; any error
    /// of a mapping.
    pub fn collapse(&self, file: FileId, pages: Range<u64>) -> Result<(), FsError> {
        let size = self.size(file)?;
        if pages.end > size || pages.is_empty() {
            return Err(FsError::refused(Errno::EINVAL, "the range is empty or not within the file"));
        }
        let count = pages.end - pages.start;
        // Two changes, of which `change` asks for the move only.
        self.rule().before(self, &Affected { file, pages: pages.clone(), change: Change::Free })?;
        self.change(file, pages.start..size, Change::Move, |state| {
            let inode = state.file(file)?;
            let freed = inode.extents.remove(pages.clone());
            inode.extents.shift(pages.end, -(count as i64));
            inode.dirty.retain(|page| !pages.contains(page));
            inode.dirty =
                inode.dirty.iter().map(|&page| if page < pages.end { page } else { page - count }).collect();
            inode.size -= count;
            state.release(&freed);
            Ok(())
        })
    }

    /// FALLOC_FL_INSERT_RANGE: inserts a hole of `count` pages before page `at`.
    ///
    /// # Errors
    ///
    /// EINVAL if `at` is not within the file; ENOENT, EIO if not mounted; the policy refuses; any error of a mapping.
    pub fn insert(&self, file: FileId, at: u64, count: u64) -> Result<(), FsError> {
        let size = self.size(file)?;
        if at >= size {
            return Err(FsError::refused(Errno::EINVAL, "the page is not within the file"));
        }
        self.change(file, at..size, Change::Move, |state| {
            let inode = state.file(file)?;
            inode.extents.shift(at, count as i64);
            inode.dirty =
                inode.dirty.iter().map(|&page| if page < at { page } else { page + count }).collect();
            inode.size += count;
            Ok(())
        })
    }

    /// fallocate(2): allocates unwritten blocks for the holes in a range, and grows the file to include it.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted, ENOSPC; the policy refuses.
    pub fn allocate(&self, file: FileId, pages: Range<u64>) -> Result<(), FsError> {
        let holes: Vec<u64> = {
            let mut state = self.lock();
            let inode = state.file(file)?;
            pages.clone().filter(|&page| inode.extents.lookup(page).is_none()).collect()
        };
        let (Some(&first), Some(&last)) = (holes.first(), holes.last()) else { return Ok(()) };
        self.change(file, first..last + 1, Change::Allocate, |state| {
            for page in holes {
                let block = state.allocate()?;
                state.file(file)?.extents.put(Extent { page, block, pages: 1, unwritten: true });
            }
            let inode = state.file(file)?;
            inode.size = inode.size.max(pages.end);
            Ok(())
        })
    }

    /// Copies pages to new blocks and frees the old ones, as a defragmenter or garbage collector does.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted, ENOSPC; the policy refuses; any error of a mapping.
    pub fn relocate(&self, file: FileId, pages: Range<u64>) -> Result<(), FsError> {
        self.change(file, pages.clone(), Change::Move, |state| {
            for page in pages {
                let Some(old) = state.file(file)?.extents.lookup(page) else { continue };
                let block = state.allocate()?;
                let (from, to) = (state.blocks.gpa(old.block), state.blocks.gpa(block));
                state.memory.dma().copy(from, to, FRAME).map_err(ModelError::from)?;
                if let Some(durable) = state.durable.get(&old.block).cloned() {
                    state.durable.insert(block, durable);
                }
                state.file(file)?.extents.put(Extent { block, ..old });
                state.release(&[old]);
            }
            Ok(())
        })
    }
}
