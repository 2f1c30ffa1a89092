//! Devices of a real guest slowed down: each of their steps takes at least as long as a [`Timing`] says.
//!
//! Nothing here is a device. Decorators stand at the seams between guest, NIC, IOMMU and memory; the models do not know
//! of them. A message is delivered later by a thread, so that its sender goes on; its kind keeps its order. What is
//! answered on the spot (a translation, a copy, an invalidation) waits on the spot, for 100 µs at most: an invalidation
//! waits for it, and the guest for the invalidation, with interrupts off.

mod agent;
mod endpoint;
mod function;
mod interrupts;
mod line;
mod memory;
mod named;
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

use self::agent::SlowAgent;
use self::endpoint::SlowEndpoint;
use self::function::{SlowFunction, Ways};
use self::interrupts::{PushingRegisters, SlowSink};
use self::memory::SlowMemory;
pub use self::named::Named;
use self::pace::Pace;
use refault_timing::{Delay, Timing, UNLIMITED_BYTES_PER_US};

/// Steps that are slowed down, with what of them stands where.
const SLOWED: [&str; 9] = [
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
/// Steps inside the device, at which nobody can stand.
const INSIDE: [&str; 2] = ["fetch", "completion"];

/// The way of a machine's devices to one another, slowed down; they are built in this order.
pub struct Slow {
    pace: Arc<Pace>,
    interrupts: Arc<SlowSink>,
}

/// What the NIC is plugged into.
pub struct SlowRoot {
    pace: Arc<Pace>,
    interrupts: Arc<SlowSink>,
    agent: Arc<SlowAgent>,
}

/// What the guest reaches the NIC by, and what must live as long as the IOMMU does.
pub struct SlowNic {
    /// The NIC as the guest reaches it.
    pub function: Arc<dyn PciFunction>,
    endpoint: Arc<SlowEndpoint>,
}

impl Slow {
    /// Begins with what is between the devices and the guest.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(timing: Timing, guest: Arc<dyn MsiSink>) -> Result<Self> {
        let pace = Arc::new(Pace::new(timing));
        let interrupts = Arc::new(SlowSink::new(guest, pace.clone())?);
        Ok(Self { pace, interrupts })
    }

    /// Where the devices send their interrupts.
    pub fn interrupts(&self) -> Arc<dyn MsiSink> {
        self.interrupts.clone()
    }

    /// The NIC's memory.
    pub fn memory(&self, memory: Arc<dyn DmaMemory>) -> Arc<dyn DmaMemory> {
        Arc::new(SlowMemory { memory, pace: self.pace.clone() })
    }

    /// The registers of the IOMMU.
    pub fn registers(&self, registers: Arc<dyn MmioDevice>) -> Arc<dyn MmioDevice> {
        Arc::new(PushingRegisters { registers, interrupts: self.interrupts.clone() })
    }

    /// The IOMMU as the NIC reaches it.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn root(&self, iommu: Arc<dyn TranslationAgent>) -> Result<SlowRoot> {
        let agent = Arc::new(SlowAgent::new(iommu, self.pace.clone())?);
        Ok(SlowRoot { pace: self.pace.clone(), interrupts: self.interrupts.clone(), agent })
    }
}

impl SlowRoot {
    /// The IOMMU as the NIC reaches it.
    pub fn agent(&self) -> Arc<dyn TranslationAgent> {
        self.agent.clone()
    }

    /// The NIC as the others reach it.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn nic(self, nic: Arc<dyn AtsEndpoint>, function: Arc<dyn PciFunction>) -> Result<SlowNic> {
        let Self { pace, interrupts, agent } = self;
        let endpoint = Arc::new(SlowEndpoint::new(nic, pace.clone())?);
        let ways = Ways { agent, endpoint: endpoint.clone(), interrupts };
        Ok(SlowNic { function: Arc::new(SlowFunction::new(function, pace, ways)?), endpoint })
    }
}

impl SlowNic {
    /// The NIC as the IOMMU reaches it, as long as this lives.
    pub fn endpoint(&self) -> Weak<dyn AtsEndpoint> {
        let endpoint: Arc<dyn AtsEndpoint> = self.endpoint.clone();
        Arc::downgrade(&endpoint)
    }
}

/// What of a timing can be had under a real guest, and what cannot, in one line.
pub fn about(timing: &Timing) -> String {
    let delayed = |name: &&str| timing.step(name).is_some_and(|delay| *delay != Delay::NONE);
    let is_guests = |name: &&str| !SLOWED.contains(name) && !INSIDE.contains(name);
    let list = |names: Vec<&str>| names.join(", ");
    let slowed = list(SLOWED.into_iter().filter(delayed).collect());
    let inside = list(INSIDE.into_iter().filter(delayed).collect());
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
