//! Delayed copies, between the NIC and memory.

use std::sync::Arc;
use std::time::Instant;

use refault_bus::Gpa;
use refault_bus::dma::{CopyPiece, DmaMemory, MemoryError};
use refault_bus::layer::MemoryLayer;

use super::pace::{Pace, pause};

/// Memory in which the NIC's copies take at least the given time.
pub(super) struct DelayedMemory {
    pub(super) memory: Arc<dyn DmaMemory>,
    pub(super) pace: Arc<Pace>,
}

impl DelayedMemory {
    /// Waits until `pieces` of `bytes` in total have taken their time since `begun`.
    fn pace(&self, begun: Instant, pieces: u64, bytes: u64) {
        let fixed = (0..pieces).fold(0u64, |sum, _| sum.saturating_add(self.pace.of(|timing| &timing.copy)));
        let moving = bytes.saturating_mul(1000) / self.pace.timing.bytes_per_us.max(1);
        pause(begun, fixed.saturating_add(moving));
    }
}

impl MemoryLayer for DelayedMemory {
    fn behind(&self) -> &dyn DmaMemory {
        &*self.memory
    }

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
}
