//! The machine of a cell: NIC, IOMMU and model guest on one thread, on a clock that moves when somebody waits.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use refault_bus::Pasid;
use refault_bus::ats::AtsEndpoint;
use refault_bus::clock::{Clock, ManualClock};
use refault_bus::pri::ResponseCode;
use refault_bus::probe::NoProbe;
use refault_iommu::IommuConfig;
use refault_model::interrupts::Interrupts;
use refault_model::nic::{DmaDomain, Driver, DriverSetup, PageFaults, PassThrough, TranslatedDomain};
use refault_model::vtd::{Answer, Function, FunctionSetup, Unit};
use refault_model::{GuestMemory, ModelError, Pause, Process};
use refault_nic::{Nic, NicConfig, Worker};

use refault_rig::machine::NIC_VECTOR;
use refault_rig::machine::function::access;
use refault_rig::machine::platform::{PAGE_REQUEST_VECTOR, Platform};

/// Memory of the machine; [`PERSISTENT`] of it are the filesystem's.
const MEMORY: u64 = 16 << 20;
/// Bytes that the filesystem is made of.
const PERSISTENT: u64 = 1 << 20;
/// MSI-X vectors of the NIC: for its queues, and for page faults.
const NIC_VECTORS: u16 = 2;
const PAGE_FAULT_VECTOR: u16 = 1;
/// Domain id of the NIC's own, translated, space: pinned pages go through the IOMMU too, as Linux has it.
const OWN_DOMAIN: u16 = 2;
/// Polls after which a wait for a device is stuck, and rounds in which the machine must come to rest.
const PATIENCE: u64 = 100_000;

type Workers = Arc<Mutex<Vec<Worker>>>;

/// How the NIC's own accesses, those without a PASID, reach memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnSpace {
    /// Through a page table, as Linux has it: what is unmapped there is flushed, and the NIC then forgets what it read of
    /// tables that lead there.
    Translated,
    /// As they are: nothing but the NIC's own command makes it forget.
    PassThrough,
}

/// A machine that was brought up in the order of Linux.
pub(super) struct Machine {
    pub(super) memory: Arc<GuestMemory>,
    /// Where the memory is that a filesystem may be made of.
    pub(super) persistent: Range<u64>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) unit: Arc<Unit>,
    pub(super) function: Arc<Function>,
    pub(super) driver: Arc<Driver>,
    /// Page faults of on-demand regions.
    pub(super) faults: Arc<PageFaults>,
    interrupts: Arc<Interrupts>,
    workers: Workers,
    processes: Mutex<BTreeMap<Pasid, Arc<Process>>>,
    served: AtomicU64,
}

impl Machine {
    pub(super) fn new(own: OwnSpace) -> anyhow::Result<Self> {
        let (probe, clock) = (Arc::new(NoProbe), Arc::new(ManualClock::default()));
        let platform = Platform::new(MEMORY, IommuConfig::default(), probe.clone())?;
        let Platform { memory, iommu, interrupts, .. } = &platform;
        let persistent = memory.allocate(PERSISTENT, 12)?;
        let persistent = persistent.0..persistent.0 + PERSISTENT;
        let config = NicConfig { workers: 1, vectors: NIC_VECTORS, ..NicConfig::default() };
        let bdf = config.bdf;
        let nic =
            Nic::new(config, memory.dma().clone(), iommu.clone(), interrupts.clone(), clock.clone(), probe);
        let endpoint: Weak<dyn AtsEndpoint> = Arc::<Nic>::downgrade(&nic);
        iommu.attach(endpoint);
        let workers: Workers =
            Arc::new(Mutex::new((0..nic.worker_count()).map(|index| nic.worker(index)).collect()));
        let pause = pause(&workers);
        let unit = platform.bring_up(pause.clone());
        let function = unit.probe(FunctionSetup::capable(bdf))?;
        let domain = own.attach(memory, &function)?;
        let access = access(nic);
        access.config.enable_translation()?;
        function.set_ats_enabled(true);
        unit.enable_translation()?;
        access.config.enable();
        let vectors = (NIC_VECTORS, NIC_VECTOR);
        let setup = DriverSetup { function: access, memory: memory.clone(), domain, pause, vectors };
        let driver = Arc::new(Driver::start(setup)?);
        let faults = PageFaults::new(&driver, PAGE_FAULT_VECTOR, 6)?;
        let (processes, served) = (Mutex::default(), AtomicU64::new(0));
        let Platform { memory, interrupts, .. } = platform;
        Ok(Self {
            memory,
            persistent,
            clock,
            unit,
            function,
            driver,
            faults,
            interrupts,
            workers,
            processes,
            served,
        })
    }

    /// Page requests of `pasid` go to this process.
    pub(super) fn adopt(&self, pasid: Pasid, process: Arc<Process>) {
        self.processes().insert(pasid, process);
    }

    /// They go to nobody.
    pub(super) fn disown(&self, pasid: Pasid) {
        self.processes().remove(&pasid);
    }

    /// Lets the NIC do one piece of work; whether there was one. Nobody handles faults.
    pub(super) fn step(&self) -> bool {
        lock(&self.workers).iter_mut().any(Worker::poll)
    }

    /// Lets the NIC and the guest's fault handlers work until neither has anything to do. No time passes.
    pub(super) fn settle(&self) -> anyhow::Result<()> {
        for _ in 0..PATIENCE {
            let (worked, served) = (self.step(), self.serve_faults()?);
            if !worked && served == 0 {
                return Ok(());
            }
        }
        anyhow::bail!("the machine does not come to rest: that is a bug of refault")
    }

    /// One round of both fault handlers: the kernel's page request thread and the NIC driver's.
    pub(super) fn serve_faults(&self) -> Result<usize, ModelError> {
        let mut served = 0;
        if self.interrupts.take(PAGE_REQUEST_VECTOR) > 0 {
            served += self.unit.service_page_requests(|request| {
                let process = request.pasid.and_then(|pasid| self.processes().get(&pasid).cloned());
                let answer = process.map_or(ResponseCode::InvalidRequest, |process| process.fault(request));
                Answer::Now(answer)
            })?;
        }
        if self.interrupts.take(NIC_VECTOR + PAGE_FAULT_VECTOR as u8) > 0 {
            served += self.faults.service()?;
        }
        self.served.fetch_add(served as u64, Ordering::Relaxed);
        Ok(served)
    }

    /// Faults of the device that were handled so far.
    pub(super) fn faults_served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// When the NIC has something to do next, if it waits for a moment in time.
    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        lock(&self.workers).iter().filter_map(Worker::next_deadline_ns).min()
    }

    /// Moves the clock on; what is due by then is done.
    pub(super) fn pass_time_to(&self, ns: u64) {
        self.clock.advance(ns.saturating_sub(self.clock.now_ns()));
        lock(&self.workers).iter_mut().for_each(Worker::expire);
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<Pasid, Arc<Process>>> {
        lock(&self.processes)
    }
}

impl OwnSpace {
    fn attach(
        self,
        memory: &Arc<GuestMemory>,
        function: &Arc<Function>,
    ) -> Result<Arc<dyn DmaDomain>, ModelError> {
        if self == Self::PassThrough {
            function.attach_pass_through()?;
            return Ok(Arc::new(PassThrough));
        }
        let domain = TranslatedDomain::new(memory.clone())?;
        domain.attach(function, OWN_DOMAIN)?;
        Ok(domain)
    }
}

/// Waiting for a device: it works meanwhile.
fn pause(workers: &Workers) -> Pause {
    let workers = workers.clone();
    Pause::new(move |polls| {
        lock(&workers).iter_mut().for_each(|worker| while worker.poll() {});
        polls < PATIENCE
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
