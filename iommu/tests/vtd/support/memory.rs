//! Guest memory in which something happens between a walk reading an entry and marking it.

use std::sync::Arc;

use refault_bus::Gpa;
use refault_bus::dma::{DmaMemory, GuestRam, MemoryError};

/// Runs `before_exchange`, with the address and the value the walk saw, ahead of each compare-and-exchange.
pub(crate) struct Interposed<F> {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) before_exchange: F,
}

impl<F: Fn(&GuestRam, Gpa, u64) + Send + Sync> DmaMemory for Interposed<F> {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.ram.read(gpa, buf)
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        self.ram.write(gpa, buf)
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        self.ram.copy(src, dst, len)
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, MemoryError> {
        self.ram.load_u32(gpa)
    }

    fn load_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        self.ram.load_u64(gpa)
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        self.ram.store_u32(gpa, value)
    }

    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError> {
        self.ram.store_u64(gpa, value)
    }

    fn compare_exchange_u64(
        &self,
        gpa: Gpa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, MemoryError> {
        (self.before_exchange)(&self.ram, gpa, current);
        self.ram.compare_exchange_u64(gpa, current, new)
    }
}
