//! The guest's interrupt controller, reduced to a counter per vector.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use refault_bus::irq::{MsiMessage, MsiSink};

/// The MSI address of [`InterruptController`]: that of APIC 0.
pub const MSI_ADDRESS: u32 = 0xfee0_0000;

/// Counts MSIs by vector, and calls a listener for each.
pub struct InterruptController {
    sent: [AtomicU64; 256],
    strays: AtomicU64,
    listener: OnceLock<Listener>,
}

type Listener = Box<dyn Fn(u8) + Send + Sync>;

impl Default for InterruptController {
    fn default() -> Self {
        let sent = [const { AtomicU64::new(0) }; 256];
        Self { sent, strays: AtomicU64::new(0), listener: OnceLock::new() }
    }
}

impl InterruptController {
    /// Registers `listener`, which is called with the vector of every message after it was counted. Returns `false` if
    /// a listener is registered already.
    pub fn listen(&self, listener: impl Fn(u8) + Send + Sync + 'static) -> bool {
        self.listener.set(Box::new(listener)).is_ok()
    }

    /// Clears the count of `vector` and returns it.
    pub fn take(&self, vector: u8) -> u64 {
        self.counter(vector).swap(0, Ordering::AcqRel)
    }

    /// Messages of `vector` since the last [`Self::take`].
    pub fn pending(&self, vector: u8) -> u64 {
        self.counter(vector).load(Ordering::Acquire)
    }

    /// Messages to any address but [`MSI_ADDRESS`].
    pub fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    fn counter(&self, vector: u8) -> &AtomicU64 {
        &self.sent[usize::from(vector)]
    }
}

impl MsiSink for InterruptController {
    fn signal(&self, message: MsiMessage) {
        if message.address == u64::from(MSI_ADDRESS) {
            // Bits 7:0 of the data are the vector; the rest is the delivery mode.
            let [vector, ..] = message.data.to_le_bytes();
            self.counter(vector).fetch_add(1, Ordering::AcqRel);
            if let Some(listener) = self.listener.get() {
                listener(vector);
            }
        } else {
            self.strays.fetch_add(1, Ordering::Relaxed);
        }
    }
}
