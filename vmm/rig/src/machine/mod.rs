//! The machine of the lab: memory, IOMMU, NIC, and a model guest that drives both. No part of it has a thread: whoever
//! owns the [`Worker`]s lets the NIC work.

pub mod function;
pub mod platform;

use std::sync::{Arc, Mutex, PoisonError};

use refault_bus::Pasid;
use refault_bus::ats::{AtsEndpoint, TranslationAgent};
use refault_bus::clock::Clock;
use refault_bus::dma::DmaMemory;
use refault_bus::probe::Probe;
use refault_iommu::{Iommu, IommuConfig};
use refault_model::interrupts::Interrupts;
use refault_model::nic::{Driver, DriverSetup, PageFaults, PassThrough};
use refault_model::vtd::{Function, FunctionSetup, Unit, UnitSetup};
use refault_model::{GuestMemory, ModelError, Pause, Process};
use refault_nic::{Nic, NicConfig, Worker};

use platform::Platform;

/// Interrupt vector of the NIC's first MSI-X vector.
pub const NIC_VECTOR: u8 = 0x40;
/// Interrupt vector of page faults of on-demand regions.
pub const PAGE_FAULT_VECTOR: u8 = NIC_VECTOR + 1;
/// log2 of the entries of their event queue: more than can be outstanding.
const LOG_PAGE_FAULTS: u8 = 10;
/// MSI-X vectors in use.
const NIC_VECTORS: u16 = 4;
/// Polls of a wait, in each of which the NIC works, before it counts as stuck.
const PATIENCE: u64 = 100_000;

/// What a machine is made of.
pub struct MachineSetup {
    /// Bytes of memory.
    pub memory: u64,
    /// The IOMMU.
    pub iommu: IommuConfig,
    /// The NIC.
    pub nic: NicConfig,
    /// log2 of the pages of the page request queue; Linux has 4.
    pub page_request_order: u8,
    /// The NIC's clock.
    pub clock: Arc<dyn Clock>,
    /// Who hears of the stages.
    pub probe: Arc<dyn Probe>,
}

/// What stands between the parts, where somebody wants to look or to take time.
pub trait Seams {
    /// The IOMMU as the NIC sees it.
    fn agent(&self, iommu: Arc<Iommu>) -> Arc<dyn TranslationAgent>;

    /// The NIC as the IOMMU sees it.
    fn endpoint(&self, nic: Arc<Nic>) -> Arc<dyn AtsEndpoint>;

    /// Memory as the NIC sees it.
    fn memory(&self, memory: Arc<dyn DmaMemory>) -> Arc<dyn DmaMemory>;
}

/// A machine that was brought up in the order of Linux 7.2.
pub struct Machine {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// The IOMMU.
    pub iommu: Arc<Iommu>,
    /// Where all interrupts go.
    pub interrupts: Arc<Interrupts>,
    /// The NIC.
    pub nic: Arc<Nic>,
    /// The kernel's IOMMU driver.
    pub unit: Arc<Unit>,
    /// The NIC as that driver knows it.
    pub function: Arc<Function>,
    /// The NIC's driver.
    pub driver: Arc<Driver>,
    /// Where it hears of page faults of on-demand regions, on the second vector.
    pub faults: Arc<PageFaults>,
    /// The NIC's workers; taken from here, they are their owner's to run, and waits of the driver last for ever.
    pub workers: Arc<Mutex<Vec<Worker>>>,
    /// The IOMMU knows it by a weak reference.
    _endpoint: Arc<dyn AtsEndpoint>,
}

impl Machine {
    /// Builds the machine and brings it up.
    ///
    /// # Errors
    /// A part of it has no room, such as memory.
    pub fn new(setup: MachineSetup, seams: &dyn Seams) -> Result<Self, ModelError> {
        let platform = Platform::new(setup.memory, setup.iommu, setup.probe.clone())?;
        let iommu = platform.iommu.clone();
        let nic = Nic::new(
            setup.nic.clone(),
            seams.memory(platform.memory.dma().clone()),
            seams.agent(iommu.clone()),
            platform.interrupts.clone(),
            setup.clock.clone(),
            setup.probe.clone(),
        );
        let endpoint = seams.endpoint(nic.clone());
        iommu.attach(Arc::downgrade(&endpoint));
        let workers: Vec<_> = (0..nic.worker_count()).map(|index| nic.worker(index)).collect();
        let workers = Arc::new(Mutex::new(workers));
        let pause = pause_that_works(&workers);
        let unit_setup =
            UnitSetup { page_request_order: setup.page_request_order, ..platform.unit_setup(pause.clone()) };
        let unit = Unit::bring_up(unit_setup)?;
        let function = unit.probe(FunctionSetup::capable(setup.nic.bdf))?;
        function.attach_pass_through()?;
        let access = function::access(nic.clone());
        access.config.enable_translation()?;
        function.set_ats_enabled(true);
        unit.enable_translation()?;
        access.config.enable();
        let Platform { memory, interrupts, .. } = platform;
        let driver = Arc::new(Driver::start(DriverSetup {
            function: access,
            memory: memory.clone(),
            domain: Arc::new(PassThrough),
            pause,
            vectors: (NIC_VECTORS, NIC_VECTOR),
        })?);
        let faults = PageFaults::new(&driver, u16::from(PAGE_FAULT_VECTOR - NIC_VECTOR), LOG_PAGE_FAULTS)?;
        Ok(Self {
            memory,
            iommu,
            interrupts,
            nic,
            unit,
            function,
            driver,
            faults,
            workers,
            _endpoint: endpoint,
        })
    }

    /// A process without areas whose addresses the NIC may use as `pasid`.
    ///
    /// # Errors
    /// Memory is full, or the PASID is taken.
    pub fn process(&self, pasid: Pasid) -> Result<Arc<Process>, ModelError> {
        let process = Process::new(self.memory.clone())?;
        process.bind(&self.function, pasid)?;
        Ok(process)
    }
}

/// Waiting: the NIC works meanwhile.
fn pause_that_works(workers: &Arc<Mutex<Vec<Worker>>>) -> Pause {
    let workers = workers.clone();
    Pause::new(move |polls| {
        for worker in workers.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            while worker.poll() {}
        }
        polls < PATIENCE
    })
}
