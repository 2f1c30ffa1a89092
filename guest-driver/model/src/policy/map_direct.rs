//! MAP_DIRECT: a mapping that seals the block map.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::sync::lock;

use crate::dax::{Affected, DaxFs, Errno, FileId, FsError, Rule};
use crate::policy::{Pinned, Policy, ProgramId, Registration, RegistrationRequest};

/// A flag of mmap(2). A fault in such a mapping succeeds only if it needs neither page cache nor a change of the block
/// map; while the mapping exists, changes of the file's block map fail. The flag is not stored on disk, and munmap(2)
/// ends it even if pages are still pinned.
#[derive(Default)]
pub struct MapDirect {
    mapped: Mutex<BTreeMap<ProgramId, FileId>>,
}

impl MapDirect {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProgramId, FileId>> {
        lock(&self.mapped)
    }
}

impl Rule for MapDirect {
    fn before(&self, _fs: &DaxFs, affected: &Affected) -> Result<(), FsError> {
        match self.lock().values().any(|file| *file == affected.file) {
            true => Err(FsError::refused(Errno::ETXTBSY, "the file is mapped with MAP_DIRECT")),
            false => Ok(()),
        }
    }
}

impl Policy for MapDirect {
    fn name(&self) -> &'static str {
        "map-direct"
    }

    /// mmap(2) with MAP_DIRECT.
    fn prepare(&self, request: &RegistrationRequest) -> Result<(), FsError> {
        self.lock().insert(request.program.id(), request.file);
        Ok(())
    }

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        if self.lock().get(&request.program.id()) != Some(&request.file) {
            return Err(FsError::refused(Errno::EOPNOTSUPP, "the mapping is not MAP_DIRECT"));
        }
        Ok(Pinned::create(request)?)
    }

    fn before_munmap(&self, program: ProgramId) -> Result<(), FsError> {
        self.lock().remove(&program);
        Ok(())
    }

    fn exited(&self, program: ProgramId) {
        self.lock().remove(&program);
    }

    fn program_flushes(&self) -> bool {
        true
    }
}
