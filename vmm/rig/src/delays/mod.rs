//! Delays between the devices of a real guest: each of their steps takes at least as long as a [`Timing`] says.
//!
//! Decorators at the seams between guest, NIC, IOMMU and memory add the delays; the models are unaware of them. A message
//! is delivered later, by one thread for each kind, so that its sender goes on; messages of a kind keep their order. A
//! call that returns a result (translation, copy, invalidation) waits in place, for 100 µs at most: it waits under a
//! worker's guard, an invalidation waits for the guard, and the guest waits for the invalidation with interrupts off.

mod delay_line;
mod function;
mod interrupts;
mod named_timing;
mod pace;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use anyhow::Result;
use refault_bus::ats::{AtsEndpoint, TranslationAgent};
use refault_bus::dma::DmaMemory;
use refault_bus::irq::MsiSink;
use refault_bus::mmio::MmioDevice;
use refault_pci::PciFunction;

use self::function::{DelayedFunction, Links};
use self::interrupts::{DelayedInterrupts, PushingRegisters};
pub use self::named_timing::NamedTiming;
use self::pace::{Durations, WallPace};
use crate::paced::{PacedAgent, PacedEndpoint, PacedMemory};
use refault_timing::{Delay, Timing, UNLIMITED_BYTES_PER_US};

/// Steps that are delayed, each at a seam.
const DELAYED: [&str; 9] = [
    "doorbell",
    "translation",
    "page_request",
    "queue_write",
    "interrupt",
    "response_message",
    "device_wake",
    "copy",
    "invalidation",
];
/// Steps inside the NIC, where there is no seam.
const INTERNAL: [&str; 2] = ["fetch", "completion"];

/// The delayed seams of one machine, built from the guest inwards: interrupts, then each NIC with its root.
pub struct DelayedSeams {
    durations: Arc<Durations>,
    interrupts: Arc<DelayedInterrupts>,
}

/// The seams between one NIC and the IOMMU, before the NIC is built.
pub struct DelayedRoot {
    durations: Arc<Durations>,
    interrupts: Arc<DelayedInterrupts>,
    iommu: Arc<dyn TranslationAgent>,
    pace: Arc<WallPace>,
}

/// One NIC behind its delayed seams. It must live as long as the IOMMU, which reaches the NIC through it.
pub struct DelayedNic {
    /// The NIC as the guest reaches it.
    pub function: Arc<dyn PciFunction>,
    endpoint: Arc<dyn AtsEndpoint>,
}

impl DelayedSeams {
    /// Builds the seam between the devices and `guest`, the guest's interrupt controller.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(timing: Timing, guest: Arc<dyn MsiSink>) -> Result<Self> {
        let durations = Arc::new(Durations::new(timing));
        let interrupts = Arc::new(DelayedInterrupts::new(guest, durations.clone())?);
        Ok(Self { durations, interrupts })
    }

    /// The interrupt controller as the devices reach it.
    pub fn interrupts(&self) -> Arc<dyn MsiSink> {
        self.interrupts.clone()
    }

    /// The IOMMU's registers as the guest reaches them.
    pub fn registers(&self, registers: Arc<dyn MmioDevice>) -> Arc<dyn MmioDevice> {
        Arc::new(PushingRegisters { registers, interrupts: self.interrupts.clone() })
    }

    /// The seams between one more NIC and `iommu`.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn root(&self, iommu: Arc<dyn TranslationAgent>) -> Result<DelayedRoot> {
        let pace = Arc::new(WallPace::new(self.durations.clone())?);
        let (durations, interrupts) = (self.durations.clone(), self.interrupts.clone());
        Ok(DelayedRoot { durations, interrupts, iommu, pace })
    }
}

impl DelayedRoot {
    /// The IOMMU as the NIC reaches it.
    pub fn agent(&self) -> Arc<dyn TranslationAgent> {
        Arc::new(PacedAgent::new(self.iommu.clone(), self.pace.clone()))
    }

    /// Memory as the NIC reaches it.
    pub fn memory(&self, memory: Arc<dyn DmaMemory>) -> Arc<dyn DmaMemory> {
        Arc::new(PacedMemory::new(memory, self.pace.clone()))
    }

    /// The NIC as the guest and the IOMMU reach it.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn nic(self, nic: Arc<dyn AtsEndpoint>, function: Arc<dyn PciFunction>) -> Result<DelayedNic> {
        let Self { durations, interrupts, pace, .. } = self;
        let endpoint: Arc<dyn AtsEndpoint> = Arc::new(PacedEndpoint::new(nic, pace.clone()));
        let links = Links { pace, interrupts };
        Ok(DelayedNic { function: Arc::new(DelayedFunction::new(function, durations, links)?), endpoint })
    }
}

impl DelayedNic {
    /// The NIC as the IOMMU reaches it.
    pub fn endpoint(&self) -> Weak<dyn AtsEndpoint> {
        Arc::downgrade(&self.endpoint)
    }
}

/// One-line summary of which steps of a timing can be emulated with a real guest, and which cannot.
pub fn coverage(timing: &Timing) -> String {
    let delayed = |name: &&str| timing.step(name).is_some_and(|delay| *delay != Delay::NONE);
    let is_guests = |name: &&str| !DELAYED.contains(name) && !INTERNAL.contains(name);
    let list = |names: Vec<&str>| names.join(", ");
    let slowed = list(DELAYED.into_iter().filter(delayed).collect());
    let inside = list(INTERNAL.into_iter().filter(delayed).collect());
    let guests = list(Timing::STEPS.iter().copied().filter(is_guests).filter(delayed).collect());
    let mut parts = Vec::new();
    if timing.bytes_per_us < UNLIMITED_BYTES_PER_US {
        parts.push(format!("copies {} bytes/µs at most", timing.bytes_per_us));
    }
    if !slowed.is_empty() {
        parts.push(format!("slowed down: {slowed}"));
    }
    if !inside.is_empty() {
        parts.push(format!("not: {inside} (inside the device)"));
    }
    if !guests.is_empty() {
        parts.push(format!("not: {guests} (the guest's own time)"));
    }
    if parts.is_empty() { "nothing is slowed down".into() } else { parts.join("; ") }
}
