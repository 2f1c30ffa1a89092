//! Base address registers (PCIe 6.0, 7.5.1.2.1): 64-bit memory BARs.

use std::ops::Range;

use refault_bus::bits::{high_u32, low_u32};

use crate::identity::BAR0;
use crate::space::{ConfigSpace, Register};

/// A 64-bit memory BAR. It occupies two registers: at its index, and at the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Index of the lower register, 0 to 4.
    pub index: u8,
    /// Size in bytes: a power of two, at least 4 KiB so that no two BARs share a page.
    pub size: u64,
    /// Reads have no side effects, so the machine may prefetch.
    pub prefetchable: bool,
}

/// BAR bits 2:1: the address has 64 bits.
const MEMORY64: u32 = 0b100;
/// BAR bit 3: reads have no side effects.
const PREFETCHABLE: u32 = 1 << 3;

impl Bar {
    /// Whether index and size are possible.
    pub(crate) fn is_valid(&self) -> bool {
        self.index <= 4 && self.size.is_power_of_two() && (0x1000..=1 << 62).contains(&self.size)
    }

    /// The two registers, at dword [`Self::dword`] and the next. Address bits below the size are read-only zeroes:
    /// that is how the guest finds the size.
    pub(crate) fn registers(&self) -> [Register; 2] {
        let flags = MEMORY64 | if self.prefetchable { PREFETCHABLE } else { 0 };
        let address = !(self.size - 1);
        [
            Register::constant(flags).writable(low_u32(address)),
            Register::constant(0).writable(high_u32(address)),
        ]
    }

    /// Config dword of the lower register.
    pub(crate) fn dword(&self) -> usize {
        BAR0 + usize::from(self.index)
    }

    /// The addresses in the BAR, decoded or not; `None` if the range would wrap.
    pub(crate) fn range(&self, space: &ConfigSpace) -> Option<Range<u64>> {
        let low = space.value(self.dword()) & !0xf;
        let base = u64::from(space.value(self.dword() + 1)) << 32 | u64::from(low);
        Some(base..base.checked_add(self.size)?)
    }
}
