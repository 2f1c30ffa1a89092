//! ACPI: the tables that describe the machine to the guest.
//!
//! The machine is hardware-reduced (ACPI 6.5, 4.1): no fixed registers, no legacy timers or interrupt
//! controllers, sleep and reset through one port each.

mod dmar;
mod dsdt;
mod fadt;
mod madt;

pub use self::dmar::{DMAR_REGISTERS, dmar_for};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, sdt::Sdt};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::memory::layout::{ACPI, ECAM, Layout};

const OEM: [u8; 6] = *b"REFALT";
const OEM_TABLE: [u8; 8] = *b"REFAULT ";
const OEM_REVISION: u32 = 1;
const TABLE_ALIGN: usize = 64;

/// The tables are larger than the range reserved for them.
#[derive(Debug, Error)]
#[error("ACPI tables do not fit into {:#x} bytes", ACPI.end - ACPI.start)]
pub struct AcpiError;

/// What the tables describe.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// Number of vCPUs, each with a local APIC in the MADT.
    pub cpus: u8,
    /// Addresses of memory and PCI windows.
    pub layout: &'a Layout,
    /// Whether there is an IOMMU.
    pub iommu: bool,
}

/// Writes all tables and returns the address of the root pointer.
///
/// # Errors
/// The tables do not fit into their range.
pub fn write(memory: &GuestMemoryMmap, description: Description<'_>) -> Result<u64, AcpiError> {
    let (rsdp, image) = build(description)?;
    memory.write_slice(&image, GuestAddress(ACPI.start)).map_err(|_| AcpiError)?;
    Ok(rsdp)
}

/// Builds all tables as one image for the reserved range, and the address of the root pointer.
fn build(description: Description<'_>) -> Result<(u64, Vec<u8>), AcpiError> {
    let mut image = Vec::new();
    let dsdt = place(&mut image, &dsdt::dsdt(description.layout));
    let mut tables =
        vec![place(&mut image, &fadt::fadt(dsdt)), place(&mut image, &madt::madt(description.cpus))];
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(ECAM.start, 0, 0, 0);
    tables.push(place(&mut image, &mcfg));
    if description.iommu {
        tables.push(place(&mut image, &dmar::dmar()));
    }
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    tables.into_iter().for_each(|table| xsdt.add_entry(table));
    let xsdt = place(&mut image, &xsdt);
    let rsdp = place(&mut image, &Rsdp::new(OEM, xsdt));
    if image.len() as u64 > ACPI.end - ACPI.start { Err(AcpiError) } else { Ok((rsdp, image)) }
}

/// Appends one table and returns its address.
fn place(image: &mut Vec<u8>, table: &dyn Aml) -> u64 {
    let offset = image.len().next_multiple_of(TABLE_ALIGN);
    image.resize(offset, 0);
    table.to_aml_bytes(image);
    ACPI.start + offset as u64
}

/// An empty table with our OEM fields.
fn table(signature: [u8; 4], revision: u8) -> Sdt {
    Sdt::new(signature, 36, revision, OEM, OEM_TABLE, OEM_REVISION)
}

#[cfg(test)]
mod tests;
