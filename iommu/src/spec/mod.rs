//! Layouts of registers, tables and descriptors, with their bits, access and section of the VT-d specification,
//! revision 5.1. Nothing here has a state or an effect.

pub mod context;
pub mod fault_record;
pub mod first_stage;
pub mod invalidation;
pub mod page_request;
pub mod pasid_entry;
pub mod registers;

/// Width of a physical address in bits: bits 63:52 of every table pointer are reserved.
pub const HOST_ADDRESS_WIDTH: u32 = 52;

/// Whether the 4 KiB frame number of a pointer field exceeds the host address width.
pub(crate) const fn beyond_host_width(frame: u64) -> bool {
    frame >> (HOST_ADDRESS_WIDTH - 12) != 0
}
