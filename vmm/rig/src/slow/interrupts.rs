//! Slower interrupts, and the reads that push them: between the devices and the guest.

use std::sync::Arc;

use anyhow::Result;
use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::mmio::MmioDevice;

use super::line::DelayLine;
use super::pace::Pace;

/// The guest's interrupt controller, further away.
pub(super) struct SlowSink {
    pace: Arc<Pace>,
    messages: DelayLine<MsiMessage>,
}

impl SlowSink {
    pub(super) fn new(guest: Arc<dyn MsiSink>, pace: Arc<Pace>) -> Result<Self> {
        Ok(Self { pace, messages: DelayLine::new("interrupts", move |message| guest.signal(message))? })
    }

    /// What was sent arrives now. As on PCI Express, where what a device reads back comes behind what it wrote before:
    /// a driver that switched an interrupt off and reads has no more of it to come.
    pub(super) fn push(&self) {
        self.messages.flush();
    }
}

impl MsiSink for SlowSink {
    fn signal(&self, message: MsiMessage) {
        self.messages.send(self.pace.of(|timing| &timing.interrupt), message);
    }
}

/// Registers of the IOMMU, whose reads push its interrupts.
pub(super) struct PushingRegisters {
    pub(super) registers: Arc<dyn MmioDevice>,
    pub(super) interrupts: Arc<SlowSink>,
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
