//! The program of a cell: it maps and registers a file, and streams requests to and from it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::clock::Clock;
use refault_bus::sync::lock;
use refault_bus::{Gpa, Iova};
use refault_model::dax::{DaxFs, FileId, FsError};
use refault_model::memory::FRAME;
use refault_model::paging::Rights;
use refault_model::policy::{Policy, ProgramId, Registration, RegistrationRequest, Signal};
use refault_model::{ModelError, Process, policy};

use super::machine::CellMachine;
use super::queues::{CompletedRequest, PASID, PageAccess, QueueSet};

/// Address of the file's mapping.
const TARGET: Iova = Iova(0x7f80_0000_0000);

/// How a program behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramBehaviour {
    /// Nanoseconds from a request to release the region until it does; `None`: it ignores the request.
    pub(super) releases_after_ns: Option<u64>,
    /// Nanoseconds from registration until it releases the region unasked, because its I/O is done.
    pub(super) done_after_ns: Option<u64>,
    /// Whether it registers again after a release.
    pub(super) registers_again: bool,
}

struct Inner {
    queues: Option<QueueSet>,
    registration: Option<Arc<dyn Registration>>,
    release_at_ns: Option<u64>,
    signals: u32,
    killed: bool,
    /// Completions that it had not polled when it ended.
    unreported: Vec<CompletedRequest>,
    /// Whether the region is writable.
    writes: bool,
    open: bool,
}

/// The program of a cell.
pub(super) struct CellProgram {
    machine: Arc<CellMachine>,
    policy: Arc<dyn Policy>,
    fs: Arc<DaxFs>,
    file: FileId,
    /// Number of mapped pages, from the first on.
    pages: u64,
    behaviour: ProgramBehaviour,
    inner: Mutex<Inner>,
}

impl CellProgram {
    /// Starts the program: opens the file, maps its first `pages` pages and creates queues, without registering.
    pub(super) fn start(
        machine: &Arc<CellMachine>,
        policy: &Arc<dyn Policy>,
        fs: &Arc<DaxFs>,
        (file, pages): (FileId, u64),
        behaviour: ProgramBehaviour,
    ) -> anyhow::Result<Arc<Self>> {
        let process = Process::new(machine.memory.clone())?;
        process.bind(&machine.function, PASID)?;
        machine.attach_process(PASID, process.clone());
        fs.open(file)?;
        fs.map(&process, TARGET, (file, 0..pages), Rights::Write)?;
        let queues = QueueSet::open(machine, process)?;
        let inner = Inner {
            queues: Some(queues),
            registration: None,
            release_at_ns: None,
            signals: 0,
            killed: false,
            unreported: Vec::new(),
            writes: false,
            open: true,
        };
        let (machine, policy, fs) = (machine.clone(), policy.clone(), fs.clone());
        Ok(Arc::new(Self { machine, policy, fs, file, pages, behaviour, inner: Mutex::new(inner) }))
    }

    /// A request to register pages of the file; `None` if the program has ended.
    pub(super) fn request(self: &Arc<Self>, pages: Range<u64>, write: bool) -> Option<RegistrationRequest> {
        let (process, pd) = self.process_and_pd()?;
        Some(RegistrationRequest {
            program: self.clone(),
            process,
            driver: self.machine.driver.clone(),
            faults: self.machine.faults.clone(),
            pd,
            fs: self.fs.clone(),
            file: self.file,
            start: Iova(TARGET.0 + pages.start * FRAME),
            pages,
            write,
        })
    }

    /// Registers pages of the file under the policy.
    pub(super) fn register(self: &Arc<Self>, pages: Range<u64>, write: bool) -> Result<(), FsError> {
        let Some(request) = self.request(pages, write) else { return Ok(()) };
        self.policy.prepare(&request)?;
        let registration = self.policy.register(&request)?;
        let mut inner = self.lock();
        inner.registration = Some(registration);
        inner.writes = write;
        inner.release_at_ns = self.behaviour.done_after_ns.map(|after| self.machine.clock.now_ns() + after);
        Ok(())
    }

    /// Whether it has a region.
    pub(super) fn is_registered(&self) -> bool {
        self.lock().registration.is_some()
    }

    /// Whether it has released its region and is to register again.
    pub(super) fn registers_again(&self) -> bool {
        self.behaviour.registers_again && !self.is_registered() && self.lock().queues.is_some()
    }

    pub(super) fn signals(&self) -> u32 {
        self.lock().signals
    }

    pub(super) fn was_killed(&self) -> bool {
        self.lock().killed
    }

    /// The virtual time at which it releases its region.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.lock().release_at_ns
    }

    /// Releases the region if that is due; returns whether it was.
    pub(super) fn tick(&self, now_ns: u64) -> Result<bool, FsError> {
        let registration = {
            let mut inner = self.lock();
            if inner.release_at_ns.is_none_or(|at| at > now_ns) {
                return Ok(false);
            }
            inner.release_at_ns = None;
            inner.registration.take()
        };
        registration.map_or(Ok(()), |registration| registration.release())?;
        Ok(true)
    }

    /// Posts a request for a page of the file on a channel.
    pub(super) fn post(&self, channel: usize, access: PageAccess, page: u64) -> Result<(), ModelError> {
        let mut inner = self.lock();
        let Inner { queues: Some(queues), registration: Some(registration), .. } = &mut *inner else {
            return Ok(());
        };
        queues.post(channel, access, page, &**registration)
    }

    /// The guest-physical address of a page of the file, faulted in for reading.
    pub(super) fn page_of_memory(&self, page: u64) -> Option<Gpa> {
        let (process, _) = self.process_and_pd()?;
        process.fault_at(Iova(TARGET.0 + page * FRAME), false).ok().map(|leaf| leaf.gpa)
    }

    /// Whether its region is for writing.
    pub(super) fn wrote(&self) -> bool {
        self.lock().writes
    }

    /// Takes the completions so far, of all channels.
    pub(super) fn drain(&self) -> Result<Vec<CompletedRequest>, ModelError> {
        let mut inner = self.lock();
        let mut all = std::mem::take(&mut inner.unreported);
        if let Some(queues) = &mut inner.queues {
            all.extend(queues.drain()?);
        }
        Ok(all)
    }

    /// Resets and reconnects failed channels.
    pub(super) fn recover(&self) -> Result<(), ModelError> {
        let mut inner = self.lock();
        inner.queues.as_mut().map_or(Ok(()), |queues| queues.recover(&self.machine))
    }

    /// Unmaps and closes the file; the region stays if the policy allows it.
    pub(super) fn close_file(&self) -> Result<(), FsError> {
        self.policy.before_munmap(policy_id())?;
        let process = self.process_and_pd().map(|(process, _)| process);
        if let Some(process) = process {
            process.unmap_area(TARGET, self.pages * FRAME)?;
        }
        self.fs.close(self.file)?;
        self.lock().open = false;
        self.policy.closed(policy_id())
    }

    /// Tears down the program in the kernel's order: detach the address space, stop the device's context, then destroy
    /// regions and queues, unmap memory, and close the file.
    pub(super) fn end(&self) -> Result<(), FsError> {
        let (queues, registration, open) = {
            let mut inner = self.lock();
            inner.release_at_ns = None;
            (inner.queues.take(), inner.registration.take(), std::mem::take(&mut inner.open))
        };
        let Some(mut queues) = queues else { return Ok(()) };
        let (function, driver) = (&self.machine.function, &self.machine.driver);
        function.release(PASID)?;
        driver.stop_context(queues.context)?;
        self.lock().unreported = queues.abandon()?;
        let mut serve = || self.machine.serve_faults().map(drop);
        queues.process.unbind(function, PASID, &mut serve)?;
        self.machine.detach_process(PASID);
        registration.map_or(Ok(()), |registration| registration.release())?;
        let process = queues.close(&self.machine)?;
        process.unmap_everything()?;
        if open {
            self.fs.close(self.file)?;
        }
        self.policy.exited(policy_id());
        Ok(())
    }

    fn process_and_pd(&self) -> Option<(Arc<Process>, u32)> {
        self.lock().queues.as_ref().map(|queues| (queues.process.clone(), queues.pd))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

/// There is one program.
fn policy_id() -> ProgramId {
    ProgramId(1)
}

impl policy::Program for CellProgram {
    fn id(&self) -> ProgramId {
        policy_id()
    }

    fn signal(&self, signal: Signal) {
        self.lock().signals += 1;
        match signal {
            Signal::LetGo => {
                let at = self.behaviour.releases_after_ns.map(|after| self.machine.clock.now_ns() + after);
                let mut inner = self.lock();
                inner.release_at_ns = inner.release_at_ns.into_iter().chain(at).min();
            }
            Signal::Kill => {
                self.lock().killed = true;
                // A program that cannot be ended keeps its resources, which the checks at the end of the cell find.
                let _ = self.end();
            }
        }
    }
}
