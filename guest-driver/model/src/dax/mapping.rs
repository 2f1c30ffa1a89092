//! A mapped file: pages of it in a process' page tables.

use std::ops::Range;
use std::sync::{Arc, Weak};

use refault_bus::{Gpa, Iova};

use crate::dax::state::FsState;
use crate::dax::{DaxFs, Errno, FileId, FsError};
use crate::memory::FRAME;
use crate::paging::{PageSize, PageTables, Rights};
use crate::process::Pager;
use crate::{ModelError, Process};

/// Names a mapping of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId(pub u64);

/// Whoever holds translations of a file's pages: a process that mapped it, or anybody else who must hear when pages
/// go. Called with the filesystem's lock held.
pub trait Mapped: Send + Sync {
    /// Pages of the file are about to change their blocks. When this returns, nobody uses the old ones by it.
    fn zap(&self, pages: &Range<u64>) -> Result<(), ModelError>;

    /// Pages of the file are about to be written out: the next write to them must fault.
    fn zap_writes(&self, pages: &Range<u64>) -> Result<(), ModelError>;
}

/// Pages of a file from `first` on, at `start` of a process.
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

    /// Where the pages of `wanted` that it has lie in the process, and their bytes.
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

/// Puts a page into the tables: what is there is the same page with fewer rights, or a page of zeroes was taken away
/// before.
fn enter(space: &PageTables, at: Iova, gpa: Gpa, rights: Rights) -> Result<(), ModelError> {
    match space.lookup(at)? {
        Some(_) if rights == Rights::Write => space.protect(at, rights).map(drop),
        Some(_) => Ok(()),
        None => space.map(at, gpa, PageSize::Small, rights),
    }
}

impl DaxFs {
    /// Maps pages of a file at `start` of a process, for `rights`. Nothing is present yet.
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

    /// Tells `mapped` too when pages of the file go; the file counts as mapped.
    pub fn watch(&self, file: FileId, mapped: Arc<dyn Mapped>) -> Result<MappingId, FsError> {
        let id = self.new_mapping_id();
        self.lock().file(file)?.mappings.insert(id, mapped);
        Ok(id)
    }

    /// Forgets a mapping, of which no page is anywhere any more.
    pub fn forget(&self, file: FileId, id: MappingId) {
        if let Ok(inode) = self.lock().file(file) {
            inode.mappings.remove(&id);
        }
    }

    /// Takes pages of a file out of all tables, as before a change that then does not come: they are faulted in again.
    pub fn unmap(&self, file: FileId, pages: &Range<u64>) -> Result<(), FsError> {
        self.lock().unmap(file, pages)
    }

    /// A fault of mapping `id` at a page: `map` puts it into the tables, under the filesystem's lock. For a write the
    /// page is allocated, or copied if it is shared, and the filesystem knows from now on that it is written.
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
