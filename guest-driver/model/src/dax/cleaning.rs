//! Writeback: fsync, the background cleaner, and the contents after a crash.
//!
//! A page is dirty from the fault that made it writable until it is written out. It is then write-protected in all
//! mappings and its dirty state is dropped, so the next write must fault, or it is never written out. A device with a
//! pin does not fault. In this model such a write is lost in a crash although fsync succeeded; a filesystem that keeps
//! state with the page (reserved blocks, attached buffers) may crash itself.

use refault_bus::Gpa;

use crate::dax::state::FsState;
use crate::dax::{DaxFs, FileId, FsError};
use crate::memory::FRAME_LEN;

impl FsState {
    /// Writes out the file's dirty pages. With `pins_keep_dirty`, those that are pinned for writing stay dirty.
    pub(super) fn clean(&mut self, file: FileId, pins_keep_dirty: bool) -> Result<(), FsError> {
        let inode = self.file(file)?;
        let dirty: Vec<u64> = inode.dirty.iter().copied().collect();
        let mappings: Vec<_> = inode.mappings.values().cloned().collect();
        for page in dirty {
            mappings.iter().try_for_each(|mapping| mapping.zap_writes(&(page..page + 1)))?;
            let Some(extent) = self.file(file)?.extents.lookup(page) else { continue };
            let bytes = self.memory.bytes(self.blocks.gpa(extent.block), FRAME_LEN)?;
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
    /// fsync(2), which is also what the background cleaner does.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted; any error of a mapping.
    pub fn fsync(&self, file: FileId) -> Result<(), FsError> {
        let pins_keep_dirty = self.rule().pins_keep_dirty();
        self.lock().clean(file, pins_keep_dirty)
    }

    /// Makes the block at `gpa` durable, as a program does with cache-line flushes and without a call to the
    /// filesystem.
    ///
    /// # Errors
    ///
    /// [`crate::ModelError::Memory`] if the block cannot be read.
    pub fn flush_by_user(&self, gpa: Gpa) -> Result<(), FsError> {
        let mut state = self.lock();
        if let Some(block) = state.blocks.at(gpa) {
            let bytes = state.memory.bytes(state.blocks.gpa(block), FRAME_LEN)?;
            state.durable.insert(block, bytes);
        }
        Ok(())
    }

    /// `set_page_dirty` of the block at `gpa`, called when it is unpinned. If no file has it as a dirty page - the page
    /// was cleaned, or the block freed or given to another file - it is counted in [`FsCounters::unexpected_dirty`].
    ///
    /// [`FsCounters::unexpected_dirty`]: crate::dax::FsCounters::unexpected_dirty
    pub fn set_page_dirty(&self, gpa: Gpa) {
        let mut state = self.lock();
        let Some(block) = state.blocks.at(gpa) else { return };
        let expected = state.files.values().any(|file| {
            let has = |&page: &u64| file.extents.lookup(page).is_some_and(|extent| extent.block == block);
            file.dirty.iter().any(has)
        });
        state.counters.unexpected_dirty += u64::from(!expected);
    }

    /// Returns the contents that a page of a file would have after a crash now.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn after_crash(&self, file: FileId, page: u64) -> Result<Vec<u8>, FsError> {
        let mut state = self.lock();
        let block = state.file(file)?.extents.lookup(page).filter(|extent| !extent.unwritten);
        let durable = block.and_then(|extent| state.durable.get(&extent.block).cloned());
        Ok(durable.unwrap_or_else(|| vec![0; FRAME_LEN]))
    }
}
