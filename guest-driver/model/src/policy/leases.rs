//! The state of layout leases: their holders, ranges, and the regions pinned under them.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::sync::lock;

use crate::dax::{Errno, FileId, FsError};
use crate::policy::{Pinned, Program, ProgramId, Registration, RegistrationRequest};

/// A lease or seal in the administrator's listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The program that holds it.
    pub program: ProgramId,
    /// The file it is for.
    pub file: FileId,
    /// The pages of the file it is for.
    pub pages: Range<u64>,
    /// Number of pages pinned under it.
    pub pins: u64,
    /// Whether the holder was signalled to release it.
    pub breaking: bool,
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, file, pages, pins, breaking } = self;
        write!(f, "program {} holds pages {pages:?} of file {}, {pins} pinned", program.0, file.0)?;
        if *breaking { f.write_str(", breaking") } else { Ok(()) }
    }
}

struct Lease {
    program: Arc<dyn Program>,
    file: FileId,
    pages: Range<u64>,
    regions: Vec<Arc<Pinned>>,
    breaking: bool,
}

impl Lease {
    fn pins(&self) -> u64 {
        self.regions.iter().map(|region| region.pins()).sum()
    }

    fn overlaps(&self, file: FileId, pages: &Range<u64>) -> bool {
        self.file == file && pages.start < self.pages.end && self.pages.start < pages.end
    }
}

/// All leases of a policy.
#[derive(Default)]
pub struct LeaseBook {
    leases: Mutex<Vec<Lease>>,
}

impl LeaseBook {
    /// Grants a lease on the range of a request.
    pub fn take(&self, request: &RegistrationRequest) {
        let RegistrationRequest { program, file, pages, .. } = request.clone();
        self.lock().push(Lease { program, file, pages, regions: Vec::new(), breaking: false });
    }

    /// Pins the range of a request under a lease of the program that covers it.
    ///
    /// # Errors
    ///
    /// EPERM without such a lease, EBUSY if it is being broken; any error of [`Pinned::create`].
    pub fn pin(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        let RegistrationRequest { program, file, pages, .. } = request;
        let (id, file, pages) = (program.id(), *file, pages.clone());
        let covers = move |lease: &Lease| {
            lease.program.id() == id
                && lease.file == file
                && lease.pages.start <= pages.start
                && pages.end <= lease.pages.end
        };
        match self.lock().iter().find(|&lease| covers(lease)) {
            None => return Err(FsError::refused(Errno::EPERM, "no layout lease covers the range")),
            Some(lease) if lease.breaking => {
                return Err(FsError::refused(Errno::EBUSY, "the lease is being broken"));
            }
            Some(_) => {}
        }
        // Not with the lock held: pinning faults pages in, which may call the rule and lock the leases.
        let region = Pinned::create(request)?;
        match self.lock().iter_mut().find(|lease| covers(lease)) {
            Some(lease) => lease.regions.push(region.clone()),
            None => {
                region.release()?;
                return Err(FsError::refused(Errno::EPERM, "the lease went away meanwhile"));
            }
        }
        Ok(region)
    }

    /// Marks the leases that overlap a range as breaking, and returns their holders.
    pub(super) fn begin_break(&self, file: FileId, pages: &Range<u64>) -> Vec<Arc<dyn Program>> {
        let mut leases = self.lock();
        let hit = leases.iter_mut().filter(|lease| lease.overlaps(file, pages));
        hit.map(|lease| {
            lease.breaking = true;
            lease.program.clone()
        })
        .collect()
    }

    /// The holders of leases that overlap a range.
    pub(super) fn holders(&self, file: FileId, pages: &Range<u64>) -> Vec<Arc<dyn Program>> {
        let leases = self.lock();
        leases.iter().filter(|lease| lease.overlaps(file, pages)).map(|lease| lease.program.clone()).collect()
    }

    /// Whether anything is pinned under the leases that overlap a range.
    pub(super) fn is_pinned(&self, file: FileId, pages: &Range<u64>) -> bool {
        self.lock().iter().any(|lease| lease.overlaps(file, pages) && lease.pins() > 0)
    }

    /// Removes the leases that overlap a range, and returns the regions pinned under them.
    pub(super) fn end(&self, file: FileId, pages: &Range<u64>) -> Vec<Arc<Pinned>> {
        let gone = self.remove(|lease| lease.overlaps(file, pages));
        gone.into_iter().flat_map(|lease| lease.regions).collect()
    }

    /// Removes all leases of a program, and returns the regions pinned under them.
    pub(super) fn end_all_of(&self, program: ProgramId) -> Vec<Arc<Pinned>> {
        let gone = self.remove(|lease| lease.program.id() == program);
        gone.into_iter().flat_map(|lease| lease.regions).collect()
    }

    /// The program, if it holds a lease.
    pub(super) fn holder(&self, program: ProgramId) -> Option<Arc<dyn Program>> {
        let leases = self.lock();
        leases.iter().find(|lease| lease.program.id() == program).map(|lease| lease.program.clone())
    }

    /// Number of pages pinned under a program's leases.
    pub fn pins_of(&self, program: ProgramId) -> u64 {
        let leases = self.lock();
        leases.iter().filter(|lease| lease.program.id() == program).map(Lease::pins).sum()
    }

    /// Lists all leases.
    pub fn holdings(&self) -> Vec<Holding> {
        let each = |lease: &Lease| Holding {
            program: lease.program.id(),
            file: lease.file,
            pages: lease.pages.clone(),
            pins: lease.pins(),
            breaking: lease.breaking,
        };
        self.lock().iter().map(each).collect()
    }

    fn remove(&self, which: impl Fn(&Lease) -> bool) -> Vec<Lease> {
        let mut leases = self.lock();
        let (gone, kept) = std::mem::take(&mut *leases).into_iter().partition(which);
        *leases = kept;
        gone
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Lease>> {
        lock(&self.leases)
    }
}
