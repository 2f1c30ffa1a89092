//! The DMAR table for a client's machine: one unit that lists its functions. Only firmware decides where the unit's
//! registers are, so the table contains a placeholder, which is replaced in guest memory once the address is known.

use acpi_tables::Aml;
use refault_bus::bits::index;
use refault_bus::dma::DmaMemory;
use refault_bus::{Bdf, Gpa};

use super::ram::ClientRam;
use refault_machine::acpi::{DMAR_REGISTERS, dmar_for};

/// The register address in the table while the real one is unknown.
const PLACEHOLDER: u64 = 0xdead_0000;
/// How far below the end of low memory firmware places its tables, in bytes.
const SEARCHED: u64 = 4 << 20;
/// Bytes of memory searched in one step.
const STEP: u64 = 64 << 10;
/// Offset of a table's checksum.
const CHECKSUM: usize = 9;

/// The whole table with its header, for QEMU's `-acpitable file=`.
pub(super) fn table(functions: &[Bdf]) -> Vec<u8> {
    let mut bytes = Vec::new();
    dmar_for(functions, PLACEHOLDER).to_aml_bytes(&mut bytes);
    bytes
}

/// Finds the table in guest memory and sets the address of the registers. Returns whether the table was found.
pub(super) fn patch(ram: &ClientRam, registers: u64) -> bool {
    let Some(low) = ram.low_end() else { return false };
    let start = low.end.saturating_sub(SEARCHED).max(low.start);
    let mut buffer = vec![0; index(STEP)];
    // Steps overlap by the longest table, so that a table across two steps is found.
    let overlap = 1 << 10;
    let mut at = start;
    while at < low.end {
        let length = index(STEP.min(low.end - at));
        let Some(bytes) = buffer.get_mut(..length) else { return false };
        if ram.read(Gpa(at), bytes).is_ok()
            && let Some((offset, table)) = find(bytes)
        {
            let fixed = with_registers(table, registers);
            return ram.write(Gpa(at + offset as u64), &fixed).is_ok();
        }
        at += STEP - overlap;
    }
    false
}

/// Finds our DMAR in the bytes, and its offset: QEMU's firmware does not align tables.
fn find(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'D');
    starts.map(|(offset, _)| offset).find_map(|offset| {
        let rest = bytes.get(offset..)?;
        if !rest.starts_with(b"DMAR") || rest.get(10..24)? != b"REFALTREFAULT " {
            return None;
        }
        let length = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?) as usize;
        let table = rest.get(..length).filter(|table| table.len() > DMAR_REGISTERS + 8)?;
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        (sum == 0).then_some((offset, table))
    })
}

fn with_registers(table: &[u8], registers: u64) -> Vec<u8> {
    let mut table = table.to_vec();
    if let Some(place) = table.get_mut(DMAR_REGISTERS..DMAR_REGISTERS + 8) {
        place.copy_from_slice(&registers.to_le_bytes());
    }
    if let Some(checksum) = table.get_mut(CHECKSUM) {
        *checksum = 0;
    }
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = table.get_mut(CHECKSUM) {
        *checksum = sum.wrapping_neg();
    }
    table
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use refault_vfio_user::request::DmaMap;

    use super::*;

    const NIC: Bdf = Bdf::new(0, 0x10, 0);
    const LOW: u64 = 8 << 20;
    const REGISTERS: u64 = 0xfebf_0000;

    /// A machine with 8 MiB below 4 GiB, and the file behind them.
    fn machine() -> (ClientRam, File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LOW).unwrap();
        let ram = ClientRam::new(false);
        let map = DmaMap { address: 0, size: LOW, offset: 0, readable: true, writable: true };
        ram.map(0, map, Some(file.try_clone().unwrap())).unwrap();
        (ram, file)
    }

    fn sum(table: &[u8]) -> u8 {
        table.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn with_sum(mut table: Vec<u8>) -> Vec<u8> {
        table[CHECKSUM] = table[CHECKSUM].wrapping_sub(sum(&table));
        table
    }

    fn at(file: &File, place: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, place).unwrap();
        bytes
    }

    #[test]
    fn the_table_names_one_unit_with_one_function_in_72_bytes() {
        let table = table(&[NIC]);
        assert_eq!((table.len(), sum(&table)), (72, 0));
        assert_eq!(table[..8], *b"DMAR\x48\0\0\0");
        assert_eq!(table[36..38], [51, 0], "an address width of 52 bits, no flags: no interrupt remapping");
        assert_eq!(table[48..56], [0, 0, 24, 0, 0, 0, 0, 0], "one unit, only of what it names");
        assert_eq!(table[56..64], PLACEHOLDER.to_le_bytes());
        assert_eq!(table[64..], [1, 8, 0, 0, 0, 0, 0x10, 0], "an endpoint at 00:10.0");
    }

    #[test]
    fn the_table_is_updated_wherever_firmware_placed_it() {
        let step = STEP - (1 << 10);
        let start = LOW - SEARCHED;
        let edge = start + STEP;
        for place in [
            start,
            start + 0x1235,
            edge - 1,
            edge - 30,
            edge - 71,
            edge - 72,
            start + step,
            start + 40 * step - 3,
            LOW - 72,
        ] {
            let (ram, file) = machine();
            let table = table(&[NIC]);
            file.write_all_at(&table, place).unwrap();
            assert!(patch(&ram, REGISTERS), "{place:#x}");
            let fixed = at(&file, place, 72);
            assert_eq!((&fixed[56..64], sum(&fixed)), (&REGISTERS.to_le_bytes()[..], 0), "{place:#x}");
            assert_eq!(
                (&fixed[..9], &fixed[10..56], &fixed[64..]),
                (&table[..9], &table[10..56], &table[64..])
            );
            // After a reboot firmware may move the registers but leave the table unchanged.
            assert!(patch(&ram, 0xc0_0000_0000));
            assert_eq!(at(&file, place, 72)[56..64], 0xc0_0000_0000u64.to_le_bytes());
        }
    }

    #[test]
    fn foreign_tables_are_left_alone() {
        let mut foreign = table(&[NIC]);
        foreign[10..16].copy_from_slice(b"BOCHS ");
        let mut broken = table(&[NIC]);
        broken[71] ^= 1;
        let mut endless = table(&[NIC]);
        endless[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut short = table(&[NIC]);
        short[4..8].copy_from_slice(&40u32.to_le_bytes());
        for other in
            [with_sum(foreign), broken, with_sum(endless), with_sum(short[..40].to_vec()), b"DMAR".to_vec()]
        {
            let (ram, file) = machine();
            let place = LOW - 0x2_0001;
            file.write_all_at(&other, place).unwrap();
            assert!(!patch(&ram, REGISTERS));
            assert_eq!(at(&file, place, other.len()), other);
            file.write_all_at(&table(&[NIC]), place + 0x1000).unwrap();
            assert!(patch(&ram, REGISTERS), "ours is found behind it");
            assert_eq!(at(&file, place, other.len()), other);
        }
    }

    #[test]
    fn tables_are_searched_only_where_firmware_places_them() {
        assert!(!patch(&ClientRam::new(false), REGISTERS), "no memory");
        let (ram, file) = machine();
        assert!(!patch(&ram, REGISTERS), "no table");
        file.write_all_at(&table(&[NIC]), LOW - SEARCHED - 72).unwrap();
        assert!(!patch(&ram, REGISTERS), "a copy on its way there");
    }
}
