//! Delayed interrupts, and the reads that push them, between the devices and the guest.

use std::sync::Arc;

use anyhow::Result;
use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::mmio::MmioDevice;

use super::delay_line::DelayLine;
use super::pace::Durations;

/// The guest's interrupt controller, with delays.
pub(super) struct DelayedInterrupts {
    durations: Arc<Durations>,
    messages: DelayLine<MsiMessage>,
}

impl DelayedInterrupts {
    pub(super) fn new(guest: Arc<dyn MsiSink>, durations: Arc<Durations>) -> Result<Self> {
        Ok(Self { durations, messages: DelayLine::new("interrupts", move |message| guest.signal(message))? })
    }

    /// Delivers the interrupts in flight. As on PCI Express, where a read's completion pushes the device's earlier writes:
    /// a driver that disables an interrupt and then reads a register gets no more of it.
    pub(super) fn push(&self) {
        self.messages.flush();
    }
}

impl MsiSink for DelayedInterrupts {
    fn signal(&self, message: MsiMessage) {
        self.messages.send(self.durations.of(|timing| &timing.interrupt), message);
    }
}

/// The IOMMU's registers, whose reads push its interrupts.
pub(super) struct PushingRegisters {
    pub(super) registers: Arc<dyn MmioDevice>,
    pub(super) interrupts: Arc<DelayedInterrupts>,
}

impl MmioDevice for PushingRegisters {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.interrupts.push();
        self.registers.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.registers.write(offset, data);
    }

    fn reset(&self) {
        self.registers.reset();
    }
}
