//! One page-table entry and the sizes of pages.

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
    /// log2 of the size.
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

    /// The next smaller size.
    pub const fn smaller(self) -> Option<Self> {
        match self {
            Self::Small => None,
            Self::Large => Some(Self::Small),
            Self::Huge => Some(Self::Large),
        }
    }

    /// The size that entries of `level` map, if they can be leaves.
    pub const fn of_level(level: u8) -> Option<Self> {
        match level {
            1 => Some(Self::Small),
            2 => Some(Self::Large),
            3 => Some(Self::Huge),
            _ => None,
        }
    }
}

/// A page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PageTableEntry(pub u64);

impl PageTableEntry {
    /// Present.
    pub const P: u64 = 1 << 0;
    /// Writable.
    pub const W: u64 = 1 << 1;
    /// User.
    pub const U: u64 = 1 << 2;
    /// Accessed.
    pub const A: u64 = 1 << 5;
    /// Dirty.
    pub const D: u64 = 1 << 6;
    /// Page size: in levels 2 and 3, a leaf.
    pub const PS: u64 = 1 << 7;
    /// Not executable: data pages of a process have it.
    pub const NX: u64 = 1 << 63;
    /// The address bits.
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// An entry that points to a table, with the bits Linux gives it.
    pub const fn table(table: Gpa) -> Self {
        Self(table.0 | Self::P | Self::W | Self::U | Self::A | Self::D)
    }

    /// A leaf of a process' data page, not yet accessed.
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

    /// Whether an entry of `level` is a leaf, given that it is present.
    pub const fn is_leaf(self, level: u8) -> bool {
        level == 1 || (level < 4 && self.has(Self::PS))
    }
}
