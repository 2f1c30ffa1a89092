//! Driver-side access to a window of device registers.

use std::sync::Arc;

use refault_bus::mmio::MmioDevice;

/// Naturally aligned little-endian accesses to an [`MmioDevice`].
#[derive(Clone)]
pub struct RegisterWindow(Arc<dyn MmioDevice>);

impl RegisterWindow {
    /// Wraps the registers of `window`.
    pub fn new(window: Arc<dyn MmioDevice>) -> Self {
        Self(window)
    }

    /// Reads 4 bytes in one access.
    pub fn read32(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.0.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Reads 8 bytes in one access.
    pub fn read64(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Writes 4 bytes in one access.
    pub fn write32(&self, offset: u64, value: u32) {
        self.0.write(offset, &value.to_le_bytes());
    }

    /// Writes 8 bytes in one access.
    pub fn write64(&self, offset: u64, value: u64) {
        self.0.write(offset, &value.to_le_bytes());
    }
}
