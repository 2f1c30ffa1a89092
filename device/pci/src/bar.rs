//! Base address registers: 64-bit memory windows.

use std::ops::Range;

use crate::identity::BAR0;
use crate::space::{ConfigSpace, Register};

/// A 64-bit memory BAR. It occupies its index and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Index of the lower half, 0 to 4.
    pub index: u8,
    /// Size in bytes: a power of two, at least 4 KiB so that windows never share a page.
    pub size: u64,
    /// Reads have no side effects.
    pub prefetchable: bool,
}

/// Type bits of a 64-bit memory BAR.
const MEMORY64: u32 = 0b100;
const PREFETCHABLE: u32 = 1 << 3;

impl Bar {
    /// Whether a function can have it.
    pub(crate) fn is_valid(&self) -> bool {
        self.index <= 4 && self.size.is_power_of_two() && (0x1000..=1 << 62).contains(&self.size)
    }

    /// The two registers at config dword `dword()`.
    pub(crate) fn registers(&self) -> [Register; 2] {
        let flags = MEMORY64 | if self.prefetchable { PREFETCHABLE } else { 0 };
        let address = !(self.size - 1);
        [
            Register::constant(flags).writable(address as u32),
            Register::constant(0).writable((address >> 32) as u32),
        ]
    }

    /// Config dword of the lower half.
    pub(crate) fn dword(&self) -> usize {
        BAR0 + usize::from(self.index)
    }

    /// Where the BAR points, whether decoded or not; `None` if it would wrap.
    pub(crate) fn range(&self, space: &ConfigSpace) -> Option<Range<u64>> {
        let low = space.value(self.dword()) & !0xf;
        let base = u64::from(space.value(self.dword() + 1)) << 32 | u64::from(low);
        Some(base..base.checked_add(self.size)?)
    }
}
