//! The NIC as a PCI function: configuration space, BARs, registers.

use std::sync::Arc;

use refault_abi::regs::{
    BAR0_SIZE, CONTROL_ENABLE, CONTROL_RESET, DOORBELL_PAGE_SIZE, EQ_ARM, MAX_EQS, PCI_DEVICE_ID,
    PCI_VENDOR_ID, REG_CMD0_DOORBELL, REG_CMD1_DOORBELL, REG_CONTROL, REG_EQ_DOORBELL,
};
use refault_bus::bits::low_u8;
use refault_bus::irq::MsiSink;
use refault_pci::caps::{ats, express, pasid, power, pri};
use refault_pci::{ConfigEffect, Controls, Endpoint, Identity, MsixLayout};

use super::Front;
use super::registers::URGENT;
use crate::config::{LinkLayer, NicConfig};
use crate::engine::Engine;

/// BAR of the registers.
const REGISTERS: u8 = 0;
/// BAR of the doorbell pages.
const DOORBELLS: u8 = 2;
/// BAR of the MSI-X table and pending bits.
const VECTORS: u8 = 4;

/// Network controller: InfiniBand, or Ethernet (PCI Code and ID Assignment 1.15, 1.3).
const INFINIBAND: u32 = 0x02_07_00;
const ETHERNET: u32 = 0x02_00_00;

/// Invalidations that the function accepts at once: as many as can be advertised, because none is queued.
const INVALIDATE_QUEUE_DEPTH: u8 = 32;

/// The configuration side of the function.
pub(crate) fn endpoint(config: &NicConfig, msi: Arc<dyn MsiSink>) -> Endpoint {
    let identity = Identity {
        vendor: PCI_VENDOR_ID,
        device: PCI_DEVICE_ID,
        class: if config.link == LinkLayer::InfiniBand { INFINIBAND } else { ETHERNET },
        revision: 1,
        subsystem_vendor: PCI_VENDOR_ID,
        subsystem: PCI_DEVICE_ID,
    };
    let vectors = MsixLayout::in_own_bar(VECTORS, config.vectors);
    let doorbells = u64::from(config.max_context) * DOORBELL_PAGE_SIZE;
    Endpoint::builder(identity)
        .bar(REGISTERS, BAR0_SIZE, false)
        .bar(DOORBELLS, doorbells, false)
        .bar(VECTORS, vectors.bar_size(), false)
        .capability(power::power_management())
        .capability(express::integrated_endpoint())
        .msix(vectors, msi)
        .capability(ats::address_translation(INVALIDATE_QUEUE_DEPTH))
        .capability(pri::page_requests(config.page_request_credits))
        .capability(pasid::process_address_spaces())
        .build()
        .expect("the sizes of a clamped configuration fit")
}

impl Front {
    /// Serves a change in configuration space. The endpoint has its new switches; when this returns, nothing is in flight
    /// that a switch forbids which was turned off: no access to memory, and no page request.
    pub(crate) fn config_changed(&self, effect: &ConfigEffect) {
        let Engine { memory, faults, .. } = &self.engine;
        let off = |switch: fn(Controls) -> bool| effect.turned_off(switch);
        if off(Controls::ats) || off(Controls::pasid) {
            memory.flush();
        } else if off(Controls::bus_master) || off(Controls::memory_space) {
            memory.pass_guards();
        }
        if off(Controls::bus_master) || off(Controls::ats) || off(Controls::pasid) || off(Controls::pri) {
            self.engine.call_off_page_requests();
        }
        if effect.turned_on(Controls::pri) {
            faults.set_allocation(memory.fabric.endpoint.pri_allocation());
        }
        if effect.pri_reset {
            self.engine.reset_page_requests();
        }
    }

    /// Serves a read of a BAR; bytes that are in none read as zero.
    pub(crate) fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        match (bar, self.engine.memory.fabric.endpoint.msix()) {
            (REGISTERS, _) => self.registers_read(offset, data),
            (VECTORS, Some(msix)) => msix.read(offset, data),
            _ => data.fill(0),
        }
    }

    /// Serves a write to a BAR.
    pub(crate) fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        match (bar, self.engine.memory.fabric.endpoint.msix()) {
            (REGISTERS, _) => self.registers_write(offset, data),
            (DOORBELLS, _) => self.doorbell_write(offset, data),
            (VECTORS, Some(msix)) => msix.write(offset, data),
            _ => {}
        }
    }

    /// A read of BAR 0, of any width and alignment.
    fn registers_read(&self, offset: u64, data: &mut [u8]) {
        let Engine { memory, events, .. } = &self.engine;
        let time_ns = memory.fabric.now_ns();
        for (byte, at) in data.iter_mut().zip(offset..) {
            let word = self.registers.read(at & !3, time_ns, events.is_broken());
            *byte = low_u8(u64::from(word) >> (at % 4 * 8));
        }
    }

    /// A write to BAR 0: 4 bytes, or 8 as two of 4; anything else is ignored.
    fn registers_write(&self, offset: u64, data: &[u8]) {
        let width = data.len() as u64;
        if !matches!(width, 4 | 8) || !offset.is_multiple_of(width) {
            return;
        }
        for (word, at) in data.chunks_exact(4).zip((offset..).step_by(4)) {
            if let Ok(word) = word.try_into() {
                self.write_register(at, u32::from_le_bytes(word));
            }
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        match offset {
            REG_CONTROL => self.control(value),
            REG_CMD0_DOORBELL => self.ring_lane(0, value),
            REG_CMD1_DOORBELL => self.ring_lane(URGENT, value),
            REG_EQ_DOORBELL.. => {
                let eqn = u32::try_from((offset - REG_EQ_DOORBELL) / 4);
                if let Some(eqn) = eqn.ok().filter(|&eqn| eqn < MAX_EQS) {
                    let (consumer, arm) = (value & !EQ_ARM, value & EQ_ARM != 0);
                    let mut port = self.engine.memory.front_port();
                    self.engine.events.doorbell(&mut port, eqn, consumer, arm);
                }
            }
            _ => self.registers.set_up_lane(offset, value),
        }
    }

    fn control(&self, value: u32) {
        let enabled = self.registers.is_enabled();
        let enable = value & CONTROL_ENABLE != 0;
        if value & CONTROL_RESET != 0 || enabled && !enable {
            self.destroy_everything();
        } else if enable && !enabled {
            self.registers.enable();
        }
    }

    fn ring_lane(&self, lane: usize, producer: u32) {
        match self.registers.ring_lane(lane, producer) {
            Ok(false) => {}
            Ok(true) if lane == URGENT => self.serve_urgent_commands(),
            Ok(true) => self.schedule_commands(),
            Err(consumer) => {
                if let Some(number) = self.engine.memory.fabric.ring_warnings.admit() {
                    tracing::warn!(number, lane, producer, consumer, "command producer index out of range");
                }
            }
        }
    }
}
