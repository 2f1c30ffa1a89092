//! Guest memory in which something happens between a walk reading an entry and marking it.

use std::sync::Arc;

use refault_bus::Gpa;
use refault_bus::dma::{DmaMemory, Exchange, GuestRam, MemoryError};
use refault_bus::layer::MemoryLayer;

/// Runs `before_exchange`, with the address and the value the walk saw, ahead of each compare-and-exchange.
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
