//! The PCI host bridge: routes config accesses to functions, and maps BARs into the machine's address map.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use anyhow::{Context, bail};
use refault_bus::Bdf;
use refault_bus::bits::low_u16;
use refault_bus::mmio::MmioDevice;
use refault_bus::sync::lock;
use refault_pci::{Endpoint, Identity, PciFunction};
use tracing::debug;
use vm_allocator::{AddressAllocator, AllocPolicy};

use crate::bus_map::BusMap;
use crate::control::{RESET_PORT, ResetControl};
use crate::memory::layout::{ECAM, Layout, PCI_MMIO32};

/// The first of two config ports, for the address; the data port is four ports further on.
pub const CONFIG_PORT: u16 = 0xcf8;

/// BARs up to this size go into the 32-bit window.
const SMALL_BAR: u64 = 64 << 20;

/// Bus 0: the host bridge and the machine's functions.
pub struct PciHost {
    functions: BTreeMap<Bdf, Arc<dyn PciFunction>>,
    /// Where BARs are mapped now, by function and index.
    mapped: Mutex<BTreeMap<(Bdf, u8), Range<u64>>>,
    /// Weak, because the map owns the windows that own the host.
    bus: Weak<BusMap>,
}

impl PciHost {
    /// A host for `functions`, with their BARs placed and decoded as firmware leaves them.
    ///
    /// # Errors
    /// Two functions have the same address, a function is not on bus 0, or there is no room for a BAR.
    pub fn new(
        functions: Vec<Arc<dyn PciFunction>>,
        layout: &Layout,
        bus: &Arc<BusMap>,
    ) -> anyhow::Result<Self> {
        let bridge: Arc<dyn PciFunction> = Arc::new(HostBridge::new()?);
        let mut by_address = BTreeMap::new();
        for function in std::iter::once(bridge).chain(functions) {
            let bdf = function.bdf();
            if bdf.bus() != 0 || bdf.devfn() & 7 != 0 {
                bail!("PCI function {bdf} is not function 0 of a device on bus 0");
            }
            if by_address.insert(bdf, function).is_some() {
                bail!("two PCI functions at {bdf}");
            }
        }
        let host = Self { functions: by_address, mapped: Mutex::default(), bus: Arc::downgrade(bus) };
        host.place_bars(layout)?;
        Ok(host)
    }

    /// Assigns every BAR an address, the largest first so that alignment wastes nothing.
    fn place_bars(&self, layout: &Layout) -> anyhow::Result<()> {
        let window = |range: &Range<u64>| AddressAllocator::new(range.start, range.end - range.start);
        let mut small = window(&PCI_MMIO32)?;
        let mut large = window(&layout.pci_mmio64)?;
        let mut bars: Vec<_> = self
            .functions
            .iter()
            .flat_map(|(&bdf, function)| function.endpoint().bars().iter().map(move |&bar| (bdf, bar)))
            .collect();
        bars.sort_by_key(|(bdf, bar)| (std::cmp::Reverse(bar.size), *bdf, bar.index));
        for (bdf, bar) in bars {
            let allocator = if bar.size <= SMALL_BAR { &mut small } else { &mut large };
            let range = allocator
                .allocate(bar.size, bar.size, AllocPolicy::FirstMatch)
                .with_context(|| format!("no room for BAR {} of {bdf}, {:#x} bytes", bar.index, bar.size))?;
            let register = 0x10 + 4 * u16::from(bar.index);
            self.config_write(bdf, register, &range.start().to_le_bytes());
        }
        for (&bdf, function) in &self.functions {
            if !function.endpoint().bars().is_empty() {
                const COMMAND: u16 = 4;
                const MEMORY_SPACE: u16 = 1 << 1;
                self.config_write(bdf, COMMAND, &MEMORY_SPACE.to_le_bytes());
            }
        }
        Ok(())
    }

    fn config_read(&self, bdf: Bdf, register: u16, data: &mut [u8]) {
        match self.functions.get(&bdf) {
            Some(function) => function.config_read(register, data),
            None => data.fill(0xff),
        }
    }

    fn config_write(&self, bdf: Bdf, register: u16, data: &[u8]) {
        let Some(function) = self.functions.get(&bdf) else { return };
        // Held over both steps: otherwise two vCPUs could leave the map inconsistent with the registers.
        let mut mapped = lock(&self.mapped);
        let effect = function.config_write(register, data);
        if let Some(bus) = self.bus.upgrade().filter(|_| effect.bars_moved) {
            self.remap(&bus, &mut mapped);
        }
    }

    /// Updates the address map to the BARs of all functions. What has moved is removed first: one write may move a BAR to
    /// where another was, and a BAR that found its range taken gets it when the other moves away.
    fn remap(&self, bus: &BusMap, mapped: &mut BTreeMap<(Bdf, u8), Range<u64>>) {
        mapped.retain(|(bdf, bar), range| {
            let stays = self.functions[bdf].endpoint().bar(*bar).as_ref() == Some(range);
            if !stays {
                bus.remove_memory(range.start);
            }
            stays
        });
        for (&bdf, function) in &self.functions {
            let endpoint = function.endpoint();
            for bar in endpoint.bars() {
                let Some(range) = endpoint.bar(bar.index) else { continue };
                let Entry::Vacant(place) = mapped.entry((bdf, bar.index)) else { continue };
                let window = BarWindow { function: function.clone(), bar: bar.index };
                if bus.insert_memory(range.clone(), Arc::new(window)) {
                    place.insert(range);
                } else {
                    debug!(function = %bdf, bar = bar.index, "the guest moved a BAR onto another device");
                }
            }
        }
    }
}

/// A BAR in the machine's address map.
struct BarWindow {
    function: Arc<dyn PciFunction>,
    bar: u8,
}

impl MmioDevice for BarWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.function.bar_read(self.bar, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.function.bar_write(self.bar, offset, data);
    }
}

/// Memory-mapped config space (PCIe 6.0, 7.2.2): bus 27:20, device and function 19:12, register 11:0.
pub struct Ecam(pub Arc<PciHost>);

impl Ecam {
    /// The range of its window.
    pub const RANGE: Range<u64> = ECAM;

    fn target(offset: u64) -> (Bdf, u16) {
        (Bdf(low_u16(offset >> 12)), low_u16(offset & 0xfff))
    }
}

impl MmioDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let (bdf, register) = Self::target(offset);
        self.0.config_read(bdf, register, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (bdf, register) = Self::target(offset);
        self.0.config_write(bdf, register, data);
    }
}

/// The two config ports, by which Linux prefers to access the first 256 bytes of config space.
///
/// The reset control register at 0xcf9 lies between them, as on a PC.
pub struct ConfigPorts {
    host: Arc<PciHost>,
    reset: ResetControl,
    address: Mutex<u32>,
}

/// Offset of the reset control register.
const RESET: u64 = (RESET_PORT - CONFIG_PORT) as u64;

/// Offset of the data port.
const DATA: u64 = 4;

impl ConfigPorts {
    /// The ports of `host`, with `reset` among them.
    pub fn new(host: Arc<PciHost>, reset: ResetControl) -> Self {
        Self { host, reset, address: Mutex::new(0) }
    }

    /// What the address port selects: enable 31, upper half of the register 27:24 (AMD's extension, which Linux uses on AMD
    /// processors), bus 23:16, device and function 15:8, register 7:2.
    fn target(&self, offset: u64) -> Option<(Bdf, u16)> {
        const ENABLE: u32 = 1 << 31;
        let address = self.address();
        let register = low_u16(u64::from(address >> 16 & 0xf00 | address & 0xfc) + offset - DATA);
        (address & ENABLE != 0).then_some((Bdf(low_u16(u64::from(address >> 8))), register))
    }

    fn address(&self) -> u32 {
        *lock(&self.address)
    }
}

impl MmioDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, data.len()) {
            (0, 4) => data.copy_from_slice(&self.address().to_le_bytes()),
            (RESET, 1) => self.reset.read(0, data),
            (DATA.., _) => match self.target(offset) {
                Some((bdf, register)) => self.host.config_read(bdf, register, data),
                None => data.fill(0xff),
            },
            _ => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, &[a, b, c, d]) => {
                let address = u32::from_le_bytes([a, b, c, d]);
                *lock(&self.address) = address;
            }
            (RESET, [_]) => self.reset.write(0, data),
            (DATA.., _) => {
                if let Some((bdf, register)) = self.target(offset) {
                    self.host.config_write(bdf, register, data);
                }
            }
            _ => {}
        }
    }
}

/// The host bridge at 00:00.0: it only has to exist.
struct HostBridge(Endpoint);

impl HostBridge {
    fn new() -> anyhow::Result<Self> {
        const HOST_BRIDGE: u32 = 0x06_00_00;
        let identity = Identity {
            vendor: refault_abi::regs::PCI_VENDOR_ID,
            device: 0x0100,
            class: HOST_BRIDGE,
            revision: 1,
            subsystem_vendor: refault_abi::regs::PCI_VENDOR_ID,
            subsystem: 0x0100,
        };
        Ok(Self(Endpoint::builder(identity).build()?))
    }
}

impl PciFunction for HostBridge {
    fn bdf(&self) -> Bdf {
        Bdf::new(0, 0, 0)
    }

    fn endpoint(&self) -> &Endpoint {
        &self.0
    }

    fn bar_read(&self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}

    fn reset(&self) {}
}

#[cfg(test)]
mod tests;
