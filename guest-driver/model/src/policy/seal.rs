//! A sealed block map: S_IOMAP_IMMUTABLE, FALLOC_FL_SEAL_BLOCK_MAP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::sync::lock;

use crate::dax::{Affected, Change, DaxFs, Errno, FileId, FsError, Rule};
use crate::policy::{Holding, Pinned, Policy, Program, ProgramId, Registration, RegistrationRequest, Signal};

/// How long a seal lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealKind {
    /// A flag of the inode on disk: until it is unsealed, across mounts.
    OnDisk,
    /// A flag of the inode in memory: until it is unsealed, or the filesystem is unmounted.
    InMemory,
    /// As [`Self::InMemory`], but no longer than the program that sealed it lives.
    UntilExit,
    /// As [`Self::InMemory`], but an operation that would change the map breaks the seal: the program is notified, its
    /// regions are revoked, and the operation proceeds.
    Breakable,
}

struct Sealed {
    by: Arc<dyn Program>,
    regions: Vec<Arc<Pinned>>,
}

/// While a file is sealed, every operation that would change its block map fails. Pages with blocks of their own can be
/// written; holes and shared blocks cannot. As no write needs the filesystem, programs flush their writes themselves.
pub struct Seal {
    kind: SealKind,
    sealed: Mutex<BTreeMap<FileId, Sealed>>,
}

impl Seal {
    /// A policy whose seals are all of this kind.
    pub fn new(kind: SealKind) -> Self {
        Self { kind, sealed: Mutex::default() }
    }

    /// Seals a file on behalf of a program. A sealed file stays with the program that sealed it first.
    pub fn seal(&self, file: FileId, by: &Arc<dyn Program>) {
        let sealed = Sealed { by: by.clone(), regions: Vec::new() };
        self.lock().entry(file).or_insert(sealed);
    }

    /// Unseals a file.
    ///
    /// # Errors
    ///
    /// EBUSY while pages are pinned under the seal.
    pub fn unseal(&self, file: FileId) -> Result<(), FsError> {
        let mut sealed = self.lock();
        if sealed.get(&file).is_some_and(|seal| seal.pins() > 0) {
            return Err(FsError::refused(Errno::EBUSY, "pages are pinned under the seal"));
        }
        sealed.remove(&file);
        Ok(())
    }

    /// Called after the filesystem was unmounted and mounted again.
    pub fn remounted(&self) {
        if self.kind != SealKind::OnDisk {
            self.lock().clear();
        }
    }

    /// Whether a file is sealed.
    pub fn is_sealed(&self, file: FileId) -> bool {
        self.lock().contains_key(&file)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FileId, Sealed>> {
        lock(&self.sealed)
    }
}

impl Sealed {
    fn pins(&self) -> u64 {
        self.regions.iter().map(|region| region.pins()).sum()
    }
}

impl Rule for Seal {
    fn before(&self, _fs: &DaxFs, affected: &Affected) -> Result<(), FsError> {
        let Affected { file, change, .. } = affected;
        if !self.is_sealed(*file) {
            return Ok(());
        }
        let broken = match self.kind {
            SealKind::Breakable => self.lock().remove(file),
            _ => None,
        };
        let Some(broken) = broken else {
            return Err(FsError::refused(
                Errno::ETXTBSY,
                match change {
                    Change::Allocate => "the block map is sealed: nothing can be allocated",
                    Change::Copy => "the block map is sealed: a shared block cannot be copied",
                    _ => "the block map is sealed",
                },
            ));
        };
        broken.by.signal(Signal::LetGo);
        let mut held = broken.regions.iter().filter(|region| region.pins() > 0);
        held.try_for_each(|region| region.revoke())
    }

    fn before_unmount(&self, _fs: &DaxFs) -> Result<(), FsError> {
        match self.lock().values().any(|seal| seal.pins() > 0) {
            false => Ok(()),
            true => Err(FsError::refused(Errno::EBUSY, "a sealed file has pinned pages")),
        }
    }
}

impl Policy for Seal {
    fn name(&self) -> &'static str {
        if self.kind == SealKind::Breakable { "sealed-breakable" } else { "sealed" }
    }

    fn prepare(&self, request: &RegistrationRequest) -> Result<(), FsError> {
        self.seal(request.file, &request.program);
        Ok(())
    }

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        if !self.is_sealed(request.file) {
            return Err(FsError::refused(Errno::EPERM, "the file is not sealed"));
        }
        let region = Pinned::create(request)?;
        if let Some(seal) = self.lock().get_mut(&request.file) {
            seal.regions.push(region.clone());
            return Ok(region);
        }
        // A fault of `Pinned::create` broke the seal: the page was a hole, or its block shared.
        region.release()?;
        Err(FsError::refused(Errno::EFAULT, "the seal was broken by a page that needs a block"))
    }

    fn exited(&self, program: ProgramId) {
        if self.kind == SealKind::UntilExit {
            self.lock().retain(|_, seal| seal.by.id() != program);
        }
    }

    fn holdings(&self) -> Vec<Holding> {
        let each = |(&file, seal): (&FileId, &Sealed)| Holding {
            program: seal.by.id(),
            file,
            pages: 0..u64::MAX,
            pins: seal.pins(),
            breaking: false,
        };
        self.lock().iter().map(each).collect()
    }

    fn program_flushes(&self) -> bool {
        true
    }
}
