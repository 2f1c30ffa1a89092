//! Memory, an IOMMU and the kernel's driver for it: what a device is plugged into.

use std::sync::Arc;

use refault_bus::dma::GuestRam;
use refault_bus::mmio::MmioDevice;
use refault_bus::probe::Probe;
use refault_iommu::{Iommu, IommuConfig};
use refault_model::interrupts::InterruptController;
use refault_model::memory::FRAME;
use refault_model::registers::RegisterWindow;
use refault_model::vtd::{RemappingUnit, RemappingUnitSetup};
use refault_model::{GuestMemory, ModelError, Pause};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Interrupt vector of the IOMMU's fault event.
pub const FAULT_VECTOR: u8 = 0x30;
/// Interrupt vector of the IOMMU's page request event.
pub const PAGE_REQUEST_VECTOR: u8 = 0x31;

/// A machine whose only device is the IOMMU, before its kernel runs.
pub struct Platform {
    /// Guest memory, all of it from address 0 on.
    pub memory: Arc<GuestMemory>,
    /// The same memory as the host maps it.
    pub ram: Arc<GuestMemoryMmap>,
    /// The IOMMU.
    pub iommu: Arc<Iommu>,
    /// Where all interrupts go.
    pub interrupts: Arc<InterruptController>,
}

impl Platform {
    /// A machine with `bytes` of memory.
    ///
    /// # Errors
    /// [`ModelError::NoRoom`] if the host cannot map so much.
    pub fn new(bytes: u64, config: IommuConfig, probe: Arc<dyn Probe>) -> Result<Self, ModelError> {
        let size = usize::try_from(bytes).map_err(|_| ModelError::NoRoom { bytes })?;
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]);
        let ram = ram.map_err(|_| ModelError::NoRoom { bytes })?;
        let ram = Arc::new(ram);
        let memory = frames(&ram);
        let interrupts = Arc::new(InterruptController::default());
        let iommu = Arc::new(Iommu::new(config, memory.dma().clone(), interrupts.clone(), probe));
        Ok(Self { memory, ram, iommu, interrupts })
    }

    /// The same machine after a reset, with no frame of its memory allocated.
    pub fn restarted(
        ram: Arc<GuestMemoryMmap>,
        iommu: Arc<Iommu>,
        interrupts: Arc<InterruptController>,
    ) -> Self {
        Self { memory: frames(&ram), ram, iommu, interrupts }
    }

    /// The kernel's configuration of the IOMMU.
    pub fn unit_setup(&self, pause: Pause) -> RemappingUnitSetup {
        let window: Arc<dyn MmioDevice> = self.iommu.clone();
        RemappingUnitSetup {
            registers: RegisterWindow::new(window),
            memory: self.memory.clone(),
            pause,
            fault_vector: FAULT_VECTOR,
            page_request_vector: PAGE_REQUEST_VECTOR,
            page_request_order: 4,
        }
    }

    /// Brings the IOMMU up, with translation still disabled.
    pub fn bring_up(&self, pause: Pause) -> Arc<RemappingUnit> {
        RemappingUnit::bring_up(self.unit_setup(pause)).expect("the IOMMU comes up")
    }
}

/// All of memory but the frame at zero, so that a null pointer leads to no valid frame.
fn frames(ram: &Arc<GuestMemoryMmap>) -> Arc<GuestMemory> {
    let bytes = ram.last_addr().0 + 1;
    GuestMemory::new(Arc::new(GuestRam::new(ram.clone())), std::iter::once(FRAME..bytes))
}
