//! The guest's interrupt controller, reduced to one counter per vector.

use std::sync::atomic::{AtomicU64, Ordering};

use refault_bus::irq::{MsiMessage, MsiSink};

/// Where a message-signalled interrupt must be sent to reach [`Interrupts`].
pub const MSI_ADDRESS: u32 = 0xfee0_0000;

/// Counts messages by vector.
#[derive(Debug)]
pub struct Interrupts {
    sent: [AtomicU64; 256],
    strays: AtomicU64,
}

impl Default for Interrupts {
    fn default() -> Self {
        Self { sent: [const { AtomicU64::new(0) }; 256], strays: AtomicU64::new(0) }
    }
}

impl Interrupts {
    /// Takes all pending messages of `vector`; how many there were.
    pub fn take(&self, vector: u8) -> u64 {
        self.counter(vector).swap(0, Ordering::AcqRel)
    }

    /// Messages of `vector` not yet taken.
    pub fn pending(&self, vector: u8) -> u64 {
        self.counter(vector).load(Ordering::Acquire)
    }

    /// Messages to addresses that are nobody's.
    pub fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    fn counter(&self, vector: u8) -> &AtomicU64 {
        &self.sent[usize::from(vector)]
    }
}

impl MsiSink for Interrupts {
    fn signal(&self, message: MsiMessage) {
        if message.address == u64::from(MSI_ADDRESS) {
            self.counter(message.data as u8).fetch_add(1, Ordering::AcqRel);
        } else {
            self.strays.fetch_add(1, Ordering::Relaxed);
        }
    }
}
