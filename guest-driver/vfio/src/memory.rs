//! Memory of this process for DMA: mapped in the VFIO container, and therefore pinned, while the container is open.
#![expect(unsafe_code, reason = "gives memory to a device")]

use std::sync::Arc;

use anyhow::{Context, Result};
use refault_bus::dma::GuestRam;
use refault_model::GuestMemory;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::device::Device;

/// DMA address of the memory: above 4 GiB, clear of ranges that platforms reserve, such as that for MSIs.
const FIRST: u64 = 1 << 32;
/// Bytes of the memory: 16 MiB.
const BYTES: u64 = 16 << 20;

/// Anonymous memory, mapped for DMA at [`FIRST`].
pub(crate) struct Memory {
    frames: Arc<GuestMemory>,
}

impl Memory {
    /// Allocates and maps the memory. Closing the device's container unmaps it, so that must not happen earlier.
    pub(crate) fn map(device: &Device) -> Result<Self> {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(FIRST), BYTES as usize)])
            .context("cannot allocate memory for the queues")?;
        // SAFETY: the memory is only accessed through the volatile accesses of vm-memory, never through references.
        unsafe { device.container().vfio_map_guest_memory(&memory) }
            .context("VFIO cannot map anonymous memory: is RLIMIT_MEMLOCK large enough?")?;
        debug_assert_eq!(memory.num_regions(), 1);
        let ram = GuestRam::new(Arc::new(memory));
        Ok(Self { frames: GuestMemory::new(Arc::new(ram), std::iter::once(FIRST..FIRST + BYTES)) })
    }

    /// The allocator of its frames, whose addresses are DMA addresses.
    pub(crate) fn frames(&self) -> &Arc<GuestMemory> {
        &self.frames
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        BYTES
    }
}
