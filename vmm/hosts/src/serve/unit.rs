//! The IOMMU as a client sees it: its registers are the BAR of a PCI function that is hidden from Linux.
//!
//! Firmware must see the function, because it places the BAR. Linux must not: it would find that the BAR's addresses belong
//! to the unit in DMAR, move the BAR, and lose the unit. So from the first access to its registers, which comes before
//! Linux looks for PCI devices, until the machine is reset, the function reads as an empty slot.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use refault_bus::bits::low_u16;
use refault_bus::mmio::MmioDevice;
use refault_iommu::REGISTER_WINDOW;
use refault_pci::caps::express;
use refault_pci::{Endpoint, Identity, PciFunction};
use refault_vfio_user::RequestError;
use refault_vfio_user::function::{CONFIG, VfioUserFunction};
use refault_vfio_user::request::{DmaMap, DmaUnmap, RegionAccess};

use super::discovery::IommuDiscovery;
use super::dmar;
use super::interrupts::Interrupts;
use super::nic::CONFIG_SIZE;
use super::ram::ClientRam;
use refault_os::message::note;

/// Index of the BAR with the registers.
const REGISTERS: u8 = 0;
/// Class code: system peripheral, IOMMU.
const CLASS: u32 = 0x08_06_00;
/// PCI device id.
const DEVICE: u16 = 0x0101;
/// Byte of config space with the bus master bit, and the bit.
const COMMAND: u64 = 4;
const BUS_MASTER: u8 = 1 << 2;
/// The expansion ROM's base address register, which firmware probes after it has placed the ACPI tables in memory.
const ROM_BASE: u64 = 0x30;

/// The IOMMU's function.
pub(super) struct IommuFunction {
    pub(super) owner: usize,
    pub(super) ram: Arc<ClientRam>,
    pub(super) interrupts: Arc<Interrupts>,
    /// The IOMMU's registers, delayed if the devices are.
    registers: Arc<dyn MmioDevice>,
    /// The functions behind the IOMMU.
    functions: Vec<Arc<dyn PciFunction>>,
    endpoint: Endpoint,
    discovery: Arc<IommuDiscovery>,
    unordered: AtomicBool,
}

impl IommuFunction {
    /// A function for the IOMMU behind `registers` and in front of `functions`, in the power-on state.
    ///
    /// # Errors
    /// The layout of its config space is invalid: a bug in refault.
    pub(super) fn new(
        owner: usize,
        (registers, functions): (Arc<dyn MmioDevice>, Vec<Arc<dyn PciFunction>>),
        ram: Arc<ClientRam>,
        interrupts: Arc<Interrupts>,
        discovery: Arc<IommuDiscovery>,
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
        let unordered = AtomicBool::new(false);
        Ok(Self { owner, ram, interrupts, registers, functions, endpoint, discovery, unordered })
    }

    fn is_hidden(&self) -> bool {
        self.discovery.has_registers()
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        if self.is_hidden() {
            data.fill(0xff);
            return;
        }
        self.endpoint.config_read(low_u16(offset), data);
        // No driver would enable bus mastering for a hidden function, and without it QEMU drops the unit's messages.
        // Firmware writes back what it reads.
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte |= if at == COMMAND { BUS_MASTER } else { 0 };
        }
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        if self.is_hidden() {
            return;
        }
        self.endpoint.config_write(low_u16(offset), data);
        if offset == ROM_BASE
            && let Some(registers) = self.endpoint.bar(REGISTERS)
            && dmar::patch(&self.ram, registers.start)
        {
            self.discovery.see_table();
        }
    }
}

impl VfioUserFunction for IommuFunction {
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

    fn read(&self, access: RegionAccess, data: &mut [u8]) -> Result<(), RequestError> {
        match access.region {
            CONFIG => self.config_read(access.offset, data),
            _ => {
                self.discovery.see_registers();
                self.registers.read(access.offset, data);
            }
        }
        Ok(())
    }

    fn write(&self, access: RegionAccess, data: &[u8], posted: bool) -> Result<(), RequestError> {
        if access.region == CONFIG {
            self.config_write(access.offset, data);
            return Ok(());
        }
        if posted && !self.unordered.swap(true, Ordering::Relaxed) {
            note(
                "QEMU posts writes to the IOMMU, so an invalidation could be overtaken: posted writes are ignored; \
                 set x-no-posted-writes=true on its -device",
            );
        }
        if !posted {
            self.discovery.see_registers();
            self.registers.write(access.offset, data);
        }
        Ok(())
    }

    fn map(&self, map: DmaMap, file: Option<File>) -> Result<(), RequestError> {
        self.ram.map(self.owner, map, file)
    }

    fn unmap(&self, unmap: DmaUnmap) -> Result<(), RequestError> {
        self.ram.unmap(self.owner, unmap)
    }

    fn set_vectors(&self, _start: u32, events: Vec<Option<OwnedFd>>) -> Result<(), RequestError> {
        if events.is_empty() { Ok(()) } else { Err(RequestError::Invalid) }
    }

    /// A client resets one function after the other, or leaves their sockets in any order. Translation is off from here on,
    /// and what a function still wrote would land where its addresses point in guest memory. So the functions stop first.
    fn reset(&self) {
        self.functions.iter().for_each(|function| function.reset());
        self.registers.reset();
        self.endpoint.reset();
        self.discovery.forget();
    }

    fn replied(&self, id: u16, error: Option<u32>) {
        self.interrupts.replied(id, error);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use refault_bus::Bdf;
    use refault_bus::probe::NoProbe;
    use refault_bus::sync::lock;
    use refault_iommu::{Iommu, IommuConfig};

    use super::*;

    /// Fault event data: a register that keeps its value.
    const FEDATA: u64 = 0x3c;
    const BASE: u64 = 0xfebf_0000;

    fn unit() -> IommuFunction {
        let ram = Arc::new(ClientRam::new(false));
        let interrupts = Arc::<Interrupts>::default();
        let iommu = Iommu::new(IommuConfig::default(), ram.clone(), interrupts.clone(), Arc::new(NoProbe));
        let iommu = Arc::new(iommu);
        IommuFunction::new(0, (iommu, Vec::new()), ram, interrupts, Arc::default()).unwrap()
    }

    fn read<const N: usize>(unit: &IommuFunction, region: u32, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        unit.read(RegionAccess { region, offset, count: N as u32 }, &mut data).unwrap();
        data
    }

    fn write(unit: &IommuFunction, region: u32, offset: u64, data: &[u8]) {
        unit.write(RegionAccess { region, offset, count: data.len() as u32 }, data, false).unwrap();
    }

    fn post(unit: &IommuFunction, offset: u64, data: &[u8]) {
        unit.write(RegionAccess { region: 0, offset, count: data.len() as u32 }, data, true).unwrap();
    }

    #[test]
    fn the_function_is_visible_until_its_registers_are_used_and_after_a_reset() {
        let unit = unit();
        let identity = read::<4>(&unit, CONFIG, 0);
        assert_ne!(identity, [0xff; 4]);
        read::<8>(&unit, 0, 8);
        assert_eq!(read::<4096>(&unit, CONFIG, 0), [0xff; 4096]);
        write(&unit, CONFIG, 0x10, &[0xff; 4]);
        unit.reset();
        assert_eq!(read::<4>(&unit, CONFIG, 0), identity);
        assert_eq!(read::<4>(&unit, CONFIG, 0x10)[1..], [0; 3], "a write to an empty slot has no effect");
        write(&unit, 0, FEDATA, &[1, 0, 0, 0]);
        assert_eq!(read::<4>(&unit, CONFIG, 0), [0xff; 4], "a store hides it as well");
        assert_ne!(read::<4>(&unit, 0, 0), [0xff; 4], "its registers stay");
    }

    /// Notes who is reset, in order.
    type Resets = Arc<Mutex<Vec<&'static str>>>;

    struct Registers(Resets);

    impl MmioDevice for Registers {
        fn read(&self, _offset: u64, _data: &mut [u8]) {}

        fn write(&self, _offset: u64, _data: &[u8]) {}

        fn reset(&self) {
            lock(&self.0).push("iommu");
        }
    }

    struct Function(Resets, Endpoint);

    impl PciFunction for Function {
        fn bdf(&self) -> Bdf {
            Bdf::new(0, 0x10, 0)
        }

        fn endpoint(&self) -> &Endpoint {
            &self.1
        }

        fn bar_read(&self, _bar: u8, _offset: u64, _data: &mut [u8]) {}

        fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}

        fn reset(&self) {
            lock(&self.0).push("function");
        }
    }

    #[test]
    fn functions_stop_before_translation_is_turned_off() {
        let resets = Resets::default();
        let identity =
            Identity { vendor: 1, device: 2, class: 3, revision: 0, subsystem_vendor: 1, subsystem: 2 };
        let endpoint = || Endpoint::builder(identity).bar(0, 0x1000, false).build().unwrap();
        let function = || Arc::new(Function(resets.clone(), endpoint())) as Arc<dyn PciFunction>;
        let devices =
            (Arc::new(Registers(resets.clone())) as Arc<dyn MmioDevice>, vec![function(), function()]);
        let ram = Arc::new(ClientRam::new(false));
        let unit = IommuFunction::new(0, devices, ram, Arc::default(), Arc::default()).unwrap();
        unit.reset();
        assert_eq!(*lock(&resets), ["function", "function", "iommu"]);
    }

    #[test]
    fn the_bus_master_bit_reads_as_set() {
        let unit = unit();
        assert_eq!(read::<2>(&unit, CONFIG, COMMAND), [BUS_MASTER, 0]);
        assert_eq!(read::<1>(&unit, CONFIG, COMMAND), [BUS_MASTER]);
        assert_eq!(read::<4>(&unit, CONFIG, 2)[2] & BUS_MASTER, BUS_MASTER);
        assert_eq!(read::<4096>(&unit, CONFIG, 0)[4] & BUS_MASTER, BUS_MASTER);
        write(&unit, CONFIG, COMMAND, &[2, 0]);
        assert_eq!(read::<2>(&unit, CONFIG, COMMAND), [2 | BUS_MASTER, 0]);
        // No other byte changes.
        assert_eq!(read::<1>(&unit, CONFIG, COMMAND + 1), [0]);
    }

    #[test]
    fn a_posted_write_to_a_register_is_not_done() {
        let unit = unit();
        post(&unit, FEDATA, &[0x34, 0x12, 0, 0]);
        assert_ne!(read::<4>(&unit, CONFIG, 0), [0xff; 4], "nor does it hide the function");
        assert_eq!(read::<4>(&unit, 0, FEDATA), [0; 4]);
        write(&unit, 0, FEDATA, &[0x34, 0x12, 0, 0]);
        post(&unit, FEDATA, &[0x78, 0x56, 0, 0]);
        assert_eq!(read::<4>(&unit, 0, FEDATA), [0x34, 0x12, 0, 0]);
    }

    #[test]
    fn probing_the_absent_rom_updates_the_table() {
        let unit = unit();
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        let map = DmaMap { address: 0, size: 4 << 20, offset: 0, readable: true, writable: true };
        unit.map(map, Some(file.try_clone().unwrap())).unwrap();
        let table = dmar::table(&[Bdf::new(0, 0x10, 0)]);
        let place = (4 << 20) - 0x1fff;
        std::os::unix::fs::FileExt::write_all_at(&file, &table, place).unwrap();
        let registers = || {
            let mut address = [0; 8];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut address, place + 56).unwrap();
            u64::from_le_bytes(address)
        };
        let before = registers();
        write(&unit, CONFIG, ROM_BASE, &0xffff_fffeu32.to_le_bytes());
        assert_eq!(registers(), before, "the registers are nowhere yet");
        write(&unit, CONFIG, 0x10, &BASE.to_le_bytes());
        write(&unit, CONFIG, COMMAND, &[2, 0]);
        write(&unit, CONFIG, ROM_BASE, &0xffff_fffeu32.to_le_bytes());
        assert_eq!(read::<4>(&unit, CONFIG, ROM_BASE), [0; 4], "QEMU would make a ROM of it");
        assert_eq!(registers(), BASE);
    }

    #[test]
    fn regions_are_the_registers_and_config_space() {
        let unit = unit();
        let sizes: Vec<_> = (0..9).map(|index| unit.region_size(index)).collect();
        assert_eq!(sizes, [REGISTER_WINDOW, 0, 0, 0, 0, 0, 0, CONFIG_SIZE, 0]);
        assert_eq!(unit.vectors(), 0);
        unit.set_vectors(0, Vec::new()).unwrap();
    }
}
