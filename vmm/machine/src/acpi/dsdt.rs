//! DSDT: the PCI root and its windows, reserved ranges, serial ports, and the sleep state for power-off.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name,
    Package, Path, ResourceTemplate, Return, Scope,
};
use acpi_tables::sdt::Sdt;
use refault_bus::bits::{low_u8, low_u32};

use super::table;
use crate::control::{SLEEP_PORT, SLEEP_TYPE_OFF};
use crate::memory::layout::{ECAM, Layout, PCI_MMIO32};
use crate::pci_host::CONFIG_PORT;
use crate::serial::{PORT_ADDRESSES, PortAddress, SERIAL_SIZE};

/// Builds the table.
pub(super) fn dsdt(layout: &Layout) -> Sdt {
    let mut body = Vec::new();
    pci_root(&mut body, layout);
    reserved(&mut body);
    for ((place, name), number) in PORT_ADDRESSES.iter().zip(["COM1", "COM2", "COM3"]).zip(0u8..) {
        serial(&mut body, place, name, number);
    }
    Name::new(Path::new("\\_S5_"), &Package::new(vec![&SLEEP_TYPE_OFF, &0u8, &0u8, &0u8]))
        .to_aml_bytes(&mut body);
    let mut dsdt = table(*b"DSDT", 2);
    dsdt.append_slice(&body);
    dsdt
}

/// The root of PCI: one bus, and the windows for its functions' BARs.
fn pci_root(body: &mut Vec<u8>, layout: &Layout) {
    const UNCACHED: AddressSpaceCacheable = AddressSpaceCacheable::NotCacheable;
    let (start32, last32) = (low_u32(PCI_MMIO32.start), low_u32(PCI_MMIO32.end - 1));
    let (start64, last64) = (layout.pci_mmio64.start, layout.pci_mmio64.end - 1);
    let resources: [&dyn Aml; 6] = [
        &AddressSpace::new_bus_number(0u16, 0u16),
        &IO::new(CONFIG_PORT, CONFIG_PORT, 1, 8),
        &AddressSpace::new_io(0u16, CONFIG_PORT - 1, None),
        &AddressSpace::new_io(CONFIG_PORT + 8, u16::MAX, None),
        &AddressSpace::new_memory(UNCACHED, true, start32, last32, None),
        &AddressSpace::new_memory(UNCACHED, true, start64, last64, None),
    ];
    // Which features of PCI Express the kernel may control: all it asks for.
    let granted = Return::new(&Arg(3));
    let osc = Method::new(Path::new("_OSC"), 4, false, vec![&granted]);
    let more: [&dyn Aml; 4] = [
        &osc,
        &Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")),
        &Name::new(Path::new("_SEG"), &0u8),
        &Name::new(Path::new("_BBN"), &0u8),
    ];
    device(body, ("PCI0", "PNP0A08", 0), &resources, &more);
}

/// Ranges that belong to the machine itself. Linux uses an ECAM window only if it is reserved.
fn reserved(body: &mut Vec<u8>) {
    let resources: [&dyn Aml; 2] = [
        &Memory32Fixed::new(true, low_u32(ECAM.start), low_u32(ECAM.end - ECAM.start)),
        &IO::new(SLEEP_PORT, SLEEP_PORT, 1, 2),
    ];
    device(body, ("MBRD", "PNP0C02", 0), &resources, &[]);
}

/// A 16550 UART.
fn serial(body: &mut Vec<u8>, place: &PortAddress, name: &'static str, number: u8) {
    let resources: [&dyn Aml; 2] = [
        &IO::new(place.base, place.base, 1, low_u8(SERIAL_SIZE.into())),
        // Consumer, edge-triggered, active high, exclusive.
        &Interrupt::new(true, true, false, false, place.irq),
    ];
    device(body, (name, "PNP0501", number), &resources, &[&Name::new(Path::new("_DDN"), &name)]);
}

/// A device under `\_SB_`: name, hardware id, number among its kind, resources, other objects.
fn device(body: &mut Vec<u8>, id: (&str, &str, u8), resources: &[&dyn Aml], more: &[&dyn Aml]) {
    let (name, hid, uid) = id;
    let hid = Name::new(Path::new("_HID"), &EISAName::new(hid));
    let uid = Name::new(Path::new("_UID"), &uid);
    let resources = Name::new(Path::new("_CRS"), &ResourceTemplate::new(resources.to_vec()));
    let mut children: Vec<&dyn Aml> = vec![&hid, &uid, &resources];
    children.extend(more);
    Scope::new(Path::new("\\_SB_"), vec![&Device::new(Path::new(name), children)]).to_aml_bytes(body);
}
