//! Memory in front of other memory, to observe accesses, delay them, or run something before them.

use crate::Gpa;
use crate::dma::{CopyPiece, DmaMemory, Exchange, GpaRange, MemoryError, PersistError};

/// A layer overrides the methods that concern it; the defaults forward to the memory behind it. Every layer is a
/// [`DmaMemory`] with these methods; its other methods, loads among them, are always forwarded.
#[expect(missing_docs, clippy::missing_errors_doc, reason = "they are those of DmaMemory")]
pub trait MemoryLayer: Send + Sync {
    /// The memory behind this layer.
    fn behind(&self) -> &dyn DmaMemory;

    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.behind().read(gpa, buf)
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        self.behind().write(gpa, buf)
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        self.behind().copy(src, dst, len)
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        self.behind().copy_all(pieces)
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        self.behind().store_u32(gpa, value)
    }

    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError> {
        self.behind().store_u64(gpa, value)
    }

    fn compare_exchange_u64(&self, gpa: Gpa, current: u64, new: u64) -> Result<Exchange, MemoryError> {
        self.behind().compare_exchange_u64(gpa, current, new)
    }
}

impl<L: MemoryLayer> DmaMemory for L {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        MemoryLayer::read(self, gpa, buf)
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        MemoryLayer::write(self, gpa, buf)
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        MemoryLayer::copy(self, src, dst, len)
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        MemoryLayer::copy_all(self, pieces)
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, MemoryError> {
        self.behind().load_u32(gpa)
    }

    fn load_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        self.behind().load_u64(gpa)
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        MemoryLayer::store_u32(self, gpa, value)
    }

    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError> {
        MemoryLayer::store_u64(self, gpa, value)
    }

    fn compare_exchange_u64(&self, gpa: Gpa, current: u64, new: u64) -> Result<Exchange, MemoryError> {
        MemoryLayer::compare_exchange_u64(self, gpa, current, new)
    }

    fn has_persistent(&self) -> bool {
        self.behind().has_persistent()
    }

    fn persistent_region(&self, gpa: Gpa, len: u64) -> Option<GpaRange> {
        self.behind().persistent_region(gpa, len)
    }

    fn persist(&self, ranges: &[GpaRange]) -> Result<(), PersistError> {
        self.behind().persist(ranges)
    }
}
