//! The guest's interrupt controller, reduced to one counter per vector.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use refault_bus::irq::{MsiMessage, MsiSink};

/// Where a message-signalled interrupt must be sent to reach [`InterruptController`].
pub const MSI_ADDRESS: u32 = 0xfee0_0000;

/// Counts messages by vector, and tells a listener.
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
    /// Calls `listener` with the vector of every message from now on, after it was counted. There is one
    /// listener: `false` if there is one already.
    pub fn listen(&self, listener: impl Fn(u8) + Send + Sync + 'static) -> bool {
        self.listener.set(Box::new(listener)).is_ok()
    }

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

impl MsiSink for InterruptController {
    fn signal(&self, message: MsiMessage) {
        if message.address == u64::from(MSI_ADDRESS) {
            let vector = message.data as u8;
            self.counter(vector).fetch_add(1, Ordering::AcqRel);
            if let Some(listener) = self.listener.get() {
                listener(vector);
            }
        } else {
            self.strays.fetch_add(1, Ordering::Relaxed);
        }
    }
}
