//! Memory, an IOMMU and the kernel's driver for it: everything a device is plugged into.

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

/// A machine without devices, as it is before its kernel runs.
pub struct Platform {
    /// Guest memory from address 0 on; nothing else is memory.
    pub memory: Arc<GuestMemory>,
    /// The same as the host has it mapped.
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
    /// The host has no room for so much.
    pub fn new(bytes: u64, config: IommuConfig, probe: Arc<dyn Probe>) -> Result<Self, ModelError> {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes as usize)]);
        let ram = ram.map_err(|_| ModelError::NoRoom { bytes })?;
        let ram = Arc::new(ram);
        let memory = frames(&ram);
        let interrupts = Arc::new(InterruptController::default());
        let iommu = Arc::new(Iommu::new(config, memory.dma().clone(), interrupts.clone(), probe));
        Ok(Self { memory, ram, iommu, interrupts })
    }

    /// The same machine after a reset: no frame is given out.
    pub fn restarted(
        ram: Arc<GuestMemoryMmap>,
        iommu: Arc<Iommu>,
        interrupts: Arc<InterruptController>,
    ) -> Self {
        Self { memory: frames(&ram), ram, iommu, interrupts }
    }

    /// What the kernel knows of the IOMMU before it brings it up.
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

    /// Brings the IOMMU up, translation still off.
    pub fn bring_up(&self, pause: Pause) -> Arc<RemappingUnit> {
        RemappingUnit::bring_up(self.unit_setup(pause)).expect("the IOMMU comes up")
    }
}

/// All of memory but the frame at zero: a pointer that was never set points there.
fn frames(ram: &Arc<GuestMemoryMmap>) -> Arc<GuestMemory> {
    let bytes = ram.last_addr().0 + 1;
    GuestMemory::new(Arc::new(GuestRam::new(ram.clone())), std::iter::once(FRAME..bytes))
}
