//! A machine with a model guest: memory, IOMMU, NIC, and the drivers of both, brought up in the order of Linux 7.2. It has
//! no threads: the owner of the [`Workers`] polls them.

pub mod function;
pub mod platform;
mod processes;
mod seams;
mod workers;

use std::sync::Arc;

use refault_bus::Pasid;
use refault_bus::ats::AtsEndpoint;
use refault_bus::clock::Clock;
use refault_bus::probe::Probe;
use refault_iommu::Iommu;
use refault_model::interrupts::InterruptController;
use refault_model::nic::{DmaDomain, Driver, DriverSetup, PassThrough, TranslatedDomain};
use refault_model::vtd::{Function, FunctionSetup, RemappingUnit, RemappingUnitSetup};
use refault_model::{GuestMemory, ModelError, Pause, Process};
use refault_nic::{Nic, NicConfig};
use refault_pci::PciFunction;
use vm_memory::GuestMemoryMmap;

use platform::Platform;
pub use processes::Processes;
pub use seams::{Direct, Seams};
pub use workers::{POLLS_MAX, Workers};

/// Interrupt vector of the NIC's first MSI-X vector.
pub const NIC_VECTOR: u8 = 0x40;
/// MSI-X vectors that the driver uses by default.
pub const NIC_VECTORS: u16 = 4;
/// Domain id of the NIC's own address space, if it is translated.
const OWN_DOMAIN: u16 = 2;

/// How the NIC's own accesses, those without a PASID, reach memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnSpace {
    /// Untranslated: only commands of the NIC invalidate what it cached.
    #[default]
    PassThrough,
    /// Through a page table, as in Linux: an unmap there is flushed, which also invalidates what the NIC cached of its
    /// tables in those pages.
    Translated,
}

/// The configuration of a machine, besides its [`Platform`].
pub struct ModelMachineSetup {
    /// The NIC.
    pub nic: NicConfig,
    /// How the NIC's own accesses reach memory.
    pub own_space: OwnSpace,
    /// log2 of the page request queue's size in pages; Linux has 4.
    pub page_request_order: u8,
    /// MSI-X vectors that the driver uses, from [`NIC_VECTOR`].
    pub vectors: u16,
    /// The NIC's clock.
    pub clock: Arc<dyn Clock>,
    /// Observer of the NIC's stages.
    pub probe: Arc<dyn Probe>,
    /// How the drivers wait for a device.
    pub pause: fn(&Workers) -> Pause,
}

impl ModelMachineSetup {
    /// A machine with this NIC, otherwise configured as by Linux.
    pub fn new(nic: NicConfig, clock: Arc<dyn Clock>, probe: Arc<dyn Probe>) -> Self {
        Self {
            nic,
            own_space: OwnSpace::PassThrough,
            page_request_order: 4,
            vectors: NIC_VECTORS,
            clock,
            probe,
            pause: |workers| workers.pause(POLLS_MAX),
        }
    }
}

/// A running machine.
pub struct ModelMachine {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// The same memory as the host maps it.
    pub ram: Arc<GuestMemoryMmap>,
    /// The IOMMU.
    pub iommu: Arc<Iommu>,
    /// Where all interrupts go.
    pub interrupts: Arc<InterruptController>,
    /// The NIC.
    pub nic: Arc<Nic>,
    /// The kernel's IOMMU driver.
    pub unit: Arc<RemappingUnit>,
    /// The NIC's function, as that driver sees it.
    pub function: Arc<Function>,
    /// The NIC's driver.
    pub driver: Arc<Driver>,
    /// The NIC's workers. While they are taken, the NIC makes no progress during the drivers' waits.
    pub workers: Workers,
    /// The NIC as the IOMMU reaches it, kept alive here: the IOMMU holds a weak reference.
    endpoint: Arc<dyn AtsEndpoint>,
}

impl ModelMachine {
    /// Plugs a NIC into the platform and brings both up, with the decorators of `seams` between the parts.
    ///
    /// # Errors
    /// The model guest is out of a resource, such as memory.
    pub fn new(platform: Platform, setup: ModelMachineSetup, seams: &dyn Seams) -> Result<Self, ModelError> {
        let Platform { memory, iommu, interrupts, .. } = &platform;
        let nic = Nic::new(
            setup.nic.clone(),
            seams.memory(memory.dma().clone()),
            seams.agent(iommu.clone()),
            interrupts.clone(),
            setup.clock.clone(),
            setup.probe.clone(),
        );
        let endpoint = seams.endpoint(nic.clone());
        iommu.attach(nic.bdf(), Arc::downgrade(&endpoint));
        let workers = Workers::of(&nic);
        Self::boot(platform, nic, endpoint, workers, &setup)
    }

    /// Resets the devices and boots another kernel, without the state of the one before. NIC, clock and probe stay.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn reboot(self, setup: &ModelMachineSetup) -> Result<Self, ModelError> {
        let Self { ram, iommu, interrupts, nic, workers, endpoint, .. } = self;
        nic.reset();
        nic.endpoint().reset();
        iommu.reset();
        Self::boot(Platform::restarted(ram, iommu, interrupts), nic, endpoint, workers, setup)
    }

    /// Brings IOMMU and NIC up in the kernel's order.
    fn boot(
        platform: Platform,
        nic: Arc<Nic>,
        endpoint: Arc<dyn AtsEndpoint>,
        workers: Workers,
        setup: &ModelMachineSetup,
    ) -> Result<Self, ModelError> {
        let pause = (setup.pause)(&workers);
        let page_request_order = setup.page_request_order;
        let unit = RemappingUnit::bring_up(RemappingUnitSetup {
            page_request_order,
            ..platform.unit_setup(pause.clone())
        })?;
        let function = unit.probe(FunctionSetup::capable(setup.nic.bdf))?;
        let domain = setup.own_space.attach(&platform.memory, &function)?;
        let access = function::access(nic.clone());
        access.config.enable_translation()?;
        function.set_ats_enabled(true);
        unit.enable_translation()?;
        access.config.enable();
        let Platform { memory, ram, iommu, interrupts } = platform;
        let vectors = (setup.vectors, NIC_VECTOR);
        let driver =
            Driver::start(DriverSetup { function: access, memory: memory.clone(), domain, pause, vectors })?;
        let driver = Arc::new(driver);
        Ok(Self { memory, ram, iommu, interrupts, nic, unit, function, driver, workers, endpoint })
    }

    /// A process without mappings, bound to `pasid`.
    ///
    /// # Errors
    /// Memory is full, or the PASID is taken.
    pub fn process(&self, pasid: Pasid) -> Result<Arc<Process>, ModelError> {
        let process = Process::new(self.memory.clone())?;
        process.bind(&self.function, pasid)?;
        Ok(process)
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
