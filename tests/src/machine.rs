//! The whole of it: a NIC behind the IOMMU, and the model guest that drives both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use refault_bus::Pasid;
use refault_bus::ats::AtsEndpoint;
use refault_bus::clock::{Clock, ManualClock};
use refault_bus::dma::DmaMemory;
use refault_bus::pri::ResponseCode;
use refault_bus::probe::Probe;
use refault_iommu::{Iommu, IommuConfig};
use refault_model::interrupts::Interrupts;
use refault_model::nic::{DmaDomain, Driver, DriverSetup, PassThrough, TranslatedDomain};
use refault_model::vtd::{Answer, Function, FunctionSetup, QueuedRequest, Unit, UnitSetup};
use refault_model::{GuestMemory, Pause, Process};
use refault_nic::{Nic, NicConfig, Worker};
use refault_pci::PciFunction;
use vm_memory::GuestMemoryMmap;

use crate::function;
use crate::hooked::HookedMemory;
use crate::platform::{PAGE_REQUEST_VECTOR, Platform};
use crate::session::Session;
use crate::trace::Trace;

/// Interrupt vector of the NIC's first MSI-X vector.
pub const NIC_VECTOR: u8 = 0x40;
/// MSI-X vectors in use.
pub const NIC_VECTORS: u16 = 4;
/// Domain id of a translated own space.
const OWN_DOMAIN: u16 = 2;
/// Rounds in which the machine must come to rest.
const PATIENCE: u64 = 100_000;
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
    /// Polls of a wait on one thread before it counts as stuck: in each the device works.
    pub patience: u64,
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
            patience: PATIENCE,
        }
    }
}

/// A machine that was brought up in the order of Linux 7.2, from the IOMMU's registers to the NIC's rings.
pub struct Machine {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// The same as the host has it mapped.
    pub ram: Arc<GuestMemoryMmap>,
    /// The IOMMU.
    pub iommu: Arc<Iommu>,
    /// Where all interrupts go.
    pub interrupts: Arc<Interrupts>,
    /// What the probes saw, unless the setup names another probe.
    pub trace: Arc<Trace>,
    /// The NIC's clock, unless the setup names another.
    pub clock: Arc<ManualClock>,
    /// The NIC.
    pub nic: Arc<Nic>,
    /// The NIC's view of memory, if the setup asks for traps.
    pub hooked: Option<Arc<HookedMemory>>,
    /// The kernel's IOMMU driver.
    pub unit: Arc<Unit>,
    /// The NIC as that driver knows it.
    pub function: Arc<Function>,
    /// The NIC's driver.
    pub driver: Arc<Driver>,
    workers: Workers,
    processes: Mutex<BTreeMap<Pasid, Arc<Process>>>,
}

/// The NIC's workers, all on whichever thread polls them.
type Workers = Arc<Mutex<Vec<Worker>>>;

impl Machine {
    /// Builds the machine and brings it up.
    pub fn new(setup: MachineSetup) -> Self {
        let trace = Arc::new(Trace::default());
        let clock = Arc::new(ManualClock::default());
        let probe = setup.probe.clone().unwrap_or_else(|| trace.clone());
        let platform = Platform::new(setup.memory, setup.iommu, probe.clone()).expect("guest memory");
        let hooked = setup.hooked.then(|| HookedMemory::new(platform.memory.dma().clone()));
        let dma: Arc<dyn DmaMemory> = match &hooked {
            Some(hooked) => hooked.clone(),
            None => platform.memory.dma().clone(),
        };
        let device_clock = setup.clock.clone().unwrap_or_else(|| clock.clone());
        let (iommu, msi) = (platform.iommu.clone(), platform.interrupts.clone());
        let nic = Nic::new(setup.nic.clone(), dma, iommu.clone(), msi, device_clock, probe);
        let endpoint: Weak<dyn AtsEndpoint> = Arc::<Nic>::downgrade(&nic);
        iommu.attach(endpoint);
        let workers = (0..nic.worker_count()).map(|index| nic.worker(index)).collect();
        Self::boot(platform, nic, Arc::new(Mutex::new(workers)), hooked, setup, (trace, clock))
    }

    /// Resets the machine and boots another kernel on it, which knows nothing of the one before.
    pub fn reboot(self, setup: MachineSetup) -> Self {
        let Self { ram, iommu, interrupts, nic, workers, hooked, trace, clock, .. } = self;
        nic.reset();
        nic.endpoint().reset();
        iommu.reset();
        let platform = Platform::restarted(ram, iommu, interrupts);
        Self::boot(platform, nic, workers, hooked, setup, (trace, clock))
    }

    fn boot(
        platform: Platform,
        nic: Arc<Nic>,
        workers: Workers,
        hooked: Option<Arc<HookedMemory>>,
        setup: MachineSetup,
        (trace, clock): (Arc<Trace>, Arc<ManualClock>),
    ) -> Self {
        let (unit, function, driver) =
            bring_up(&platform, &nic, &setup, pause_that_works(&workers, setup.patience));
        let Platform { memory, ram, iommu, interrupts } = platform;
        let (driver, processes) = (Arc::new(driver), Mutex::default());
        Self {
            memory,
            ram,
            iommu,
            interrupts,
            trace,
            clock,
            nic,
            hooked,
            unit,
            function,
            driver,
            workers,
            processes,
        }
    }

    /// A process bound to `pasid`, with a context, a region over all its addresses, and two queue pairs that
    /// are connected to each other.
    pub fn open(&self, pasid: u32) -> Session {
        let pasid = Pasid::new(pasid).expect("a PASID");
        let process = Process::new(self.memory.clone()).expect("memory for a process");
        process.bind(&self.function, pasid).expect("a free PASID");
        self.processes().insert(pasid, process.clone());
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
        self.processes().remove(&session.pasid);
    }

    /// Lets the NIC do all that it can do now; whether it did anything.
    pub fn poll(&self) -> bool {
        poll(&self.workers)
    }

    /// What the page request thread does: every request in the queue is answered by its process.
    pub fn serve_faults(&self) -> usize {
        self.unit
            .service_page_requests(|request| Answer::Now(self.fault(request)))
            .expect("the queue is served")
    }

    /// The answer of the process that `request` is for; nobody's PASID is refused.
    pub fn fault(&self, request: &QueuedRequest) -> ResponseCode {
        let process = request.pasid.and_then(|pasid| self.processes().get(&pasid).cloned());
        process.map_or(ResponseCode::InvalidRequest, |process| process.fault(request))
    }

    /// Lets the NIC and the page request thread work until neither has anything to do. The thread runs when
    /// its interrupt came, and only then. The clock moves on to what the NIC waits for, if nothing else will
    /// happen.
    pub fn settle(&self) {
        self.settle_with(|request| Answer::Now(self.fault(request)));
    }

    /// As [`Self::settle`], with a fault handler of one's own.
    pub fn settle_with(&self, mut handle: impl FnMut(&QueuedRequest) -> Answer) {
        for _ in 0..PATIENCE {
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
        std::mem::take(&mut lock(&self.workers))
    }

    /// Gives the workers back.
    pub fn put_back(&self, workers: Vec<Worker>) {
        *lock(&self.workers) = workers;
    }

    /// Moves the clock to the next moment that a worker waits for, and lets it act; `false` if none waits.
    pub fn pass_time(&self) -> bool {
        let mut workers = lock(&self.workers);
        let Some(next) = workers.iter().filter_map(Worker::next_deadline_ns).min() else { return false };
        self.clock.advance(next.saturating_sub(self.clock.now_ns()));
        workers.iter_mut().for_each(Worker::expire);
        true
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<Pasid, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn poll(workers: &Mutex<Vec<Worker>>) -> bool {
    let mut workers = lock(workers);
    let mut worked = false;
    for worker in workers.iter_mut() {
        while worker.poll() {
            worked = true;
        }
    }
    worked
}

/// Waiting: on one thread the device works meanwhile; if it has threads of its own they get the processor.
fn pause_that_works(workers: &Workers, patience: u64) -> Pause {
    let workers = workers.clone();
    Pause::new(move |polls| {
        if !lock(&workers).is_empty() {
            poll(&workers);
            return polls < patience;
        }
        if polls < BRISK_POLLS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(NAP);
        }
        polls < BRISK_POLLS + NAPS
    })
}

fn lock(workers: &Mutex<Vec<Worker>>) -> MutexGuard<'_, Vec<Worker>> {
    workers.lock().unwrap_or_else(PoisonError::into_inner)
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

fn bring_up(
    platform: &Platform,
    nic: &Arc<Nic>,
    setup: &MachineSetup,
    pause: Pause,
) -> (Arc<Unit>, Arc<Function>, Driver) {
    let order = setup.page_request_order;
    let unit_setup = UnitSetup { page_request_order: order, ..platform.unit_setup(pause.clone()) };
    let unit = Unit::bring_up(unit_setup).expect("the IOMMU comes up");
    let function = unit.probe(FunctionSetup::capable(setup.nic.bdf)).expect("a context entry");
    let domain: Arc<dyn DmaDomain> = if setup.translated {
        let domain = TranslatedDomain::new(platform.memory.clone()).expect("a domain");
        domain.attach(&function, OWN_DOMAIN).expect("a PASID entry");
        domain
    } else {
        function.attach_pass_through().expect("a PASID entry");
        Arc::new(PassThrough)
    };
    let access = function::access(nic.clone());
    access.config.enable_translation().expect("PASID, ATS and page requests");
    function.set_ats_enabled(true);
    unit.enable_translation().expect("translation");
    access.config.enable();
    let vectors = (NIC_VECTORS, NIC_VECTOR);
    let memory = platform.memory.clone();
    let driver = Driver::start(DriverSetup { function: access, memory, domain, pause, vectors });
    (unit, function, driver.expect("the NIC comes up"))
}
