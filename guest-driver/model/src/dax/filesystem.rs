//! The filesystem: files, and reading and writing them as the kernel does.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refault_bus::Gpa;

use crate::dax::blocks::Blocks;
use crate::dax::state::{File, FsState};
use crate::dax::{Affected, Block, Errno, Extent, FsError, NoRule, Pins, Rule};
use crate::memory::FRAME;
use crate::{GuestMemory, ModelError};

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// What the filesystem did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsCounters {
    /// Faults of mappings.
    pub faults: u64,
    /// Pages that became dirty: `page_mkwrite`, and writes by the kernel.
    pub dirtied: u64,
    /// Blocks given out.
    pub allocated: u64,
    /// Blocks that were copied because they were shared.
    pub copied: u64,
    /// Pages written out.
    pub cleaned: u64,
    /// Pages that somebody said were dirty, of which the filesystem knew nothing.
    pub unexpected_dirty: u64,
}

/// A mounted filesystem.
pub struct DaxFs {
    state: Mutex<FsState>,
    rule: Mutex<Arc<dyn Rule>>,
}

impl DaxFs {
    /// Makes an empty filesystem of the whole blocks in `range` of guest-physical memory, which nobody else uses.
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

    /// Puts a policy in force.
    pub fn set_rule(&self, rule: Arc<dyn Rule>) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = rule;
    }

    pub(super) fn rule(&self) -> Arc<dyn Rule> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new file of `pages` pages, all of them a hole.
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

    /// Opens a file: as long as it is open, the filesystem cannot be unmounted.
    pub fn open(&self, file: FileId) -> Result<(), FsError> {
        self.lock().file(file)?.opens += 1;
        Ok(())
    }

    /// Closes it.
    pub fn close(&self, file: FileId) -> Result<(), FsError> {
        let mut state = self.lock();
        let inode = state.file(file)?;
        inode.opens = inode.opens.saturating_sub(1);
        Ok(())
    }

    /// Pages of a file.
    pub fn size(&self, file: FileId) -> Result<u64, FsError> {
        Ok(self.lock().file(file)?.size)
    }

    /// Its extents; what is in none is a hole.
    pub fn extents(&self, file: FileId) -> Result<Vec<Extent>, FsError> {
        Ok(self.lock().file(file)?.extents.iter().copied().collect())
    }

    /// One page; a hole is zeroes.
    pub fn read(&self, file: FileId, page: u64) -> Result<Vec<u8>, FsError> {
        let mut state = self.lock();
        let block = state.block_for_reading(file, page)?;
        Ok(state.memory.bytes(state.blocks.gpa(block), FRAME as usize)?)
    }

    /// Writes inside one page, as write(2) does: allocating, and copying what is shared.
    pub fn write(&self, file: FileId, page: u64, offset: u64, bytes: &[u8]) -> Result<(), FsError> {
        self.with_writable(file, page, |state| {
            state.notice(file, page)?;
            let block = state.block_for_reading(file, page)?;
            let at = Gpa(state.blocks.gpa(block).0 + offset);
            Ok(state.memory.dma().write(at, bytes).map_err(ModelError::from)?)
        })
    }

    /// Calls `then` under the lock, once the page has a block of its own that was written.
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
            // The rule may have waited: what is needed now may be something else.
            if state.needed_for_write(file, page)? == Some(change) {
                state.make_writable(file, page)?;
                return then(&mut state);
            }
        }
    }

    /// What it did so far.
    pub fn counters(&self) -> FsCounters {
        self.lock().counters
    }

    /// Blocks that nobody uses.
    pub fn free_blocks(&self) -> u64 {
        self.lock().blocks.free_count()
    }

    /// Whether the file would hear of a write to the page when it is cleaned.
    pub fn is_dirty(&self, file: FileId, page: u64) -> Result<bool, FsError> {
        Ok(self.lock().file(file)?.dirty.contains(&page))
    }

    /// Whether anybody maps the file.
    pub fn is_mapped(&self, file: FileId) -> Result<bool, FsError> {
        Ok(!self.lock().file(file)?.mappings.is_empty())
    }

    /// Whether memory at `gpa` is one of its blocks.
    pub fn has(&self, gpa: Gpa) -> bool {
        self.lock().blocks.at(gpa).is_some()
    }

    /// Counts a pin of the block at `gpa`; `false` if it is none of ours.
    pub fn pin(&self, gpa: Gpa, write: bool) -> bool {
        let mut state = self.lock();
        let block = state.blocks.at(gpa);
        block.map(|block| state.blocks.pin(block, write)).is_some()
    }

    /// Takes that back.
    pub fn unpin(&self, gpa: Gpa, write: bool) {
        let mut state = self.lock();
        if let Some(block) = state.blocks.at(gpa) {
            state.blocks.unpin(block, write);
        }
    }

    /// The pins of pages of a file, added up.
    pub fn pins(&self, file: FileId, pages: Range<u64>) -> Result<Pins, FsError> {
        let mut state = self.lock();
        let blocks = state.file(file)?.extents.blocks(pages);
        let each = blocks.into_iter().map(|block| state.blocks.pins(block));
        Ok(each.fold(Pins::default(), |sum, pins| Pins {
            all: sum.all + pins.all,
            writing: sum.writing + pins.writing,
        }))
    }

    /// Pins held on any block of the filesystem, whosever it is now.
    pub fn all_pins(&self) -> u64 {
        self.lock().blocks.pinned()
    }

    /// EBUSY while any block is pinned.
    pub(crate) fn refuse_if_pinned(&self) -> Result<(), FsError> {
        match self.all_pins() {
            0 => Ok(()),
            _ => Err(FsError::refused(Errno::EBUSY, "a page is pinned")),
        }
    }

    /// Removes a file that is neither open nor mapped.
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

    /// Unmounts: refused while anything is open or mapped. Everything is written out, and no block is the
    /// filesystem's any more.
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
