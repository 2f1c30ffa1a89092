//! Slower doorbells: between the guest and the NIC.

use std::sync::Arc;

use anyhow::Result;
use refault_abi::doorbell::{DOORBELL_SQ, Doorbell};
use refault_bus::Bdf;
use refault_pci::{ConfigEffect, Endpoint, PciFunction};

use super::agent::SlowAgent;
use super::endpoint::SlowEndpoint;
use super::interrupts::SlowSink;
use super::line::DelayLine;
use super::pace::Pace;

/// The BAR of doorbell pages.
const DOORBELLS: u8 = 2;

/// A doorbell under way: its place in the BAR, and its value.
type Rung = (u64, [u8; 8]);

/// The NIC as the guest reaches it.
pub(super) struct SlowFunction {
    nic: Arc<dyn PciFunction>,
    pace: Arc<Pace>,
    doorbells: DelayLine<Rung>,
    ways: Ways,
}

/// What is under way between the NIC and others.
pub(super) struct Ways {
    pub(super) agent: Arc<SlowAgent>,
    pub(super) endpoint: Arc<SlowEndpoint>,
    pub(super) interrupts: Arc<SlowSink>,
}

impl SlowFunction {
    pub(super) fn new(nic: Arc<dyn PciFunction>, pace: Arc<Pace>, ways: Ways) -> Result<Self> {
        let device = nic.clone();
        let deliver = move |(offset, value): Rung| device.bar_write(DOORBELLS, offset, &value);
        Ok(Self { nic, pace, doorbells: DelayLine::new("doorbells", deliver)?, ways })
    }
}

impl PciFunction for SlowFunction {
    fn bdf(&self) -> Bdf {
        self.nic.bdf()
    }

    fn endpoint(&self) -> &Endpoint {
        self.nic.endpoint()
    }

    fn config_changed(&self, effect: &ConfigEffect) {
        self.ways.interrupts.push();
        self.nic.config_changed(effect);
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.ways.interrupts.push();
        self.nic.bar_read(bar, offset, data);
    }

    /// Only send doorbells are slower: what asks for an interrupt is not on a request's way.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        let value = <[u8; 8]>::try_from(data).ok().filter(|_| bar == DOORBELLS);
        let kind = |value: [u8; 8]| u64::from(Doorbell::decode(u64::from_le_bytes(value)).kind);
        match value.filter(|&value| kind(value) == DOORBELL_SQ) {
            Some(value) => self.doorbells.send(self.pace.of(|timing| &timing.doorbell), (offset, value)),
            None => self.nic.bar_write(bar, offset, data),
        }
    }

    /// Nothing is in flight afterwards.
    fn reset(&self) {
        self.doorbells.clear();
        self.ways.agent.clear();
        self.nic.reset();
        // An answer from inside may have come meanwhile.
        self.ways.endpoint.clear();
        self.ways.interrupts.push();
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.ways.interrupts.push();
        self.nic.config_read(offset, data);
    }
}
