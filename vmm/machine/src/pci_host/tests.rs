//! Config accesses by both mechanisms, and BARs that move.

use super::*;
use crate::config::{ExitReason, MachineConfig};
use crate::control::{Exit, RESET_VALUE};

const BDF: Bdf = Bdf::new(0, 3, 0);
const CONFIG_ADDRESS: u32 = 0x8000_1800;

/// A function whose BARs return what was written last to any of them.
struct Scratch {
    endpoint: Endpoint,
    bdf: Bdf,
    value: Mutex<u8>,
}

impl Scratch {
    /// With BAR 0 of the given size, and BAR 2 of a page.
    fn new(bdf: Bdf, bar_size: u64) -> Arc<Self> {
        let identity = Identity {
            vendor: 0x1fef,
            device: 0x0bad,
            class: 0xff_0000,
            revision: 0,
            subsystem_vendor: 0,
            subsystem: 0,
        };
        let endpoint =
            Endpoint::builder(identity).bar(0, bar_size, false).bar(2, 0x1000, false).build().unwrap();
        Arc::new(Self { endpoint, bdf, value: Mutex::new(0) })
    }
}

impl PciFunction for Scratch {
    fn bdf(&self) -> Bdf {
        self.bdf
    }

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn bar_read(&self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(*self.value.lock().unwrap());
    }

    fn bar_write(&self, _bar: u8, _offset: u64, data: &[u8]) {
        *self.value.lock().unwrap() = data[0];
    }

    fn reset(&self) {}
}

fn layout() -> Layout {
    Layout::new(&MachineConfig::sample(), 40).unwrap()
}

/// A bus with one function, reachable by both config mechanisms.
fn machine(bar_size: u64) -> (Arc<BusMap>, Arc<Exit>) {
    machine_of(vec![Scratch::new(BDF, bar_size)])
}

fn machine_of(functions: Vec<Arc<dyn PciFunction>>) -> (Arc<BusMap>, Arc<Exit>) {
    let bus = Arc::new(BusMap::default());
    let host = PciHost::new(functions, &layout(), &bus).unwrap();
    let (host, exit) = (Arc::new(host), Arc::new(Exit::new().unwrap()));
    let ports = ConfigPorts::new(host.clone(), ResetControl::new(exit.clone()));
    assert!(bus.insert_memory(Ecam::RANGE, Arc::new(Ecam(host))));
    assert!(bus.insert_ports(CONFIG_PORT..CONFIG_PORT + 8, Arc::new(ports)));
    (bus, exit)
}

fn ecam(register: u64) -> u64 {
    ecam_of(BDF, register)
}

fn ecam_of(bdf: Bdf, register: u64) -> u64 {
    ECAM.start + u64::from(bdf.0) * 0x1000 + register
}

fn is_mapped(bus: &BusMap, address: u64) -> bool {
    read32(bus, address) != u32::MAX
}

fn read32(bus: &BusMap, address: u64) -> u32 {
    let mut data = [0; 4];
    bus.mmio_read(address, &mut data);
    u32::from_le_bytes(data)
}

fn port_read32(bus: &BusMap, port: u16) -> u32 {
    let mut data = [0; 4];
    bus.port_read(port, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn both_ways_reach_the_same_registers() {
    let (bus, _) = machine(0x1000);
    assert_eq!(read32(&bus, ecam(0)), 0x0bad_1fef);
    bus.port_write(CONFIG_PORT, &CONFIG_ADDRESS.to_le_bytes());
    assert_eq!(port_read32(&bus, CONFIG_PORT + 4), 0x0bad_1fef);
    bus.port_write(CONFIG_PORT, &(CONFIG_ADDRESS | 0x3c).to_le_bytes());
    bus.port_write(CONFIG_PORT + 4, &[0x5a]);
    assert_eq!(read32(&bus, ecam(0x3c)) & 0xff, 0x5a);
    let mut device = [0; 2];
    bus.port_write(CONFIG_PORT, &CONFIG_ADDRESS.to_le_bytes());
    bus.port_read(CONFIG_PORT + 6, &mut device);
    assert_eq!(device, [0xad, 0x0b]);
}

#[test]
fn a_missing_function_reads_as_ones() {
    let (bus, _) = machine(0x1000);
    assert_eq!(read32(&bus, ECAM.start + 0x8000), u32::MAX);
    bus.port_write(CONFIG_PORT, &0x8000_0800u32.to_le_bytes());
    assert_eq!(port_read32(&bus, CONFIG_PORT + 4), u32::MAX);
    bus.port_write(CONFIG_PORT, &0x0000_1800u32.to_le_bytes());
    assert_eq!(port_read32(&bus, CONFIG_PORT + 4), u32::MAX, "not enabled");
    bus.port_write(CONFIG_PORT, &0x80ff_0000u32.to_le_bytes());
    assert_eq!(port_read32(&bus, CONFIG_PORT + 4), u32::MAX, "no such bus");
}

#[test]
fn the_reset_register_is_among_the_config_ports() {
    let (bus, exit) = machine(0x1000);
    bus.port_write(CONFIG_PORT, &CONFIG_ADDRESS.to_le_bytes());
    bus.port_write(RESET_PORT, &[0x02]);
    let mut value = [0];
    bus.port_read(RESET_PORT, &mut value);
    assert_eq!((value, exit.reason()), ([0x02], None));
    assert_eq!(port_read32(&bus, CONFIG_PORT), CONFIG_ADDRESS, "the address is another register");
    bus.port_write(RESET_PORT, &[RESET_VALUE]);
    assert_eq!(exit.reason(), Some(ExitReason::Reset));
}

#[test]
fn firmware_leaves_bars_placed_and_decoded() {
    let (bus, _) = machine(0x1000);
    let base = u64::from(read32(&bus, ecam(0x10)) & !0xf);
    assert!(PCI_MMIO32.contains(&base));
    bus.mmio_write(base, &[0x77]);
    assert_eq!(read32(&bus, base), 0x7777_7777);
}

#[test]
fn a_large_bar_lies_above_4_gib() {
    let (bus, _) = machine(1 << 30);
    let base = u64::from(read32(&bus, ecam(0x14))) << 32 | u64::from(read32(&bus, ecam(0x10)) & !0xf);
    assert!(layout().pci_mmio64.contains(&base) && base.is_multiple_of(1 << 30));
    bus.mmio_write(base + (1 << 30) - 4, &[0x12, 0, 0, 0]);
    assert_eq!(read32(&bus, base), 0x1212_1212);
}

#[test]
fn a_bar_is_where_the_guest_moves_it() {
    let (bus, _) = machine(0x1000);
    let before = u64::from(read32(&bus, ecam(0x10)) & !0xf);
    bus.mmio_write(ecam(0x10), &0xd000_0000u32.to_le_bytes());
    assert_eq!((read32(&bus, before), read32(&bus, 0xd000_0000)), (u32::MAX, 0));
    bus.mmio_write(ecam(4), &[0]);
    assert_eq!(read32(&bus, 0xd000_0000), u32::MAX, "decoding is off");
    bus.mmio_write(ecam(4), &[2]);
    assert_eq!(read32(&bus, 0xd000_0000), 0);
}

#[test]
fn an_overlapping_bar_is_unmapped_until_it_moves_away() {
    let (bus, _) = machine(0x1000);
    bus.mmio_write(ecam(0x10), &(ECAM.start as u32).to_le_bytes());
    assert_eq!(read32(&bus, ecam(0)), 0x0bad_1fef, "config space wins");
    bus.mmio_write(ecam(0x10), &0xd000_0000u32.to_le_bytes());
    assert_eq!(read32(&bus, 0xd000_0000), 0);
}

/// One write of eight bytes covers the upper half of BAR 0 and the lower half of BAR 2.
#[test]
fn one_write_moves_a_bar_to_where_another_was() {
    let (bus, _) = machine(0x1000);
    let move_both = |high0: u32, low2: u32| {
        let both = u64::from(low2) << 32 | u64::from(high0);
        bus.mmio_write(ecam(0x14), &both.to_le_bytes());
    };
    bus.mmio_write(ecam(0x10), &0xd000_0000u32.to_le_bytes());
    bus.mmio_write(ecam(0x1c), &1u32.to_le_bytes());
    bus.mmio_write(ecam(0x18), &0xd000_0000u32.to_le_bytes());
    let mapped = || [0xd000_0000, 0x1_d000_0000, 0x1_d100_0000].map(|address| is_mapped(&bus, address));
    assert_eq!(mapped(), [true, true, false]);
    move_both(1, 0xd100_0000);
    assert_eq!(mapped(), [false, true, true], "BAR 0 is where BAR 2 was");
    move_both(0, 0xd000_0000);
    assert_eq!(mapped(), [true, true, false], "and both are back");
}

#[test]
fn a_bar_that_found_its_place_taken_gets_it_when_it_is_free() {
    let other = Bdf::new(0, 4, 0);
    let (bus, _) = machine_of(vec![Scratch::new(BDF, 0x1000), Scratch::new(other, 0x1000)]);
    bus.mmio_write(ecam(0x10), &0xd000_0000u32.to_le_bytes());
    bus.mmio_write(0xd000_0000, &[0x11]);
    bus.mmio_write(ecam_of(other, 0x10), &0xd000_0000u32.to_le_bytes());
    assert_eq!(read32(&bus, 0xd000_0000), 0x1111_1111, "the first one stays");
    bus.mmio_write(ecam(0x10), &0xd100_0000u32.to_le_bytes());
    assert_eq!((read32(&bus, 0xd000_0000), read32(&bus, 0xd100_0000)), (0, 0x1111_1111));
}

#[test]
fn a_bus_refuses_what_cannot_be_on_it() {
    let bus = Arc::new(BusMap::default());
    let host = |functions| PciHost::new(functions, &layout(), &bus).err().map(|error| error.to_string());
    let twice: Vec<Arc<dyn PciFunction>> = vec![Scratch::new(BDF, 0x1000), Scratch::new(BDF, 0x1000)];
    assert_eq!(host(twice).unwrap(), "two PCI functions at 00:03.0");
    assert!(host(vec![Scratch::new(Bdf::new(1, 0, 0), 0x1000)]).unwrap().contains("01:00.0"));
    assert!(host(vec![Scratch::new(Bdf::new(0, 3, 1), 0x1000)]).is_some());
    assert!(host(vec![Scratch::new(BDF, 1 << 40)]).unwrap().contains("no room for BAR 0 of 00:03.0"));
}

#[test]
fn any_config_access_completes() {
    let (bus, _) = machine(0x1000);
    for len in 0..=8usize {
        for offset in 0..8 {
            bus.port_write(CONFIG_PORT + offset, &vec![0x80; len]);
            bus.port_read(CONFIG_PORT + offset, &mut vec![0; len]);
            bus.mmio_write(ecam(0xff8 + u64::from(offset)), &vec![0; len]);
            bus.mmio_read(ecam(0xff8 + u64::from(offset)), &mut vec![0; len]);
        }
    }
}
