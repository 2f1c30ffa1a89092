//! The filesystem: files, read(2) and write(2), pins, mount state.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::Gpa;
use refault_bus::sync::lock;

use crate::dax::blocks::Blocks;
use crate::dax::state::{File, FsState};
use crate::dax::{Affected, Block, Errno, Extent, FsError, NoRule, Pins, Rule};
use crate::memory::FRAME_LEN;
use crate::{GuestMemory, ModelError};

/// Identifies a file: an inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// Statistics of the filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsCounters {
    /// Page faults handled.
    pub faults: u64,
    /// Pages that became dirty, by `page_mkwrite` or write(2).
    pub dirtied: u64,
    /// Blocks allocated.
    pub allocated: u64,
    /// Shared blocks copied on write.
    pub copied: u64,
    /// Pages written out.
    pub cleaned: u64,
    /// Calls of [`DaxFs::set_page_dirty`] for pages that the filesystem believed to be clean.
    pub unexpected_dirty: u64,
}

/// A filesystem. It is mounted when it is created.
pub struct DaxFs {
    state: Mutex<FsState>,
    rule: Mutex<Arc<dyn Rule>>,
}

impl DaxFs {
    /// Creates an empty filesystem from the whole blocks in `range` of guest-physical memory, which it owns from now
    /// on.
    ///
    /// # Errors
    ///
    /// ENOSPC if `range` has no whole block.
    pub fn new(memory: &Arc<GuestMemory>, range: &Range<u64>) -> Result<Arc<Self>, FsError> {
        let mut state = FsState {
            memory: memory.clone(),
            mounted: true,
            blocks: Blocks::new(range),
            files: Default::default(),
            next_id: 1,
            zeroes: Block(0),
            durable: Default::default(),
            counters: FsCounters::default(),
        };
        state.zeroes = state.allocate()?;
        Ok(Arc::new(Self { state: Mutex::new(state), rule: Mutex::new(Arc::new(NoRule)) }))
    }

    /// Sets the policy that is asked before changes of block maps.
    pub fn set_rule(&self, rule: Arc<dyn Rule>) {
        *lock(&self.rule) = rule;
    }

    pub(super) fn rule(&self) -> Arc<dyn Rule> {
        lock(&self.rule).clone()
    }

    /// Creates a file of `pages` pages, all holes.
    ///
    /// # Errors
    ///
    /// EIO if not mounted.
    pub fn create(&self, pages: u64) -> Result<FileId, FsError> {
        let mut state = self.lock();
        if !state.mounted {
            return Err(FsError::refused(Errno::EIO, "the filesystem is not mounted"));
        }
        let file = FileId(state.next_id);
        state.next_id += 1;
        state.files.insert(file, File { size: pages, ..File::default() });
        Ok(file)
    }

    /// open(2). The filesystem cannot be unmounted while a file is open.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn open(&self, file: FileId) -> Result<(), FsError> {
        self.lock().file(file)?.opens += 1;
        Ok(())
    }

    /// close(2).
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn close(&self, file: FileId) -> Result<(), FsError> {
        let mut state = self.lock();
        let inode = state.file(file)?;
        inode.opens = inode.opens.saturating_sub(1);
        Ok(())
    }

    /// Size of a file in pages.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn size(&self, file: FileId) -> Result<u64, FsError> {
        Ok(self.lock().file(file)?.size)
    }

    /// The extents of a file, in order. Pages in no extent are holes.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn extents(&self, file: FileId) -> Result<Vec<Extent>, FsError> {
        Ok(self.lock().file(file)?.extents.iter().copied().collect())
    }

    /// read(2) of one page. Holes read as zeroes.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted, EFAULT beyond the end of the file.
    pub fn read(&self, file: FileId, page: u64) -> Result<Vec<u8>, FsError> {
        let mut state = self.lock();
        let block = state.block_for_reading(file, page)?;
        Ok(state.memory.bytes(state.blocks.gpa(block), FRAME_LEN)?)
    }

    /// write(2) within one page, at byte `offset` of it. Allocates a block for a hole, and copies a shared one.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted, EFAULT beyond the end of the file, ENOSPC; or the policy refuses.
    pub fn write(&self, file: FileId, page: u64, offset: u64, bytes: &[u8]) -> Result<(), FsError> {
        self.with_writable(file, page, |state| {
            state.notice(file, page)?;
            let block = state.block_for_reading(file, page)?;
            let at = Gpa(state.blocks.gpa(block).0 + offset);
            Ok(state.memory.dma().write(at, bytes).map_err(ModelError::from)?)
        })
    }

    /// Calls `then` with the lock held, once the page has a written block that is not shared.
    pub(super) fn with_writable<T>(
        &self,
        file: FileId,
        page: u64,
        then: impl FnOnce(&mut FsState) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        loop {
            let mut state = self.lock();
            let Some(change) = state.needed_for_write(file, page)? else { return then(&mut state) };
            drop(state);
            self.rule().before(self, &Affected { file, pages: page..page + 1, change })?;
            let mut state = self.lock();
            // The rule may have waited without the lock: retry if something else is needed now.
            if state.needed_for_write(file, page)? == Some(change) {
                state.make_writable(file, page)?;
                return then(&mut state);
            }
        }
    }

    /// Statistics since the filesystem was created.
    pub fn counters(&self) -> FsCounters {
        self.lock().counters
    }

    /// Number of free blocks.
    pub fn free_blocks(&self) -> u64 {
        self.lock().blocks.free_count()
    }

    /// Whether the next fsync(2) writes the page out.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn is_dirty(&self, file: FileId, page: u64) -> Result<bool, FsError> {
        Ok(self.lock().file(file)?.dirty.contains(&page))
    }

    /// Whether the file has any mapping.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn is_mapped(&self, file: FileId) -> Result<bool, FsError> {
        Ok(!self.lock().file(file)?.mappings.is_empty())
    }

    /// Whether `gpa` is in a block of the filesystem.
    pub fn has(&self, gpa: Gpa) -> bool {
        self.lock().blocks.at(gpa).is_some()
    }

    /// Counts a pin of the block at `gpa`. Returns `false` if `gpa` is in no block.
    pub fn pin(&self, gpa: Gpa, write: bool) -> bool {
        let mut state = self.lock();
        let block = state.blocks.at(gpa);
        block.map(|block| state.blocks.pin(block, write)).is_some()
    }

    /// Removes a pin that was counted with the same `write`.
    pub fn unpin(&self, gpa: Gpa, write: bool) {
        let mut state = self.lock();
        if let Some(block) = state.blocks.at(gpa) {
            state.blocks.unpin(block, write);
        }
    }

    /// The sum of the pins of all blocks in a range of a file.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn pins(&self, file: FileId, pages: Range<u64>) -> Result<Pins, FsError> {
        let mut state = self.lock();
        let blocks = state.file(file)?.extents.blocks(pages);
        let each = blocks.into_iter().map(|block| state.blocks.pins(block));
        Ok(each.fold(Pins::default(), |sum, pins| Pins {
            all: sum.all + pins.all,
            writing: sum.writing + pins.writing,
        }))
    }

    /// Number of pins on all blocks, including blocks that were freed.
    pub fn all_pins(&self) -> u64 {
        self.lock().blocks.pinned()
    }

    /// Fails with EBUSY while any block is pinned.
    pub(crate) fn refuse_if_pinned(&self) -> Result<(), FsError> {
        match self.all_pins() {
            0 => Ok(()),
            _ => Err(FsError::refused(Errno::EBUSY, "a page is pinned")),
        }
    }

    /// unlink(2) of a file that is not in use.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted, EBUSY if it is open or mapped; or the policy refuses to free its blocks.
    pub fn remove(&self, file: FileId) -> Result<(), FsError> {
        self.refuse_if_used(file)?;
        self.truncate(file, 0)?;
        self.refuse_if_used(file)?;
        self.lock().files.remove(&file);
        Ok(())
    }

    fn refuse_if_used(&self, file: FileId) -> Result<(), FsError> {
        let mut state = self.lock();
        let inode = state.file(file)?;
        match inode.opens > 0 || !inode.mappings.is_empty() {
            true => Err(FsError::refused(Errno::EBUSY, "the file is open or mapped")),
            false => Ok(()),
        }
    }

    /// umount(2): writes out all dirty pages, and releases the memory.
    ///
    /// # Errors
    ///
    /// EBUSY while a file is open or mapped; or the policy refuses.
    pub fn unmount(&self) -> Result<(), FsError> {
        let used = |file: &File| file.opens > 0 || !file.mappings.is_empty();
        if self.lock().files.values().any(used) {
            return Err(FsError::refused(Errno::EBUSY, "a file is open or mapped"));
        }
        self.rule().before_unmount(self)?;
        let mut state = self.lock();
        if state.files.values().any(used) {
            return Err(FsError::refused(Errno::EBUSY, "a file is open or mapped"));
        }
        let files: Vec<_> = state.files.keys().copied().collect();
        files.into_iter().try_for_each(|file| state.clean(file, false))?;
        state.mounted = false;
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FsState> {
        lock(&self.state)
    }
}
