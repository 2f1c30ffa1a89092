//! Mappings of files: mmap(2), faults, and the removal of pages from page tables.

use std::ops::Range;
use std::sync::{Arc, Weak};

use refault_bus::{Gpa, Iova};

use crate::dax::state::FsState;
use crate::dax::{DaxFs, Errno, FileId, FsError};
use crate::memory::FRAME;
use crate::paging::{PageSize, PageTables, Rights};
use crate::process::Pager;
use crate::{ModelError, Process};

/// Identifies a mapping of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId(pub u64);

/// A holder of translations of a file's pages: a process that mapped the file, or a device table that the filesystem
/// fills. Called with the filesystem's lock held.
pub trait Mapped: Send + Sync {
    /// Removes translations of `pages`, whose blocks are about to change. When it returns, no access through this
    /// mapping to the old blocks is in flight.
    ///
    /// # Errors
    ///
    /// If a flush fails; the blocks then do not change.
    fn zap(&self, pages: &Range<u64>) -> Result<(), ModelError>;

    /// Write-protects `pages`, which are about to be written out: the next write must fault.
    ///
    /// # Errors
    ///
    /// If a flush fails.
    fn zap_writes(&self, pages: &Range<u64>) -> Result<(), ModelError>;
}

/// `pages` of a file, mapped at `start` in a process.
struct FileMapping {
    fs: Arc<DaxFs>,
    file: FileId,
    id: MappingId,
    process: Weak<Process>,
    start: Iova,
    pages: Range<u64>,
}

impl FileMapping {
    fn page_at(&self, at: Iova) -> u64 {
        self.pages.start + (at.0 - self.start.0) / FRAME
    }

    /// Address and length in bytes of the mapped part of `wanted`.
    fn range(&self, wanted: &Range<u64>) -> Option<(Iova, u64)> {
        let (from, to) = (wanted.start.max(self.pages.start), wanted.end.min(self.pages.end));
        let start = self.start.0 + from.saturating_sub(self.pages.start) * FRAME;
        (from < to).then(|| (Iova(start), (to - from) * FRAME))
    }
}

impl Mapped for FileMapping {
    fn zap(&self, pages: &Range<u64>) -> Result<(), ModelError> {
        match (self.process.upgrade(), self.range(pages)) {
            (Some(process), Some((start, bytes))) => process.zap(start, bytes),
            _ => Ok(()),
        }
    }

    fn zap_writes(&self, pages: &Range<u64>) -> Result<(), ModelError> {
        match (self.process.upgrade(), self.range(pages)) {
            (Some(process), Some((start, bytes))) => process.zap_writes(start, bytes),
            _ => Ok(()),
        }
    }
}

impl Pager for FileMapping {
    fn fault(&self, space: &PageTables, at: Iova, write: bool) -> Result<(), ModelError> {
        let mut map = |gpa, rights| enter(space, at, gpa, rights);
        let faulted = self.fs.fault(self.file, Some(self.id), self.page_at(at), write, &mut map);
        faulted.map_err(|error| match error {
            FsError::Model(error) => error,
            _ => ModelError::NotMapped { iova: at },
        })
    }

    fn unmapped(&self) -> Result<(), ModelError> {
        self.zap(&self.pages)?;
        self.fs.forget(self.file, self.id);
        Ok(())
    }
}

/// Maps a page, or raises its rights. A page that is mapped already is the same one with fewer rights, since a change
/// of the block would have unmapped it.
fn enter(space: &PageTables, at: Iova, gpa: Gpa, rights: Rights) -> Result<(), ModelError> {
    match space.lookup(at)? {
        Some(_) if rights == Rights::Write => space.protect(at, rights).map(drop),
        Some(_) => Ok(()),
        None => space.map(at, gpa, PageSize::Small, rights),
    }
}

impl DaxFs {
    /// mmap(2) of pages of a file at `start` in a process. Pages are mapped on faults only.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn map(
        self: &Arc<Self>,
        process: &Arc<Process>,
        start: Iova,
        (file, pages): (FileId, Range<u64>),
        rights: Rights,
    ) -> Result<MappingId, FsError> {
        let id = self.new_mapping_id();
        let bytes = (pages.end - pages.start) * FRAME;
        let mapping = Arc::new(FileMapping {
            fs: self.clone(),
            file,
            id,
            process: Arc::downgrade(process),
            start,
            pages,
        });
        self.lock().file(file)?.mappings.insert(id, mapping.clone());
        process.map_pager(start, bytes, rights, mapping);
        Ok(id)
    }

    /// Adds `mapped` to the file's mappings, which are called before blocks change.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted.
    pub fn watch(&self, file: FileId, mapped: Arc<dyn Mapped>) -> Result<MappingId, FsError> {
        let id = self.new_mapping_id();
        self.lock().file(file)?.mappings.insert(id, mapped);
        Ok(id)
    }

    /// Removes a mapping. Its pages must have been removed from all tables.
    pub fn forget(&self, file: FileId, id: MappingId) {
        if let Ok(inode) = self.lock().file(file) {
            inode.mappings.remove(&id);
        }
    }

    /// Removes pages of a file from all tables without changing blocks; later accesses fault them in again.
    ///
    /// # Errors
    ///
    /// ENOENT, EIO if not mounted; any error of a mapping.
    pub fn unmap(&self, file: FileId, pages: &Range<u64>) -> Result<(), FsError> {
        self.lock().unmap(file, pages)
    }

    /// Handles a fault of mapping `id` at `page`. A write allocates a block for a hole, copies a shared one, and sets
    /// the page dirty (`page_mkwrite`). Then `map` enters the page into the tables. It is called with the filesystem's
    /// lock held, so that the block cannot change before it is mapped.
    ///
    /// # Errors
    ///
    /// EFAULT if the mapping is gone or the page beyond the end of the file; ENOENT, EIO if not mounted, ENOSPC; the
    /// policy refuses; any error of `map`.
    pub fn fault(
        &self,
        file: FileId,
        id: Option<MappingId>,
        page: u64,
        write: bool,
        map: &mut dyn FnMut(Gpa, Rights) -> Result<(), ModelError>,
    ) -> Result<(), FsError> {
        let gone = FsError::refused(Errno::EFAULT, "the mapping is gone");
        let rights = if write { Rights::Write } else { Rights::Read };
        let finish = |state: &mut FsState| {
            if id.is_some_and(|id| state.files.get(&file).is_none_or(|file| !file.mappings.contains_key(&id)))
            {
                return Err(gone);
            }
            let block = state.block_for_reading(file, page)?;
            state.counters.faults += 1;
            if write {
                state.notice(file, page)?;
            }
            Ok(map(state.blocks.gpa(block), rights)?)
        };
        if write { self.with_writable(file, page, finish) } else { finish(&mut self.lock()) }
    }

    fn new_mapping_id(&self) -> MappingId {
        let mut state = self.lock();
        let id = MappingId(state.next_id);
        state.next_id += 1;
        id
    }
}
