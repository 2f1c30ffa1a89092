//! Where RAM and persistent memory lie in QEMU's q35 machine.
//!
//! QEMU lays all memory out in one row, NUMA node after NUMA node, with a hole below 4 GiB in it. So each persistent
//! region is a node of its own behind the RAM, the hole is put where the RAM ends (at 2 GiB at most), and the kernel is
//! told on its command line which part of the row is persistent: `memmap=SIZE!START` makes an e820 region of type 12.

use std::fmt::Write as _;
use std::ops::Range;

/// The most that q35 puts below the hole once there is more behind it.
const LOW_MAX: u64 = 2 << 30;
/// Where the row goes on behind the hole.
const HIGH: u64 = 4 << 30;
/// Between two regions, for the kernel would take neighbours for one.
const GAP: u64 = 2 << 20;

/// The row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of RAM.
    pub(super) ram: u64,
    /// Bytes of memory below the hole.
    pub(super) low: u64,
    /// Persistent regions, by address; a gap is behind each.
    pub(super) pmem: Vec<Range<u64>>,
}

impl Layout {
    /// For `ram` bytes of RAM and persistent regions of these sizes, all multiples of 2 MiB.
    pub(super) fn new(ram: u64, pmem: impl IntoIterator<Item = u64>) -> Self {
        let low = ram.min(LOW_MAX);
        let mut at = HIGH + (ram - low);
        let place = |size| {
            // In front of the first one too: a kernel may not find RAM and a region in one page of 2 MiB.
            let range = at + GAP..at + GAP + size;
            at = range.end;
            range
        };
        Self { ram, low, pmem: pmem.into_iter().map(place).collect() }
    }

    /// Bytes of all memory.
    pub(super) fn total(&self) -> u64 {
        let sizes: u64 = self.pmem.iter().map(|range| GAP + (range.end - range.start)).sum();
        self.ram + sizes
    }

    /// Where RAM ends.
    pub(super) fn ram_end(&self) -> u64 {
        if self.ram > self.low { HIGH + (self.ram - self.low) } else { self.ram }
    }

    /// Bytes of the node in front of each region.
    pub(super) const fn gap(&self) -> u64 {
        GAP
    }

    /// What the kernel is told: regions are persistent, gaps are nothing.
    pub(super) fn command_line(&self) -> String {
        let mut text = String::new();
        for region in &self.pmem {
            let (start, size) = (region.start, region.end - region.start);
            let _ = write!(text, " memmap={GAP:#x}${:#x} memmap={size:#x}!{start:#x}", start - GAP);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn persistent_memory_begins_behind_the_hole() {
        let layout = Layout::new(1 << 30, [512 * MIB, 64 * MIB]);
        assert_eq!(layout.low, 1 << 30);
        assert_eq!(layout.pmem[0], HIGH + GAP..HIGH + GAP + 512 * MIB);
        assert_eq!(layout.pmem[1].start, layout.pmem[0].end + GAP);
        assert_eq!(layout.total(), (1 << 30) + 576 * MIB + 2 * GAP);
        assert!(layout.command_line().contains(" memmap=0x20000000!0x100200000"));
    }

    #[test]
    fn ram_beyond_two_gib_lies_in_front_of_it() {
        let layout = Layout::new(3 << 30, [64 * MIB]);
        assert_eq!((layout.low, layout.pmem[0].start), (2 << 30, (5 << 30) + GAP));
        assert_eq!((layout.ram_end(), Layout::new(1 << 30, []).ram_end()), (5 << 30, 1 << 30));
    }
}
