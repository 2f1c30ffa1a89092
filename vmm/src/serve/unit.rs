//! The IOMMU as a client sees it: its registers are the BAR of a PCI function that Linux does not get to see.
//!
//! Firmware has to see the function, for it places the BAR. Linux must not: it would find the BAR's addresses taken by
//! the unit that DMAR names, move the BAR, and lose the unit. So the function answers like an empty slot from the first
//! access to its registers, which is before Linux looks for PCI devices, until the machine is reset.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use refault_bus::mmio::MmioDevice;
use refault_iommu::{Iommu, REGISTER_WINDOW};
use refault_pci::caps::express;
use refault_pci::{Endpoint, Identity};
use refault_vfio_user::Refusal;
use refault_vfio_user::function::{CONFIG, Function};
use refault_vfio_user::request::{Access, DmaMap, DmaUnmap};

use super::dmar;
use super::interrupts::Interrupts;
use super::nic::CONFIG_SIZE;
use super::ram::ClientRam;
use crate::host::say::note;

/// The BAR with the registers.
const REGISTERS: u8 = 0;
/// System peripheral, IOMMU.
const CLASS: u32 = 0x08_06_00;
/// PCI device number.
const DEVICE: u16 = 0x0101;
/// Byte of config space with the bus master switch, and the switch.
const COMMAND: u64 = 4;
const BUS_MASTER: u8 = 1 << 2;
/// The base of the expansion ROM, which firmware asks for when it has put the ACPI tables into memory.
const ROM_BASE: u64 = 0x30;

/// The IOMMU's function.
pub(super) struct Unit {
    pub(super) owner: usize,
    pub(super) ram: Arc<ClientRam>,
    pub(super) interrupts: Arc<Interrupts>,
    iommu: Arc<Iommu>,
    /// The IOMMU's registers, slowed down if the devices are.
    registers: Arc<dyn MmioDevice>,
    endpoint: Endpoint,
    hidden: AtomicBool,
    unordered: AtomicBool,
}

impl Unit {
    /// A function for `iommu`, as after power-on.
    ///
    /// # Errors
    /// None that a user could cause.
    pub(super) fn new(
        owner: usize,
        iommu: Arc<Iommu>,
        registers: Arc<dyn MmioDevice>,
        ram: Arc<ClientRam>,
        interrupts: Arc<Interrupts>,
    ) -> anyhow::Result<Self> {
        let identity = Identity {
            vendor: refault_abi::regs::PCI_VENDOR_ID,
            device: DEVICE,
            class: CLASS,
            revision: 1,
            subsystem_vendor: refault_abi::regs::PCI_VENDOR_ID,
            subsystem: DEVICE,
        };
        let endpoint = Endpoint::builder(identity)
            .bar(REGISTERS, REGISTER_WINDOW, false)
            .capability(express::integrated_endpoint())
            .build()?;
        let (hidden, unordered) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { owner, ram, interrupts, iommu, registers, endpoint, hidden, unordered })
    }

    fn is_hidden(&self) -> bool {
        self.hidden.load(Ordering::Relaxed)
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        if self.is_hidden() {
            data.fill(0xff);
            return;
        }
        self.endpoint.config_read(offset as u16, data);
        // No driver would switch bus mastering on for a function it does not see; without it QEMU drops what the unit
        // sends. Firmware writes back what it reads.
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte |= if at == COMMAND { BUS_MASTER } else { 0 };
        }
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        if self.is_hidden() {
            return;
        }
        self.endpoint.config_write(offset as u16, data);
        if offset == ROM_BASE
            && let Some(registers) = self.endpoint.bar(REGISTERS)
        {
            dmar::patch(&self.ram, registers.start);
        }
    }
}

impl Function for Unit {
    fn region_size(&self, index: u32) -> u64 {
        match index {
            CONFIG => CONFIG_SIZE,
            0 => REGISTER_WINDOW,
            _ => 0,
        }
    }

    fn vectors(&self) -> u32 {
        0
    }

    fn read(&self, access: Access, data: &mut [u8]) -> Result<(), Refusal> {
        match access.region {
            CONFIG => self.config_read(access.offset, data),
            _ => {
                self.hidden.store(true, Ordering::Relaxed);
                self.registers.read(access.offset, data);
            }
        }
        Ok(())
    }

    fn write(&self, access: Access, data: &[u8], posted: bool) -> Result<(), Refusal> {
        if access.region == CONFIG {
            self.config_write(access.offset, data);
            return Ok(());
        }
        if posted && !self.unordered.swap(true, Ordering::Relaxed) {
            note(
                "QEMU posts writes to the IOMMU, so that an invalidation may come behind what must not see what it \
                 invalidates: the IOMMU takes none; give its -device x-no-posted-writes=true",
            );
        }
        if !posted {
            self.hidden.store(true, Ordering::Relaxed);
            self.registers.write(access.offset, data);
        }
        Ok(())
    }

    fn map(&self, map: DmaMap, file: Option<File>) -> Result<(), Refusal> {
        self.ram.map(self.owner, map, file)
    }

    fn unmap(&self, unmap: DmaUnmap) -> Result<(), Refusal> {
        self.ram.unmap(self.owner, unmap)
    }

    fn set_vectors(&self, _start: u32, events: Vec<Option<OwnedFd>>) -> Result<(), Refusal> {
        if events.is_empty() { Ok(()) } else { Err(Refusal::Invalid) }
    }

    fn reset(&self) {
        self.iommu.reset();
        self.endpoint.reset();
        self.hidden.store(false, Ordering::Relaxed);
    }

    fn replied(&self, id: u16, error: Option<u32>) {
        self.interrupts.replied(id, error);
    }
}
