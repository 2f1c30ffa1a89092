//! Delayed doorbells, between the guest and the NIC.

use std::sync::Arc;

use anyhow::Result;
use refault_abi::doorbell::{DOORBELL_SQ, Doorbell};
use refault_bus::Bdf;
use refault_pci::{ConfigEffect, Endpoint, PciFunction};

use super::delay_line::DelayLine;
use super::interrupts::DelayedInterrupts;
use super::pace::{Durations, WallPace};

/// The BAR with the doorbell pages.
const DOORBELLS: u8 = 2;

/// A doorbell in flight: its offset in the BAR, and its value.
type Rung = (u64, [u8; 8]);

/// The NIC as the guest reaches it, with delays.
pub(super) struct DelayedFunction {
    nic: Arc<dyn PciFunction>,
    durations: Arc<Durations>,
    doorbells: DelayLine<Rung>,
    links: Links,
}

/// The NIC's other delayed seams: a read pushes interrupts, and a reset discards what is in flight.
pub(super) struct Links {
    pub(super) pace: Arc<WallPace>,
    pub(super) interrupts: Arc<DelayedInterrupts>,
}

impl DelayedFunction {
    pub(super) fn new(nic: Arc<dyn PciFunction>, durations: Arc<Durations>, links: Links) -> Result<Self> {
        let device = nic.clone();
        let deliver = move |(offset, value): Rung| device.bar_write(DOORBELLS, offset, &value);
        Ok(Self { nic, durations, doorbells: DelayLine::new("doorbells", deliver)?, links })
    }
}

impl PciFunction for DelayedFunction {
    fn bdf(&self) -> Bdf {
        self.nic.bdf()
    }

    fn endpoint(&self) -> &Endpoint {
        self.nic.endpoint()
    }

    fn config_changed(&self, effect: &ConfigEffect) {
        self.links.interrupts.push();
        self.nic.config_changed(effect);
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.links.interrupts.push();
        self.nic.bar_read(bar, offset, data);
    }

    /// Only send doorbells are delayed: arming an interrupt is not part of a request's path.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        let value = <[u8; 8]>::try_from(data).ok().filter(|_| bar == DOORBELLS);
        let kind = |value: [u8; 8]| u64::from(Doorbell::decode(u64::from_le_bytes(value)).kind);
        match value.filter(|&value| kind(value) == DOORBELL_SQ) {
            Some(value) => self.doorbells.send(self.durations.of(|timing| &timing.doorbell), (offset, value)),
            None => self.nic.bar_write(bar, offset, data),
        }
    }

    /// Leaves no message in flight.
    fn reset(&self) {
        self.doorbells.clear();
        self.links.pace.clear_page_requests();
        self.nic.reset();
        // The reset itself may have caused a response: discard it too.
        self.links.pace.clear_responses();
        self.links.interrupts.push();
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.links.interrupts.push();
        self.nic.config_read(offset, data);
    }
}
