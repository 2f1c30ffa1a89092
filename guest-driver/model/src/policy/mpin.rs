//! mpin(start, length): a guarantee for a mapping, with its own memory accounting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::Iova;
use refault_bus::sync::lock;

use crate::Process;
use crate::dax::{Affected, Change, DaxFs, Errno, FsError, Rule};
use crate::memory::FRAME;
use crate::policy::pinned::fault_in;
use crate::policy::{Pinned, Policy, ProgramId, Registration, RegistrationRequest};
use crate::scheduler::{Scheduler, WaitResult};

/// What happens to an operation that would move mpinned pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenPinned {
    /// The operation fails with EBUSY.
    Refuse,
    /// The operation waits for munpin.
    Wait,
}

/// The memory that a program has mpinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Bytes of RAM, which count against RLIMIT_MEMLOCK.
    pub ram: u64,
    /// Bytes of persistent memory, which do not.
    pub dax: u64,
}

/// mpin(2) guarantees that a mapping does not fault and does not migrate. Drivers pin only mpinned memory. RAM is
/// accounted once, however often it is pinned; pages of a DAX file are not RAM.
pub struct Mpin {
    scheduler: Arc<dyn Scheduler>,
    when_pinned: WhenPinned,
    /// RLIMIT_MEMLOCK, in bytes.
    limit: u64,
    promises: Mutex<BTreeMap<ProgramId, Promise>>,
}

/// A program's mpinned memory, and the regions that pin it.
#[derive(Default)]
struct Promise {
    account: Account,
    regions: Vec<Arc<Pinned>>,
}

impl Mpin {
    /// A policy with RLIMIT_MEMLOCK of `limit` bytes.
    pub fn new(scheduler: Arc<dyn Scheduler>, when_pinned: WhenPinned, limit: u64) -> Self {
        Self { scheduler, when_pinned, limit, promises: Mutex::default() }
    }

    /// Faults in the `bytes` at `start` and accounts for them. Returns the program's new account.
    ///
    /// # Errors
    ///
    /// EFAULT if a page cannot be faulted in; ENOMEM beyond the limit.
    pub fn mpin(
        &self,
        fs: &DaxFs,
        program: ProgramId,
        (process, start, bytes): (&Process, Iova, u64),
        write: bool,
    ) -> Result<Account, FsError> {
        let mut added = Account::default();
        fault_in(process, (start, bytes), write, |leaf| {
            *(if fs.has(leaf.gpa) { &mut added.dax } else { &mut added.ram }) += FRAME;
            Ok(())
        })?;
        let mut promises = self.lock();
        let account = &mut promises.entry(program).or_default().account;
        if account.ram + added.ram > self.limit {
            return Err(FsError::refused(Errno::ENOMEM, "more memory would be locked than the limit allows"));
        }
        account.ram += added.ram;
        account.dax += added.dax;
        Ok(*account)
    }

    /// Ends the guarantee for all of a program's memory.
    ///
    /// # Errors
    ///
    /// EBUSY while a region pins it.
    pub fn munpin(&self, program: ProgramId) -> Result<(), FsError> {
        self.before_munmap(program)?;
        self.lock().remove(&program);
        Ok(())
    }

    /// The account of a program.
    pub fn account(&self, program: ProgramId) -> Account {
        self.lock().get(&program).map(|promise| promise.account).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProgramId, Promise>> {
        lock(&self.promises)
    }
}

impl Rule for Mpin {
    fn before(&self, fs: &DaxFs, affected: &Affected) -> Result<(), FsError> {
        let Affected { file, pages, change } = affected;
        let pinned = || fs.pins(*file, pages.clone()).is_ok_and(|pins| pins.all > 0);
        if *change == Change::Allocate || !pinned() {
            return Ok(());
        }
        match self.when_pinned {
            WhenPinned::Refuse => Err(FsError::refused(Errno::EBUSY, "the page is mpinned")),
            WhenPinned::Wait => match self.scheduler.wait(None, &mut || !pinned()) {
                WaitResult::Ready => Ok(()),
                _ => Err(FsError::Forever("munpin")),
            },
        }
    }

    fn pins_keep_dirty(&self) -> bool {
        true
    }
}

impl Policy for Mpin {
    fn name(&self) -> &'static str {
        "mpin"
    }

    fn prepare(&self, request: &RegistrationRequest) -> Result<(), FsError> {
        let RegistrationRequest { fs, program, process, start, write, .. } = request;
        self.mpin(fs, program.id(), (process, *start, request.bytes()), *write).map(drop)
    }

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        let program = request.program.id();
        if !self.lock().contains_key(&program) {
            return Err(FsError::refused(Errno::EPERM, "the memory is not mpinned"));
        }
        let region = Pinned::create(request)?;
        if let Some(promise) = self.lock().get_mut(&program) {
            promise.regions.push(region.clone());
        }
        Ok(region)
    }

    fn before_munmap(&self, program: ProgramId) -> Result<(), FsError> {
        let promises = self.lock();
        let relied_on = |promise: &Promise| promise.regions.iter().any(|region| region.pins() > 0);
        match promises.get(&program).is_some_and(relied_on) {
            false => Ok(()),
            true => Err(FsError::refused(Errno::EBUSY, "a region uses what is mpinned")),
        }
    }

    fn exited(&self, program: ProgramId) {
        self.lock().remove(&program);
    }
}
