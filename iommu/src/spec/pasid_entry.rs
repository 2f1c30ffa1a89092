//! Scalable-mode PASID directory entries (§9.5) and PASID table entries (§9.6).

use bitfield_struct::bitfield;

use super::beyond_host_width;

/// Size of a PASID table entry in bytes.
pub const PASID_ENTRY_BYTES: u64 = 64;

/// Number of PASIDs in one table, which one directory entry covers.
pub const PASIDS_PER_TABLE: u32 = 64;

/// PGTT value: first-stage translation.
pub const PGTT_FIRST_STAGE: u8 = 0b001;

/// PGTT value: pass-through.
pub const PGTT_PASS_THROUGH: u8 = 0b100;

/// PASID directory entry, 64 bits, §9.5.
#[bitfield(u64)]
pub struct PasidDirectoryEntry {
    /// P, bit 0: present.
    pub present: bool,
    /// FPD, bit 1: qualified faults are not recorded; valid without P.
    pub fpd: bool,
    #[bits(10)]
    reserved: u16,
    /// SMPTBLPTR, bits 63:12: frame of the PASID table.
    #[bits(52)]
    pub frame: u64,
}

impl PasidDirectoryEntry {
    /// Whether a reserved bit is set.
    pub const fn is_malformed(&self) -> bool {
        self.reserved() != 0 || beyond_host_width(self.frame())
    }
}

/// First quadword of a PASID table entry, §9.6.
#[bitfield(u64)]
pub struct PasidEntryControl {
    /// P, bit 0: present.
    pub present: bool,
    /// FPD, bit 1: qualified faults are not recorded; valid without P.
    pub fpd: bool,
    /// AW, bits 4:2: second-stage width; ignored.
    #[bits(3)]
    pub aw: u8,
    reserved: bool,
    /// PGTT, bits 8:6: translation type.
    #[bits(3)]
    pub pgtt: u8,
    /// SSADE, bit 9: second-stage accessed and dirty; ignored.
    pub ssade: bool,
    #[bits(2)]
    reserved_high: u8,
    /// SSPTPTR, bits 63:12: second-stage root; ignored.
    #[bits(52)]
    pub second_stage: u64,
}

impl PasidEntryControl {
    /// Whether a reserved bit is set.
    pub const fn is_malformed(&self) -> bool {
        self.reserved() || self.reserved_high() != 0
    }
}

/// Second quadword of a PASID table entry, §9.6.
#[bitfield(u64)]
pub struct PasidEntryDomain {
    /// DID, bits 15:0: domain id.
    pub did: u16,
    #[bits(7)]
    reserved: u8,
    /// PWSNP, bit 23: walks snoop; ignored, they always do.
    pub pwsnp: bool,
    /// PGSNP, bit 24: accesses snoop; valid, because ECAP.SC is set, and ignored: they always do.
    pub pgsnp: bool,
    /// CD, EMTE, EMT, PWT and PCD, bits 31:25, and PAT, bits 63:32: memory types; reserved, because ECAP.MTS is clear.
    #[bits(39)]
    pub memory_type: u64,
}

impl PasidEntryDomain {
    /// Whether a reserved bit is set.
    pub const fn is_malformed(&self) -> bool {
        self.reserved() != 0 || self.memory_type() != 0
    }
}

/// Third quadword of a PASID table entry, §9.6.
#[bitfield(u64)]
pub struct PasidEntryFirstStage {
    /// SRE, bit 0: supervisor requests; reserved, because they are not supported.
    pub sre: bool,
    /// ERE, bit 1: execute requests; reserved, because they are not supported.
    pub ere: bool,
    /// FSPM, bits 3:2: paging mode; 0 is 4-level paging.
    #[bits(2)]
    pub fspm: u8,
    /// WPE, bit 4: write protection of supervisor accesses; ignored for user requests.
    pub wpe: bool,
    /// Bits 6:5: ignored, because older software has NXE here.
    #[bits(2)]
    pub ignored: u8,
    /// EAFE, bit 7: extended accessed flag; reserved, because it is not supported.
    pub eafe: bool,
    #[bits(4)]
    reserved: u8,
    /// FSPTPTR, bits 63:12: frame of the top first-stage table.
    #[bits(52)]
    pub frame: u64,
}

impl PasidEntryFirstStage {
    /// Whether a reserved bit is set.
    pub const fn is_malformed(&self) -> bool {
        self.sre() || self.ere() || self.eafe() || self.reserved() != 0 || beyond_host_width(self.frame())
    }
}
