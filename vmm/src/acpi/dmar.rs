//! DMAR: there is one IOMMU, it has every PCI function, and its registers are here (VT-d 5.0, 8.1 and 8.3).

use acpi_tables::sdt::Sdt;

use super::table;
use crate::memory::layout::IOMMU;

/// Host address width, one less.
const ADDRESS_WIDTH: u8 = 48 - 1;
/// Remapping unit of type "DMA remapping hardware unit definition".
const DRHD: u16 = 0;
const DRHD_SIZE: u16 = 16;
/// The unit has every function that no other unit names.
const INCLUDE_PCI_ALL: u8 = 1;

/// The table. No interrupt remapping, no reserved regions. Integrated endpoints need no ATS structure: Linux
/// lets them translate by being on the root bus.
pub(super) fn dmar() -> Sdt {
    let mut dmar = table(*b"DMAR", 1);
    dmar.append(ADDRESS_WIDTH);
    // Flags, and ten reserved bytes.
    dmar.append_slice(&[0; 11]);
    dmar.append(DRHD);
    dmar.append(DRHD_SIZE);
    dmar.append(INCLUDE_PCI_ALL);
    // Register set of 2^0 pages, segment 0.
    dmar.append(0u8);
    dmar.append(0u16);
    dmar.append(IOMMU.start);
    dmar
}
