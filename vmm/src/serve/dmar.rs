//! DMAR for a machine of somebody else's: one unit, and the functions it has by name. Where its registers are only the
//! firmware decides; so the table goes in with a placeholder, and is put right in guest memory when that is known.

use acpi_tables::Aml;
use refault_bus::dma::DmaMemory;
use refault_bus::{Bdf, Gpa};

use super::ram::ClientRam;
use crate::acpi::{DMAR_REGISTERS, dmar_for};

/// Where the registers are as long as they are nowhere.
const PLACEHOLDER: u64 = 0xdead_0000;
/// How far below the end of low memory firmware keeps its tables.
const SEARCHED: u64 = 4 << 20;
/// Memory looked at in one step.
const STEP: u64 = 64 << 10;
/// Offset of a table's checksum.
const CHECKSUM: usize = 9;

/// The whole table with its header, as QEMU takes it with `-acpitable file=`.
pub(super) fn table(functions: &[Bdf]) -> Vec<u8> {
    let mut bytes = Vec::new();
    dmar_for(functions, PLACEHOLDER).to_aml_bytes(&mut bytes);
    bytes
}

/// Finds the table in guest memory, and has it say where the registers are. Whether it was there.
pub(super) fn patch(ram: &ClientRam, registers: u64) -> bool {
    let Some(low) = ram.low_end() else { return false };
    let start = low.end.saturating_sub(SEARCHED).max(low.start);
    let mut buffer = vec![0; STEP as usize];
    // A table that lies across two steps is found in neither; so steps overlap by the longest table.
    let overlap = 1 << 10;
    let mut at = start;
    while at < low.end {
        let length = STEP.min(low.end - at) as usize;
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

/// A DMAR of ours among the bytes, and where: QEMU's firmware does not align tables.
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
