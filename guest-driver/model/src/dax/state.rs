//! The state under the filesystem's lock, and the steps that are made with it held.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::GuestMemory;
use crate::dax::blocks::Blocks;
use crate::dax::extents::ExtentMap;
use crate::dax::{Block, Change, Errno, Extent, FileId, FsCounters, FsError, Mapped, MappingId};
use crate::memory::FRAME;

/// The state of a file.
#[derive(Default)]
pub(super) struct File {
    /// Size in pages.
    pub(super) size: u64,
    pub(super) extents: ExtentMap,
    /// Pages that were made writable since they were last written out.
    pub(super) dirty: BTreeSet<u64>,
    pub(super) mappings: BTreeMap<MappingId, Arc<dyn Mapped>>,
    pub(super) opens: u32,
}

pub(super) struct FsState {
    pub(super) memory: Arc<GuestMemory>,
    pub(super) mounted: bool,
    pub(super) blocks: Blocks,
    pub(super) files: BTreeMap<FileId, File>,
    pub(super) next_id: u64,
    /// The block of zeroes that holes are mapped to for reading.
    pub(super) zeroes: Block,
    /// Contents after a crash, for blocks that were ever written out.
    pub(super) durable: BTreeMap<Block, Vec<u8>>,
    pub(super) counters: FsCounters,
}

impl FsState {
    pub(super) fn file(&mut self, file: FileId) -> Result<&mut File, FsError> {
        if !self.mounted {
            return Err(FsError::refused(Errno::EIO, "the filesystem is not mounted"));
        }
        self.files.get_mut(&file).ok_or(FsError::refused(Errno::ENOENT, "no such file"))
    }

    /// Removes pages from the tables of all mappings, and flushes.
    pub(super) fn unmap(&mut self, file: FileId, pages: &Range<u64>) -> Result<(), FsError> {
        let mappings: Vec<_> = self.file(file)?.mappings.values().cloned().collect();
        mappings.iter().try_for_each(|mapping| mapping.zap(pages))?;
        Ok(())
    }

    /// Allocates a block and zeroes it.
    pub(super) fn allocate(&mut self) -> Result<Block, FsError> {
        let full = FsError::refused(Errno::ENOSPC, "no block is free");
        let block = self.blocks.allocate().ok_or(full)?;
        self.memory.zero(self.blocks.gpa(block), FRAME)?;
        self.counters.allocated += 1;
        Ok(block)
    }

    /// Removes one user of each block.
    pub(super) fn release(&mut self, extents: &[Extent]) {
        for extent in extents {
            for page in 0..extent.pages {
                let block = Block(extent.block.0 + page);
                if self.blocks.release(block) {
                    self.durable.remove(&block);
                }
            }
        }
    }

    /// The change that a page needs before it can be written, if any.
    pub(super) fn needed_for_write(&mut self, file: FileId, page: u64) -> Result<Option<Change>, FsError> {
        let inode = self.file(file)?;
        if page >= inode.size {
            return Err(FsError::refused(Errno::EFAULT, "beyond the end of the file"));
        }
        Ok(match inode.extents.lookup(page) {
            None => Some(Change::Allocate),
            Some(extent) if self.blocks.is_shared(extent.block) => Some(Change::Copy),
            Some(extent) => extent.unwritten.then_some(Change::Allocate),
        })
    }

    /// Gives a page a written block of its own: the present one, a new one, or a copy of a shared one.
    pub(super) fn make_writable(&mut self, file: FileId, page: u64) -> Result<(), FsError> {
        self.unmap(file, &(page..page + 1))?;
        let found = self.file(file)?.extents.lookup(page);
        let block = match found {
            Some(extent) if !self.blocks.is_shared(extent.block) => extent.block,
            Some(extent) => {
                let new = self.allocate()?;
                let (from, to) = (self.blocks.gpa(extent.block), self.blocks.gpa(new));
                self.memory.dma().copy(from, to, FRAME).map_err(crate::ModelError::from)?;
                self.counters.copied += 1;
                new
            }
            None => self.allocate()?,
        };
        let extent = Extent { page, block, pages: 1, unwritten: false };
        let replaced = self.file(file)?.extents.put(extent);
        let others: Vec<_> = replaced.into_iter().filter(|old| old.block != block).collect();
        self.release(&others);
        Ok(())
    }

    /// The block of a page, or the block of zeroes for a hole.
    pub(super) fn block_for_reading(&mut self, file: FileId, page: u64) -> Result<Block, FsError> {
        let zeroes = self.zeroes;
        let inode = self.file(file)?;
        if page >= inode.size {
            return Err(FsError::refused(Errno::EFAULT, "beyond the end of the file"));
        }
        Ok(inode.extents.lookup(page).map_or(zeroes, |extent| extent.block))
    }

    /// Sets a page dirty. Further writes to it do not fault until it is written out.
    pub(super) fn notice(&mut self, file: FileId, page: u64) -> Result<(), FsError> {
        if self.file(file)?.dirty.insert(page) {
            self.counters.dirtied += 1;
        }
        Ok(())
    }
}
