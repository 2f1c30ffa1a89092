//! Memory of this process that the NIC reaches: mapped in the container, and so pinned, for as long as it lives.
#![expect(unsafe_code, reason = "gives memory to a device")]

use std::sync::Arc;

use anyhow::{Context, Result};
use refault_bus::dma::GuestRam;
use refault_model::GuestMemory;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::device::Device;

/// Where the NIC finds the memory: behind what platforms keep for themselves, such as the range of interrupts.
const FIRST: u64 = 1 << 32;
/// How much of it there is.
const BYTES: u64 = 16 << 20;

/// Anonymous memory, mapped for the NIC at [`FIRST`].
pub(crate) struct Memory {
    frames: Arc<GuestMemory>,
}

impl Memory {
    /// Allocates and maps it. The device's container must outlive it; closing that unmaps.
    pub(crate) fn map(device: &Device) -> Result<Self> {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(FIRST), BYTES as usize)])
            .context("no memory for the queues")?;
        // SAFETY: the memory is reached through vm-memory's volatile accesses alone, never through references.
        unsafe { device.container().vfio_map_guest_memory(&memory) }
            .context("VFIO does not map anonymous memory: is RLIMIT_MEMLOCK large enough?")?;
        debug_assert_eq!(memory.num_regions(), 1);
        let ram = GuestRam::new(Arc::new(memory));
        Ok(Self { frames: GuestMemory::new(Arc::new(ram), std::iter::once(FIRST..FIRST + BYTES)) })
    }

    /// Its frames; addresses are the NIC's.
    pub(crate) fn frames(&self) -> &Arc<GuestMemory> {
        &self.frames
    }

    /// How much it is.
    pub(crate) fn bytes(&self) -> u64 {
        BYTES
    }
}
