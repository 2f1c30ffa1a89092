//! Guest memory that can change after a walk has read an entry and before it marks it.

use std::sync::Arc;

use refault_bus::Gpa;
use refault_bus::dma::{DmaMemory, Exchange, GuestRam, MemoryError};
use refault_bus::layer::MemoryLayer;

/// Runs `before_exchange` before each compare-and-exchange, with its address and the value that the walk has read.
pub(crate) struct Interposed<F> {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) before_exchange: F,
}

impl<F: Fn(&GuestRam, Gpa, u64) + Send + Sync> MemoryLayer for Interposed<F> {
    fn behind(&self) -> &dyn DmaMemory {
        &*self.ram
    }

    fn compare_exchange_u64(&self, gpa: Gpa, current: u64, new: u64) -> Result<Exchange, MemoryError> {
        (self.before_exchange)(&self.ram, gpa, current);
        self.ram.compare_exchange_u64(gpa, current, new)
    }
}
