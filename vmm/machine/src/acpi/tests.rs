//! The tables as a guest finds them, starting at the root pointer.

use super::*;
use crate::config::MachineConfig;
use crate::memory::layout::{IOAPIC, IOMMU, LAPIC};

struct Tables {
    image: Vec<u8>,
    rsdp: u64,
}

impl Tables {
    fn new(cpus: u8, iommu: bool) -> Self {
        let layout = Layout::new(&MachineConfig::sample(), 40).unwrap();
        let (rsdp, image) = build(Description { cpus, layout: &layout, iommu }).unwrap();
        Self { image, rsdp }
    }

    fn at(&self, address: u64) -> &[u8] {
        &self.image[(address - ACPI.start) as usize..]
    }

    fn u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.at(address)[..4].try_into().unwrap())
    }

    fn u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.at(address)[..8].try_into().unwrap())
    }

    /// The table at `address`, with its checksum verified.
    fn table(&self, address: u64) -> &[u8] {
        let table = &self.at(address)[..self.u32(address + 4) as usize];
        assert_eq!(sum(table), 0, "checksum of {:?}", std::str::from_utf8(&table[..4]));
        table
    }

    /// The table with `signature`, found through the root pointer.
    fn find(&self, signature: &[u8; 4]) -> Option<&[u8]> {
        let xsdt = self.u64(self.rsdp + 24);
        let entries = (self.table(xsdt).len() as u64 - 36) / 8;
        (0..entries)
            .map(|index| self.table(self.u64(xsdt + 36 + index * 8)))
            .find(|table| &table[..4] == signature)
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[test]
fn the_root_pointer_checks_in_both_lengths() {
    let tables = Tables::new(1, false);
    let rsdp = &tables.at(tables.rsdp)[..36];
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!((sum(&rsdp[..20]), sum(rsdp), tables.rsdp % 16), (0, 0, 0));
}

#[test]
fn every_table_is_reachable_and_has_a_valid_checksum() {
    let tables = Tables::new(2, true);
    for signature in [b"FACP", b"APIC", b"MCFG", b"DMAR"] {
        assert!(tables.find(signature).is_some(), "{signature:?}");
    }
    let fadt = tables.find(b"FACP").unwrap();
    let dsdt = u64::from_le_bytes(fadt[140..148].try_into().unwrap());
    assert_eq!(&tables.table(dsdt)[..4], b"DSDT");
}

#[test]
fn the_dmar_names_one_unit_for_everything() {
    let tables = Tables::new(1, true);
    let dmar = tables.find(b"DMAR").unwrap();
    assert_eq!(dmar.len(), 48 + 16);
    assert_eq!((dmar[36], dmar[37]), (51, 0), "52 address bits, no interrupt remapping");
    let unit = &dmar[48..];
    assert_eq!(unit[..8], [0, 0, 16, 0, 1, 0, 0, 0]);
    assert_eq!(u64::from_le_bytes(unit[8..].try_into().unwrap()), IOMMU.start);
}

#[test]
fn without_an_iommu_there_is_no_dmar() {
    assert!(Tables::new(1, false).find(b"DMAR").is_none());
}

#[test]
fn the_madt_has_every_vcpu_and_the_io_apic() {
    let tables = Tables::new(3, false);
    let madt = tables.find(b"APIC").unwrap();
    assert_eq!(madt[36..40], LAPIC.to_le_bytes());
    let (cpus, ioapic) = madt[44..].split_at(3 * 8);
    for (cpu, id) in cpus.chunks(8).zip(0u8..) {
        assert_eq!(cpu, [0, 8, id, id, 1, 0, 0, 0]);
    }
    assert_eq!((ioapic[0], ioapic[1]), (1, 12));
    assert_eq!(ioapic[4..8], IOAPIC.to_le_bytes());
}

#[test]
fn the_mcfg_has_bus_0() {
    let tables = Tables::new(1, false);
    let entry = &tables.find(b"MCFG").unwrap()[44..];
    assert_eq!(entry[..8], ECAM.start.to_le_bytes());
    assert_eq!(entry[8..12], [0, 0, 0, 0]);
}

#[test]
fn the_fadt_says_how_to_power_off_and_reset() {
    let tables = Tables::new(1, false);
    let fadt = tables.find(b"FACP").unwrap();
    let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
    assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10, "hardware-reduced, with a reset register");
    let register = |at: usize| (fadt[at], u64::from_le_bytes(fadt[at + 4..at + 12].try_into().unwrap()));
    assert_eq!(register(116), (1, 0xcf9));
    assert_eq!((register(244), register(256)), ((1, 0x600), (1, 0x601)));
}

#[test]
fn the_dsdt_has_the_sleep_type_of_power_off() {
    let tables = Tables::new(1, false);
    let fadt = tables.find(b"FACP").unwrap();
    let dsdt = tables.table(u64::from_le_bytes(fadt[140..148].try_into().unwrap()));
    // Name, the root prefix, "_S5_", a package (its length, four elements), a byte constant.
    let name = b"\x08\\_S5_\x12";
    let at = dsdt.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    assert_eq!(dsdt[at + 1..at + 4], [4, 0x0a, 5]);
}

#[test]
fn the_tables_fit_for_the_most_vcpus() {
    Tables::new(crate::config::CPUS_MAX, true);
}
