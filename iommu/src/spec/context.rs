//! Scalable-mode root entries (§9.2) and context entries (§9.4).

use bitfield_struct::bitfield;

use super::beyond_host_width;

/// Size of a root entry in bytes: two halves, for device numbers 0 to 15 and 16 to 31.
pub const ROOT_ENTRY_BYTES: u64 = 16;

/// Size of a context entry in bytes.
pub const CONTEXT_ENTRY_BYTES: u64 = 32;

/// Half of a root entry, 64 bits, §9.2.
#[bitfield(u64)]
pub struct RootHalf {
    /// LP / UP, bit 0: present.
    pub present: bool,
    #[bits(11)]
    reserved: u16,
    /// LCTP / UCTP, bits 63:12: frame of the context table.
    #[bits(52)]
    pub frame: u64,
}

impl RootHalf {
    /// Whether a reserved bit is set.
    pub const fn is_malformed(&self) -> bool {
        self.reserved() != 0 || beyond_host_width(self.frame())
    }
}

/// First quadword of a context entry, §9.4.
#[bitfield(u64)]
pub struct ContextEntry {
    /// P, bit 0: present.
    pub present: bool,
    /// FPD, bit 1: qualified faults are not recorded; valid without P.
    pub fpd: bool,
    /// DTE, bit 2: translation requests are allowed.
    pub dte: bool,
    /// PASIDE, bit 3: requests with PASID are allowed.
    pub paside: bool,
    /// PRE, bit 4: page requests are allowed.
    pub pre: bool,
    /// HPTE and EPTR, reserved here, and reserved bits: 8:5.
    #[bits(4)]
    reserved: u8,
    /// PDTS, bits 11:9: the PASID directory has 2^(PDTS + 7) entries.
    #[bits(3)]
    pub pdts: u8,
    /// PASIDDIRPTR, bits 63:12: frame of the PASID directory.
    #[bits(52)]
    pub frame: u64,
}

impl ContextEntry {
    /// Whether a reserved bit of this quadword is set.
    pub const fn is_malformed(&self) -> bool {
        self.reserved() != 0 || beyond_host_width(self.frame())
    }

    /// Number of PASIDs that the directory covers, 64 for each of its entries.
    pub const fn pasid_count(&self) -> u32 {
        1 << (self.pdts() as u32 + 7 + 6)
    }
}
