//! The whole of it: a NIC behind the IOMMU, and the model guest that drives both.

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

/// Polls without a nap when the device works on threads of its own, and what comes then: two minutes of naps.
const BRISK_POLLS: u64 = 10_000;
const NAP: Duration = Duration::from_micros(100);
const NAPS: u64 = 1_200_000;

/// What may differ from machine to machine.
pub struct MachineSetup {
    /// Bytes of memory.
    pub memory: u64,
    /// Sizes of the IOMMU's caches.
    pub iommu: IommuConfig,
    /// The NIC.
    pub nic: NicConfig,
    /// The function's own space is translated, as Linux has it by default; else passed through.
    pub translated: bool,
    /// log2 of the pages of the page request queue; Linux has 4.
    pub page_request_order: u8,
    /// Who hears of the stages; the machine's own [`Trace`] if nobody else.
    pub probe: Option<Arc<dyn Probe>>,
    /// The NIC's clock; one that stands still until told otherwise if none is given.
    pub clock: Option<Arc<dyn Clock>>,
    /// The NIC's memory can be trapped.
    pub hooked: bool,
    /// A wait on one thread counts as stuck after 500 polls already: in each the device works.
    pub impatient: bool,
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
            impatient: false,
        }
    }
}

impl MachineSetup {
    fn rig(&self, clock: Arc<dyn Clock>, probe: Arc<dyn Probe>) -> rig::MachineSetup {
        rig::MachineSetup {
            own_space: if self.translated { OwnSpace::Translated } else { OwnSpace::PassThrough },
            page_request_order: self.page_request_order,
            vectors: NIC_VECTORS,
            pause: if self.impatient { short_pause } else { pause },
            ..rig::MachineSetup::new(self.nic.clone(), clock, probe)
        }
    }
}

/// A machine as [`rig::Machine`] brings it up, with what tests look at.
pub struct Machine {
    machine: rig::Machine,
    /// What the probes saw, unless the setup names another probe.
    pub trace: Arc<Trace>,
    /// The NIC's clock, unless the setup names another.
    pub clock: Arc<ManualClock>,
    /// The NIC's view of memory, if the setup asks for traps.
    pub hooked: Option<Arc<HookedMemory>>,
    processes: Processes,
}

impl Deref for Machine {
    type Target = rig::Machine;

    fn deref(&self) -> &rig::Machine {
        &self.machine
    }
}

impl DerefMut for Machine {
    fn deref_mut(&mut self) -> &mut rig::Machine {
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
        let machine = rig::Machine::new(platform, setup.rig(device_clock, probe), seams);
        let machine = machine.expect("the machine comes up");
        Self { machine, trace, clock, hooked: hooks.0.into_inner(), processes: Processes::default() }
    }

    /// Resets the machine and boots another kernel on it, which knows nothing of the one before.
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

    /// What process exit does, in the kernel's order: the tables are taken from the device before the driver
    /// hears of it, the driver stops and destroys the context, the PASID is unbound, and all memory goes back.
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

    /// Lets the NIC do all that it can do now; whether it did anything.
    pub fn poll(&self) -> bool {
        self.workers.poll()
    }

    /// What the page request thread does: every request in the queue is answered by its process.
    pub fn serve_faults(&self) -> usize {
        self.unit
            .service_page_requests(|request| Answer::Now(self.fault(request)))
            .expect("the queue is served")
    }

    /// The answer of the process that `request` is for; nobody's PASID is refused.
    pub fn fault(&self, request: &QueuedRequest) -> ResponseCode {
        self.processes.fault(request)
    }

    /// Lets the NIC and the page request thread work until neither has anything to do. The thread runs when
    /// its interrupt came, and only then. The clock moves on to what the NIC waits for, if nothing else will
    /// happen.
    pub fn settle(&self) {
        self.settle_with(|request| Answer::Now(self.fault(request)));
    }

    /// As [`Self::settle`], with a fault handler of one's own.
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

    /// Takes the workers, for threads to own; they come back with [`Self::put_back`]. Meanwhile nothing is done
    /// on this thread, and waits yield.
    pub fn take_workers(&self) -> Vec<Worker> {
        self.workers.take()
    }

    /// Gives the workers back.
    pub fn put_back(&self, workers: Vec<Worker>) {
        self.workers.put_back(workers);
    }

    /// Moves the clock to the next moment that a worker waits for, and lets it act; `false` if none waits.
    pub fn pass_time(&self) -> bool {
        let Some(next) = self.workers.next_deadline_ns() else { return false };
        self.clock.advance(next.saturating_sub(self.clock.now_ns()));
        self.workers.expire();
        true
    }
}

/// Waiting: on one thread the device works meanwhile; if it has threads of its own they get the processor.
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
    /// Function-level reset as Linux 7.2 does it: the function is blocked in the IOMMU, reset, and given its own
    /// space back; config space is restored, and the driver starts again, with nothing created. Processes were
    /// unbound before.
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
