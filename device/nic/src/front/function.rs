//! The NIC as a PCI function.

use std::sync::Arc;

use refault_abi::regs::{BAR0_SIZE, DOORBELL_PAGE_SIZE, PCI_DEVICE_ID, PCI_VENDOR_ID};
use refault_bus::Bdf;
use refault_bus::irq::MsiSink;
use refault_pci::caps::{ats, express, pasid, power, pri};
use refault_pci::{ConfigEffect, Controls, Endpoint, Identity, MsixLayout, PciFunction};

use crate::Nic;
use crate::config::NicConfig;

/// Registers.
const REGISTERS: u8 = 0;
/// Doorbell pages.
const DOORBELLS: u8 = 2;
/// MSI-X table and pending bits.
const VECTORS: u8 = 4;

/// Network controller, InfiniBand.
const CLASS: u32 = 0x02_07_00;

/// Invalidations the function takes at once: as many as can be advertised, for none is queued.
const INVALIDATE_QUEUE_DEPTH: u8 = 32;

/// The configuration side of the function.
pub(crate) fn endpoint(config: &NicConfig, msi: Arc<dyn MsiSink>) -> Endpoint {
    let identity = Identity {
        vendor: PCI_VENDOR_ID,
        device: PCI_DEVICE_ID,
        class: CLASS,
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

impl PciFunction for Nic {
    fn bdf(&self) -> Bdf {
        self.config.bdf
    }

    fn endpoint(&self) -> &Endpoint {
        &self.fabric.endpoint
    }

    fn config_changed(&self, effect: &ConfigEffect) {
        if effect.turned_off(Controls::ats) || effect.turned_off(Controls::pasid) {
            self.pass_guards(|shard| shard.atc.flush());
        }
        if effect.turned_on(Controls::pri) {
            self.pages.set_allocation(self.fabric.endpoint.pri_allocation());
        }
        if effect.pri_reset {
            self.tell_waiters(self.pages.reset());
        }
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        match (bar, self.fabric.endpoint.msix()) {
            (REGISTERS, _) => self.registers_read(offset, data),
            (VECTORS, Some(msix)) => msix.read(offset, data),
            _ => data.fill(0),
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        match (bar, self.fabric.endpoint.msix()) {
            (REGISTERS, _) => self.registers_write(offset, data),
            (DOORBELLS, _) => self.doorbell_write(offset, data),
            (VECTORS, Some(msix)) => msix.write(offset, data),
            _ => {}
        }
    }

    fn reset(&self) {
        self.destroy_everything();
        self.pages.reset();
    }
}
