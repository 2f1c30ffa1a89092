//! Page-table entries and page sizes (Intel SDM vol. 3, 5.5).

use refault_bus::Gpa;

/// The page sizes of four-level paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// 4 KiB: a PTE.
    Small,
    /// 2 MiB: a PMD.
    Large,
    /// 1 GiB: a PUD.
    Huge,
}

impl PageSize {
    /// log2 of the size in bytes.
    pub const fn shift(self) -> u8 {
        match self {
            Self::Small => 12,
            Self::Large => 21,
            Self::Huge => 30,
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Level of the table whose entries map pages of this size: 1 to 3.
    pub const fn level(self) -> u8 {
        match self {
            Self::Small => 1,
            Self::Large => 2,
            Self::Huge => 3,
        }
    }

    /// The next smaller size; `None` for 4 KiB.
    pub const fn smaller(self) -> Option<Self> {
        match self {
            Self::Small => None,
            Self::Large => Some(Self::Small),
            Self::Huge => Some(Self::Large),
        }
    }

    /// The size that a leaf of `level` maps; `None` if that level has no leaves.
    pub const fn of_level(level: u8) -> Option<Self> {
        match level {
            1 => Some(Self::Small),
            2 => Some(Self::Large),
            3 => Some(Self::Huge),
            _ => None,
        }
    }
}

/// An entry of any level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PageTableEntry(pub u64);

impl PageTableEntry {
    /// P: the entry is present.
    pub const P: u64 = 1 << 0;
    /// R/W: writes are allowed.
    pub const W: u64 = 1 << 1;
    /// U/S: accesses without supervisor rights are allowed.
    pub const U: u64 = 1 << 2;
    /// A: the entry was used.
    pub const A: u64 = 1 << 5;
    /// D: the page was written.
    pub const D: u64 = 1 << 6;
    /// PS: an entry of level 2 or 3 is a leaf.
    pub const PS: u64 = 1 << 7;
    /// XD: instruction fetches are not allowed. Set in all leaves of a process.
    pub const NX: u64 = 1 << 63;
    /// Bits 51:12, the address of the next table or of the page.
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// An entry for the table at `table`, with the bits that Linux sets.
    pub const fn table(table: Gpa) -> Self {
        Self(table.0 | Self::P | Self::W | Self::U | Self::A | Self::D)
    }

    /// A leaf for a data page of a process, not accessed yet.
    pub const fn leaf(page: Gpa, size: PageSize, write: bool) -> Self {
        let size_bit = if matches!(size, PageSize::Small) { 0 } else { Self::PS };
        let write_bit = if write { Self::W } else { 0 };
        Self(page.0 | Self::P | Self::U | Self::NX | size_bit | write_bit)
    }

    /// Whether all of `bits` are set.
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// The address of the table or page.
    pub const fn address(self) -> Gpa {
        Gpa(self.0 & Self::ADDRESS)
    }

    /// Whether this entry of `level` is a leaf; meaningful only if it is present.
    pub const fn is_leaf(self, level: u8) -> bool {
        level == 1 || (level < 4 && self.has(Self::PS))
    }
}
