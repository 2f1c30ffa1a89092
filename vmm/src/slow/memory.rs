//! Slower copies: between the NIC and memory.

use std::sync::Arc;
use std::time::Instant;

use refault_bus::Gpa;
use refault_bus::dma::{CopyPiece, DmaMemory, MemoryError, PersistError};

use super::pace::{Pace, pause};

/// Memory that the NIC copies in no faster than it is to.
pub(super) struct SlowMemory {
    pub(super) memory: Arc<dyn DmaMemory>,
    pub(super) pace: Arc<Pace>,
}

impl SlowMemory {
    /// Waits for as long as `pieces` of `bytes` in all take, less what they took since `begun`.
    fn pace(&self, begun: Instant, pieces: u64, bytes: u64) {
        let fixed = (0..pieces).fold(0u64, |sum, _| sum.saturating_add(self.pace.of(|timing| &timing.copy)));
        let moving = bytes.saturating_mul(1000) / self.pace.timing.bytes_per_us.max(1);
        pause(begun, fixed.saturating_add(moving));
    }
}

impl DmaMemory for SlowMemory {
    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        let begun = Instant::now();
        self.memory.copy(src, dst, len)?;
        self.pace(begun, 1, len);
        Ok(())
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        let begun = Instant::now();
        let copied = self.memory.copy_all(pieces);
        let bytes = pieces.iter().take(copied).map(|piece| piece.len).sum();
        self.pace(begun, copied as u64, bytes);
        copied
    }

    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.memory.read(gpa, buf)
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        self.memory.write(gpa, buf)
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, MemoryError> {
        self.memory.load_u32(gpa)
    }

    fn load_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        self.memory.load_u64(gpa)
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        self.memory.store_u32(gpa, value)
    }

    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError> {
        self.memory.store_u64(gpa, value)
    }

    fn compare_exchange_u64(
        &self,
        gpa: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, MemoryError> {
        self.memory.compare_exchange_u64(gpa, current, new)
    }

    fn has_persistent(&self) -> bool {
        self.memory.has_persistent()
    }

    fn is_persistent(&self, gpa: Gpa, len: u64) -> bool {
        self.memory.is_persistent(gpa, len)
    }

    fn persist(&self, ranges: &[(Gpa, u64)]) -> Result<(), PersistError> {
        self.memory.persist(ranges)
    }
}
