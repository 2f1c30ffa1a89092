//! The registers of queued invalidation: IQH, IQT, IQA (§11.4.9), and the completion status and event.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use refault_bus::irq::MsiSink;

use crate::interrupt::EventRegisters;
use crate::spec::registers::InvalidationQueueAddress;

/// Offset bits of IQH and IQT: 18:4. An offset of 256-bit descriptors does not use bit 4. It is kept, so that a tail
/// with that bit is refused.
const OFFSET_BITS: u32 = 0x7_fff0;

/// The queue's registers, and the lock under which it is executed. The registers are atomics outside that lock, because
/// another vCPU may read them while an invalidation waits for a device. They order no other memory, hence relaxed.
#[derive(Debug, Default)]
pub(crate) struct InvalidationQueue {
    address: AtomicU64,
    head: AtomicU32,
    tail: AtomicU32,
    enabled: AtomicBool,
    /// Held by whatever invalidates or waits for devices: this queue, commands, register-based invalidation.
    pub(crate) ring: Mutex<Ring>,
}

/// The queue as it was when it was enabled. Software must not move an enabled queue (§11.4.9.3); if it does, the old
/// one stays in use.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub(crate) address: InvalidationQueueAddress,
    /// An error stopped the queue: nothing is fetched until software clears FSTS.IQE.
    pub(crate) stopped: bool,
}

impl Ring {
    /// Size of the ring in bytes: 2^QS pages.
    pub(crate) fn bytes(&self) -> u32 {
        0x1000 << self.address.size()
    }
}

impl InvalidationQueue {
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub(crate) fn head(&self) -> u32 {
        self.head.load(Ordering::Relaxed)
    }

    pub(crate) fn tail(&self) -> u32 {
        self.tail.load(Ordering::Relaxed)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address.load(Ordering::Relaxed)
    }

    /// Changes IQA. It takes effect when the queue is next enabled.
    pub(crate) fn update_address(&self, change: impl Fn(u64) -> u64) {
        self.address.update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    /// Writes IQT. Bits that are not part of an offset read as zero.
    pub(crate) fn set_tail(&self, value: u32) {
        self.tail.store(value & OFFSET_BITS, Ordering::Relaxed);
    }

    /// Moves IQH to the next descriptor. The ring must be locked.
    pub(crate) fn set_head(&self, head: u32) {
        self.head.store(head, Ordering::Relaxed);
    }

    /// Sets GSTS.QIES, returns the head to zero and latches IQA. An earlier error does not keep the queue stopped.
    pub(crate) fn enable(&self, ring: &mut Ring, enable: bool) {
        self.enabled.store(enable, Ordering::Relaxed);
        self.head.store(0, Ordering::Relaxed);
        ring.address = InvalidationQueueAddress::from_bits(self.address());
        ring.stopped = false;
    }

    /// Resets all registers to their values after power-on.
    pub(crate) fn reset(&self, ring: &mut Ring) {
        self.enabled.store(false, Ordering::Relaxed);
        self.address.store(0, Ordering::Relaxed);
        self.head.store(0, Ordering::Relaxed);
        self.tail.store(0, Ordering::Relaxed);
        *ring = Ring::default();
    }
}

/// Invalidation completion status and event: ICS and IECTL (§6.5.2.10).
#[derive(Debug, Default)]
pub(crate) struct Completion {
    complete: bool,
    /// IECTL and its message registers.
    pub(crate) event: EventRegisters,
}

impl Completion {
    /// ICS.IWC.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Writes ICS: clears IWC if it is written as one (RW1C).
    pub(crate) fn clear(&mut self, written: u32) {
        if written & 1 != 0 {
            self.complete = false;
            self.event.serviced();
        }
    }

    /// Completes a wait descriptor with IF. Raises the event, unless an earlier completion is not serviced.
    pub(crate) fn complete(&mut self, msi: &dyn MsiSink) {
        if !std::mem::replace(&mut self.complete, true) {
            self.event.raise(msi);
        }
    }
}
