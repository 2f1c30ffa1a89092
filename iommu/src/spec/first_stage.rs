//! First-stage paging entries: the processor's own 4-level format (§9.7).

use bitfield_struct::bitfield;

/// Levels of a walk: PML4, PDP, PD, PT.
pub const LEVELS: u8 = 4;

/// log2 of the bytes that one entry of `level` maps; level 1 is the page table.
pub const fn level_shift(level: u8) -> u8 {
    12 + 9 * (level - 1)
}

/// A paging entry of any level, 64 bits, §9.7. Bits 11:9 and 62:52, for software and protection keys, are ignored, and
/// so is execute-disable, since no request is for execute permission.
#[bitfield(u64)]
pub struct FirstStageEntry {
    /// P, bit 0: present. The other bits are valid only with it.
    pub present: bool,
    /// R/W, bit 1: writable.
    pub writable: bool,
    /// U/S, bit 2: user accessible.
    pub user: bool,
    /// PWT, bit 3: memory type; ignored.
    pub pwt: bool,
    /// PCD, bit 4: memory type; ignored.
    pub pcd: bool,
    /// A, bit 5: accessed.
    pub accessed: bool,
    /// D, bit 6: dirty; in leaves only.
    pub dirty: bool,
    /// PS, bit 7: in PDP and PD entries, this is a leaf. PAT in PT entries, reserved in PML4 entries.
    pub page_size: bool,
    /// G, bit 8: global; ignored.
    pub global: bool,
    /// Bits 11:9, for software: ignored.
    #[bits(3)]
    pub software: u8,
    /// ADDR, bits 51:12: frame of the next table or of the page.
    #[bits(40)]
    pub frame: u64,
    /// Bits 62:52, for software and protection keys: ignored.
    #[bits(11)]
    pub software_high: u16,
    /// XD, bit 63: execute-disable; ignored.
    pub execute_disable: bool,
}

impl FirstStageEntry {
    /// Whether this entry of a table at `level` maps a page rather than a table.
    pub const fn is_leaf(&self, level: u8) -> bool {
        level == 1 || (self.page_size() && level < LEVELS)
    }

    /// Whether a bit that is reserved at `level` is set: PS in the top table, or an address bit below the size of a large
    /// page, except bit 12, which is its PAT.
    pub const fn is_malformed(&self, level: u8) -> bool {
        if level == LEVELS {
            return self.page_size();
        }
        let below = (1u64 << (level_shift(level) - 12)) - 1;
        self.is_leaf(level) && level > 1 && self.frame() & below & !1 != 0
    }

    /// Guest-physical address of the table or page.
    pub const fn address(&self, level: u8) -> u64 {
        let address = self.frame() << 12;
        if self.is_leaf(level) { address >> level_shift(level) << level_shift(level) } else { address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_bits_protection_keys_and_execute_disable_are_not_reserved() {
        let entry = FirstStageEntry::from_bits(0xfff0_0000_0000_0e01);
        assert!((1..=4).all(|level| !entry.is_malformed(level)));
    }

    #[test]
    fn address_bits_below_a_large_page_are_reserved_but_for_its_pat() {
        let entry = |frame| FirstStageEntry::new().with_present(true).with_page_size(true).with_frame(frame);
        assert!(!entry(0x200 | 1).is_malformed(2) && entry(0x202).is_malformed(2));
        assert!(!entry(0x4_0000 | 1).is_malformed(3) && entry(0x4_0200).is_malformed(3));
        assert!(entry(0).is_malformed(4) && !entry(3).is_malformed(1));
    }

    #[test]
    fn pages_are_mapped_by_every_level_but_the_top_one() {
        let large = FirstStageEntry::new().with_page_size(true);
        assert_eq!([1, 2, 3, 4].map(|level| large.is_leaf(level)), [true, true, true, false]);
        let table = FirstStageEntry::new();
        assert_eq!([1, 2, 3, 4].map(|level| table.is_leaf(level)), [true, false, false, false]);
    }

    #[test]
    fn the_address_of_a_large_page_has_no_pat_bit() {
        let entry = FirstStageEntry::new().with_page_size(true).with_frame(0x201);
        assert_eq!(entry.address(2), 0x20_0000);
        assert_eq!(entry.address(1), 0x20_1000);
    }
}
