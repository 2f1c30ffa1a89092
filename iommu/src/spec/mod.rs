//! Layouts of registers, tables and descriptors, with their bits, access and section of the VT-d specification,
//! revision 5.1. Nothing here has a state or an effect.

pub mod context;
pub mod fault_record;
pub mod first_stage;
pub mod invalidation;
pub mod page_request;
pub mod pasid_entry;
pub mod registers;

use refault_bus::Gpa;

/// HAW, the width of a physical address in bits, which the machine reports in its DMAR table too (§8.1). Bits of a table
/// pointer beyond it are reserved. A first-stage entry has no such bits: its address ends at bit 51.
pub const HOST_ADDRESS_WIDTH: u8 = Gpa::WIDTH;

/// Whether the 4 KiB frame number of a pointer field exceeds the host address width.
pub(crate) const fn beyond_host_width(frame: u64) -> bool {
    frame >> (HOST_ADDRESS_WIDTH - 12) != 0
}
