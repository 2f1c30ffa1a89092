//! A program that has a file mapped and registered, and streams requests into it and out of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refault_bus::clock::Clock;
use refault_bus::{Gpa, Iova};
use refault_model::dax::{DaxFs, FileId, FsError};
use refault_model::memory::FRAME;
use refault_model::paging::Rights;
use refault_model::policy::{Policy, ProgramId, Registration, RegistrationRequest, Signal};
use refault_model::{ModelError, Process, policy};

use super::machine::Machine;
use super::session::{Access, Done, PASID, Session};

/// Where the file is mapped.
const TARGET: Iova = Iova(0x7f80_0000_0000);

/// How a program behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Habits {
    /// It lets go of its region so many nanoseconds after it was asked to; never, if this is not set.
    pub(super) answers_after_ns: Option<u64>,
    /// It lets go of its region so many nanoseconds after it registered, unasked: its I/O is over.
    pub(super) done_after_ns: Option<u64>,
    /// Whoever let go registers again as soon as he may.
    pub(super) comes_back: bool,
}

struct Inner {
    session: Option<Session>,
    registration: Option<Arc<dyn Registration>>,
    let_go_at_ns: Option<u64>,
    signals: u32,
    killed: bool,
    /// Requests of which it did not hear any more before it ended.
    unheard: Vec<Done>,
    /// The region is for writing.
    writes: bool,
    open: bool,
}

/// A program.
pub(super) struct Program {
    machine: Arc<Machine>,
    policy: Arc<dyn Policy>,
    fs: Arc<DaxFs>,
    file: FileId,
    /// Pages of the file that are mapped, from the first on.
    pages: u64,
    habits: Habits,
    inner: Mutex<Inner>,
}

impl Program {
    /// Starts it: opens and maps `pages` pages of the file, and makes its queues. Nothing is registered yet.
    pub(super) fn start(
        machine: &Arc<Machine>,
        policy: &Arc<dyn Policy>,
        fs: &Arc<DaxFs>,
        (file, pages): (FileId, u64),
        habits: Habits,
    ) -> anyhow::Result<Arc<Self>> {
        let process = Process::new(machine.memory.clone())?;
        process.bind(&machine.function, PASID)?;
        machine.adopt(PASID, process.clone());
        fs.open(file)?;
        fs.map(&process, TARGET, (file, 0..pages), Rights::Write)?;
        let session = Session::open(machine, process)?;
        let inner = Inner {
            session: Some(session),
            registration: None,
            let_go_at_ns: None,
            signals: 0,
            killed: false,
            unheard: Vec::new(),
            writes: false,
            open: true,
        };
        let (machine, policy, fs) = (machine.clone(), policy.clone(), fs.clone());
        Ok(Arc::new(Self { machine, policy, fs, file, pages, habits, inner: Mutex::new(inner) }))
    }

    /// Its wish to have pages of the file registered; none, if it has ended.
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

    /// Registers pages of the file as the policy wants it.
    pub(super) fn register(self: &Arc<Self>, pages: Range<u64>, write: bool) -> Result<(), FsError> {
        let Some(request) = self.request(pages, write) else { return Ok(()) };
        self.policy.prepare(&request)?;
        let registration = self.policy.register(&request)?;
        let mut inner = self.lock();
        inner.registration = Some(registration);
        inner.writes = write;
        inner.let_go_at_ns = self.habits.done_after_ns.map(|after| self.machine.clock.now_ns() + after);
        Ok(())
    }

    /// Whether it has a region.
    pub(super) fn is_registered(&self) -> bool {
        self.lock().registration.is_some()
    }

    /// Whether it would register again, having let go.
    pub(super) fn comes_back(&self) -> bool {
        self.habits.comes_back && !self.is_registered() && self.lock().session.is_some()
    }

    pub(super) fn signals(&self) -> u32 {
        self.lock().signals
    }

    pub(super) fn was_killed(&self) -> bool {
        self.lock().killed
    }

    /// When it will let go.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.lock().let_go_at_ns
    }

    /// Does what is due; whether anything was.
    pub(super) fn tick(&self, now_ns: u64) -> Result<bool, FsError> {
        let registration = {
            let mut inner = self.lock();
            if inner.let_go_at_ns.is_none_or(|at| at > now_ns) {
                return Ok(false);
            }
            inner.let_go_at_ns = None;
            inner.registration.take()
        };
        registration.map_or(Ok(()), |registration| registration.release())?;
        Ok(true)
    }

    /// Posts a request for a page of the file on a lane.
    pub(super) fn post(&self, lane: usize, access: Access, page: u64) -> Result<(), ModelError> {
        let mut inner = self.lock();
        let Inner { session: Some(session), registration: Some(registration), .. } = &mut *inner else {
            return Ok(());
        };
        session.post(lane, access, page, &**registration)
    }

    /// The memory that a page of the file is in its page tables, faulted in for reading.
    pub(super) fn page_of_memory(&self, page: u64) -> Option<Gpa> {
        let (process, _) = self.process_and_pd()?;
        process.fault_at(Iova(TARGET.0 + page * FRAME), false).ok().map(|leaf| leaf.gpa)
    }

    /// Whether its region is for writing.
    pub(super) fn wrote(&self) -> bool {
        self.lock().writes
    }

    /// What is over of what was posted.
    pub(super) fn drain(&self) -> Result<Vec<Done>, ModelError> {
        let mut inner = self.lock();
        let mut all = std::mem::take(&mut inner.unheard);
        if let Some(session) = &mut inner.session {
            all.extend(session.drain()?);
        }
        Ok(all)
    }

    /// Takes lanes that failed through RESET.
    pub(super) fn recover(&self) -> Result<(), ModelError> {
        let mut inner = self.lock();
        inner.session.as_mut().map_or(Ok(()), |session| session.recover(&self.machine))
    }

    /// Unmaps and closes the file; its region stays, if the policy lets it.
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

    /// What the kernel does when it ends: the device is stopped and loses its address space, then regions, queues,
    /// memory and files go.
    pub(super) fn end(&self) -> Result<(), FsError> {
        let (session, registration, open) = {
            let mut inner = self.lock();
            inner.let_go_at_ns = None;
            (inner.session.take(), inner.registration.take(), std::mem::take(&mut inner.open))
        };
        let Some(mut session) = session else { return Ok(()) };
        let (function, driver) = (&self.machine.function, &self.machine.driver);
        function.release(PASID)?;
        driver.stop_context(session.context)?;
        self.lock().unheard = session.abandon()?;
        let mut serve = || self.machine.serve_faults().map(drop);
        session.process.unbind(function, PASID, &mut serve)?;
        self.machine.disown(PASID);
        registration.map_or(Ok(()), |registration| registration.release())?;
        let process = session.close(&self.machine)?;
        process.unmap_everything()?;
        if open {
            self.fs.close(self.file)?;
        }
        self.policy.exited(policy_id());
        Ok(())
    }

    fn process_and_pd(&self) -> Option<(Arc<Process>, u32)> {
        self.lock().session.as_ref().map(|session| (session.process.clone(), session.pd))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is one program.
fn policy_id() -> ProgramId {
    ProgramId(1)
}

impl policy::Program for Program {
    fn id(&self) -> ProgramId {
        policy_id()
    }

    fn signal(&self, signal: Signal) {
        self.lock().signals += 1;
        match signal {
            Signal::LetGo => {
                let at = self.habits.answers_after_ns.map(|after| self.machine.clock.now_ns() + after);
                let mut inner = self.lock();
                inner.let_go_at_ns = inner.let_go_at_ns.into_iter().chain(at).min();
            }
            Signal::Kill => {
                self.lock().killed = true;
                // A program that cannot be ended keeps what it has; that is found at the end of the cell.
                let _ = self.end();
            }
        }
    }
}
