//! Writing out: fsync and the background cleaner, and what a crash leaves.
//!
//! A page is dirty from the fault that made it writable until it is written out. Then it is write-protected everywhere
//! and its state is forgotten: the next write must fault, or nobody will ever write it out again. A device with a pin
//! does not fault. In this model that shows as bytes that are not there after a crash, though fsync succeeded; a
//! filesystem with state on the page (blocks reserved, buffers attached) crashes instead.

use refault_bus::Gpa;

use crate::dax::state::FsState;
use crate::dax::{DaxFs, FileId, FsError};
use crate::memory::FRAME;

impl FsState {
    /// Writes out the file's dirty pages. With `pins_keep_dirty`, those that are pinned for writing stay dirty.
    pub(super) fn clean(&mut self, file: FileId, pins_keep_dirty: bool) -> Result<(), FsError> {
        let inode = self.file(file)?;
        let dirty: Vec<u64> = inode.dirty.iter().copied().collect();
        let mappings: Vec<_> = inode.mappings.values().cloned().collect();
        for page in dirty {
            mappings.iter().try_for_each(|mapping| mapping.zap_writes(&(page..page + 1)))?;
            let Some(extent) = self.file(file)?.extents.lookup(page) else { continue };
            let bytes = self.memory.bytes(self.blocks.gpa(extent.block), FRAME as usize)?;
            self.durable.insert(extent.block, bytes);
            self.counters.cleaned += 1;
            if !pins_keep_dirty || self.blocks.pins(extent.block).writing == 0 {
                self.file(file)?.dirty.remove(&page);
            }
        }
        Ok(())
    }
}

impl DaxFs {
    /// fsync(2), and what the background cleaner does.
    pub fn fsync(&self, file: FileId) -> Result<(), FsError> {
        let pins_keep_dirty = self.rule().pins_keep_dirty();
        self.lock().clean(file, pins_keep_dirty)
    }

    /// A program writes out what it stored itself, with cache-line flushes at the address: nobody is asked.
    pub fn flush_by_user(&self, gpa: Gpa) -> Result<(), FsError> {
        let mut state = self.lock();
        if let Some(block) = state.blocks.at(gpa) {
            let bytes = state.memory.bytes(state.blocks.gpa(block), FRAME as usize)?;
            state.durable.insert(block, bytes);
        }
        Ok(())
    }

    /// `set_page_dirty` of the block at `gpa`, as those who unpin it call it. If no file expects it - it has forgotten
    /// the page, or the block is free, or another file's - that is a surprise, and is counted.
    pub fn set_page_dirty(&self, gpa: Gpa) {
        let mut state = self.lock();
        let Some(block) = state.blocks.at(gpa) else { return };
        let expected = state.files.values().any(|file| {
            let has = |&page: &u64| file.extents.lookup(page).is_some_and(|extent| extent.block == block);
            file.dirty.iter().any(has)
        });
        state.counters.unexpected_dirty += u64::from(!expected);
    }

    /// What a page of a file would be after a crash now.
    pub fn after_crash(&self, file: FileId, page: u64) -> Result<Vec<u8>, FsError> {
        let mut state = self.lock();
        let block = state.file(file)?.extents.lookup(page).filter(|extent| !extent.unwritten);
        let durable = block.and_then(|extent| state.durable.get(&extent.block).cloned());
        Ok(durable.unwrap_or_else(|| vec![0; FRAME as usize]))
    }
}
