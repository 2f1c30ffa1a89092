//! DMAR: the one IOMMU, the functions behind it, and the address of its registers (VT-d 5.0, 8.1 and 8.3).

use acpi_tables::sdt::Sdt;
use refault_bus::{Bdf, Gpa};

use super::table;
use crate::memory::layout::IOMMU;

/// Type of a "DMA remapping hardware unit definition".
const DRHD: u16 = 0;
const DRHD_SIZE: u16 = 16;
/// The unit covers every function that no other unit names.
const INCLUDE_PCI_ALL: u8 = 1;
/// Device scope: a PCI endpoint whose path has one step.
const ENDPOINT: u8 = 1;
const SCOPE_SIZE: u8 = 8;

/// Offset of the register address in a table with one unit.
pub const DMAR_REGISTERS: usize = 36 + 12 + 8;

/// For a machine whose unit covers all functions. No interrupt remapping, no reserved regions. Integrated endpoints need no
/// ATS structure: Linux enables ATS for functions on the root bus.
pub(super) fn dmar() -> Sdt {
    unit(INCLUDE_PCI_ALL, &[], IOMMU.start)
}

/// For a machine whose unit covers only these functions on the root bus; other devices do DMA past it.
pub fn dmar_for(functions: &[Bdf], registers: u64) -> Sdt {
    unit(0, functions, registers)
}

fn unit(flags: u8, functions: &[Bdf], registers: u64) -> Sdt {
    let mut dmar = table(*b"DMAR", 1);
    // The host address width, minus one.
    dmar.append(Gpa::WIDTH - 1);
    // Flags, and ten reserved bytes.
    dmar.append_slice(&[0; 11]);
    dmar.append(DRHD);
    dmar.append(DRHD_SIZE + functions.iter().map(|_| u16::from(SCOPE_SIZE)).sum::<u16>());
    dmar.append(flags);
    // Register set of 2^0 pages, segment 0.
    dmar.append(0u8);
    dmar.append(0u16);
    dmar.append(registers);
    for function in functions {
        let devfn = function.devfn();
        // Type, length, two reserved bytes, enumeration id, first bus, then device and function.
        dmar.append_slice(&[ENDPOINT, SCOPE_SIZE, 0, 0, 0, function.bus(), devfn >> 3, devfn & 7]);
    }
    dmar
}
