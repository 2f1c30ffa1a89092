//! A whole machine for tests: a NIC behind the IOMMU, and the model guest that drives both.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use refault_bus::Pasid;
use refault_bus::clock::{Clock, ManualClock};
use refault_bus::dma::DmaMemory;
use refault_bus::pri::ResponseCode;
use refault_bus::probe::Probe;
use refault_iommu::IommuConfig;
use refault_model::nic::{Driver, DriverSetup};
use refault_model::vtd::{Answer, QueuedRequest};
use refault_model::{Pause, Process};
use refault_nic::{NicConfig, Worker};
use refault_rig::machine::{self as rig, NIC_VECTORS, OwnSpace, POLLS_MAX, Processes, Seams, Workers};

use crate::function;
use crate::hooked::HookedMemory;
use crate::platform::{PAGE_REQUEST_VECTOR, Platform};
use crate::session::Session;
use crate::trace::Trace;

pub use refault_rig::machine::NIC_VECTOR;

/// If the device works on threads of its own, a wait first polls this often without sleeping, and then naps for two minutes
/// at most.
const BRISK_POLLS: u64 = 10_000;
const NAP: Duration = Duration::from_micros(100);
const NAPS: u64 = 1_200_000;

/// The configuration of a test's machine.
pub struct MachineSetup {
    /// Bytes of memory.
    pub memory: u64,
    /// Sizes of the IOMMU's caches.
    pub iommu: IommuConfig,
    /// The NIC.
    pub nic: NicConfig,
    /// The function's own address space is translated, as is Linux's default; otherwise it is passed through.
    pub translated: bool,
    /// log2 of the pages of the page request queue; Linux has 4.
    pub page_request_order: u8,
    /// The probe that the stages are reported to; `None` is the machine's own [`Trace`].
    pub probe: Option<Arc<dyn Probe>>,
    /// The NIC's clock; `None` is one that only the test advances.
    pub clock: Option<Arc<dyn Clock>>,
    /// Whether traps can be set on the NIC's memory accesses.
    pub hooked: bool,
    /// A driver's wait counts as stuck after 500 polls of the device, instead of [`POLLS_MAX`].
    pub short_waits: bool,
}

impl Default for MachineSetup {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            iommu: IommuConfig::default(),
            nic: NicConfig { workers: 1, ..NicConfig::default() },
            translated: false,
            page_request_order: 4,
            probe: None,
            clock: None,
            hooked: false,
            short_waits: false,
        }
    }
}

impl MachineSetup {
    fn rig(&self, clock: Arc<dyn Clock>, probe: Arc<dyn Probe>) -> rig::ModelMachineSetup {
        rig::ModelMachineSetup {
            own_space: if self.translated { OwnSpace::Translated } else { OwnSpace::PassThrough },
            page_request_order: self.page_request_order,
            vectors: NIC_VECTORS,
            pause: if self.short_waits { short_pause } else { pause },
            ..rig::ModelMachineSetup::new(self.nic.clone(), clock, probe)
        }
    }
}

/// A machine as [`rig::ModelMachine`] brings it up, with what tests inspect.
pub struct Machine {
    machine: rig::ModelMachine,
    /// The recorded stages, unless the setup has a probe of its own.
    pub trace: Arc<Trace>,
    /// The NIC's clock, unless the setup has one of its own.
    pub clock: Arc<ManualClock>,
    /// The NIC's view of memory, if the setup has traps.
    pub hooked: Option<Arc<HookedMemory>>,
    processes: Processes,
}

impl Deref for Machine {
    type Target = rig::ModelMachine;

    fn deref(&self) -> &rig::ModelMachine {
        &self.machine
    }
}

impl DerefMut for Machine {
    fn deref_mut(&mut self) -> &mut rig::ModelMachine {
        &mut self.machine
    }
}

/// Puts traps between the NIC and memory.
#[derive(Default)]
struct Hooks(OnceLock<Arc<HookedMemory>>);

impl Seams for Hooks {
    fn memory(&self, memory: Arc<dyn DmaMemory>) -> Arc<dyn DmaMemory> {
        self.0.get_or_init(|| HookedMemory::new(memory)).clone()
    }
}

impl Machine {
    /// Builds the machine and brings it up.
    pub fn new(setup: MachineSetup) -> Self {
        let trace = Arc::new(Trace::default());
        let clock = Arc::new(ManualClock::default());
        let probe = setup.probe.clone().unwrap_or_else(|| trace.clone());
        let device_clock = setup.clock.clone().unwrap_or_else(|| clock.clone());
        let platform = Platform::new(setup.memory, setup.iommu, probe.clone()).expect("guest memory");
        let hooks = Hooks::default();
        let seams: &dyn Seams = if setup.hooked { &hooks } else { &rig::Direct };
        let machine = rig::ModelMachine::new(platform, setup.rig(device_clock, probe), seams);
        let machine = machine.expect("the machine comes up");
        Self { machine, trace, clock, hooked: hooks.0.into_inner(), processes: Processes::default() }
    }

    /// Resets the machine and boots another kernel on it, without the state of the one before.
    pub fn reboot(self, setup: MachineSetup) -> Self {
        let setup = setup.rig(self.clock.clone(), self.trace.clone());
        let machine = self.machine.reboot(&setup).expect("the machine comes up again");
        Self { machine, processes: Processes::default(), ..self }
    }

    /// A process bound to `pasid`, with a context, a region over all its addresses, and two queue pairs that
    /// are connected to each other.
    pub fn open(&self, pasid: u32) -> Session {
        let pasid = Pasid::new(pasid).expect("a PASID");
        let process = Process::new(self.memory.clone()).expect("memory for a process");
        process.bind(&self.function, pasid).expect("a free PASID");
        self.processes.insert(pasid, process.clone());
        Session::open(&self.driver, process, pasid)
    }

    /// Process exit in the kernel's order: the page table is detached from the device before the driver is notified,
    /// the driver stops and destroys the context, the PASID is unbound, and all memory is freed.
    pub fn kill(&self, session: Session) {
        self.function.release(session.pasid).expect("the flushes end");
        self.driver.stop_context(session.context).expect("lane 1 answers");
        self.unbind(&session);
        let process = session.close(&self.driver);
        process.unmap_everything().expect("the flushes end");
    }

    /// Unbinds the session's process, which drains its page requests; faults are served meanwhile.
    pub fn unbind(&self, session: &Session) {
        let mut service = || {
            self.serve_faults();
            Ok(())
        };
        session.process.unbind(&self.function, session.pasid, &mut service).expect("the unbind ends");
        self.processes.remove(session.pasid);
    }

    /// Does all of the NIC's pending work. Returns false if there was none.
    pub fn poll(&self) -> bool {
        self.workers.poll()
    }

    /// Does the work of the page request thread: each queued request is answered by its process. Returns their number.
    pub fn serve_faults(&self) -> usize {
        self.unit
            .service_page_requests(|request| Answer::Now(self.fault(request)))
            .expect("the queue is served")
    }

    /// The answer of the process that `request` belongs to; a PASID without a process is refused.
    pub fn fault(&self, request: &QueuedRequest) -> ResponseCode {
        self.processes.fault(request)
    }

    /// Runs the NIC and the page request thread until both are idle. The thread runs only after its interrupt. The
    /// clock stands still.
    pub fn settle(&self) {
        self.settle_with(|request| Answer::Now(self.fault(request)));
    }

    /// As [`Self::settle`], with `handle` as the fault handler.
    pub fn settle_with(&self, mut handle: impl FnMut(&QueuedRequest) -> Answer) {
        for _ in 0..POLLS_MAX {
            let polled = self.poll();
            let interrupted = self.interrupts.take(PAGE_REQUEST_VECTOR) > 0;
            if interrupted {
                self.unit.service_page_requests(&mut handle).expect("the queue is served");
            }
            if !polled && !interrupted {
                return;
            }
        }
        panic!("the machine does not settle");
    }

    /// Takes the workers, for threads of the caller, until [`Self::put_back`]. Meanwhile this thread does no work of
    /// theirs, and waits yield.
    pub fn take_workers(&self) -> Vec<Worker> {
        self.workers.take()
    }

    /// Returns the workers.
    pub fn put_back(&self, workers: Vec<Worker>) {
        self.workers.put_back(workers);
    }

    /// Advances the clock to the next deadline of a worker, and lets it act; `false` if there is no deadline.
    pub fn pass_time(&self) -> bool {
        let Some(next) = self.workers.next_deadline_ns() else { return false };
        self.clock.advance(next.saturating_sub(self.clock.now_ns()));
        self.workers.expire();
        true
    }
}

/// A driver's wait: it polls the device, or, if the device has threads of its own, yields to them.
fn pause(workers: &Workers) -> Pause {
    waiting(workers, POLLS_MAX)
}

fn short_pause(workers: &Workers) -> Pause {
    waiting(workers, 500)
}

fn waiting(workers: &Workers, polls: u64) -> Pause {
    let workers = workers.clone();
    Pause::new(move |polled| {
        if !workers.are_taken() {
            workers.poll();
            return polled < polls;
        }
        if polled < BRISK_POLLS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(NAP);
        }
        polled < BRISK_POLLS + NAPS
    })
}

impl Machine {
    /// Function-level reset as Linux 7.2 does it: the function is blocked in the IOMMU, reset, and attached to its own
    /// address space again; config space is restored, and the driver starts anew without objects. Processes must have
    /// been unbound.
    pub fn reset_function(&mut self) {
        self.function.detach_domain().expect("the flushes end");
        self.driver.config().function_reset().expect("a resettable function");
        self.function.attach_pass_through().expect("a free entry");
        self.restart_driver();
    }

    /// Restores config space and starts the driver anew.
    pub fn restart_driver(&mut self) {
        let access = function::access(self.nic.clone());
        access.config.enable_translation().expect("PASID, ATS and page requests");
        access.config.enable();
        let setup = DriverSetup { function: access, ..self.driver.setup().clone() };
        self.driver = Arc::new(Driver::start(setup).expect("the NIC comes up"));
    }
}
