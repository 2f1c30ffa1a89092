//! Blocks of persistent memory: their allocator, reference counts and pins.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use refault_bus::Gpa;

use crate::memory::FRAME;

/// A block number, from the start of the filesystem's range of memory. Blocks are 4 KiB, like pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u64);

/// The pins of a block or of a range of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Number of pins.
    pub all: u32,
    /// Number of those with write access.
    pub writing: u32,
}

/// The allocator. It reuses freed blocks at once and lowest first, so that a use after free corrupts the next owner's
/// data and does not go unnoticed.
///
/// Pins are only counted, as in the kernel's struct page; they do not prevent a block from being freed. Policies decide
/// whether they matter.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    start: u64,
    total: u64,
    users: BTreeMap<Block, u32>,
    free: BTreeSet<Block>,
    pins: BTreeMap<Block, Pins>,
}

impl Blocks {
    /// The whole blocks of `range`, all of them free.
    pub(super) fn new(range: &Range<u64>) -> Self {
        let start = range.start.next_multiple_of(FRAME);
        let total = (range.end & !(FRAME - 1)).saturating_sub(start) / FRAME;
        Self { start, total, free: (0..total).map(Block).collect(), ..Self::default() }
    }

    /// Guest-physical address of a block.
    pub(super) fn gpa(&self, block: Block) -> Gpa {
        Gpa(self.start + block.0 * FRAME)
    }

    /// The block that contains an address, if any.
    pub(super) fn at(&self, gpa: Gpa) -> Option<Block> {
        let block = gpa.0.checked_sub(self.start)? / FRAME;
        (block < self.total).then_some(Block(block))
    }

    /// Allocates the lowest free block, with one user.
    pub(super) fn allocate(&mut self) -> Option<Block> {
        let block = self.free.pop_first()?;
        self.users.insert(block, 1);
        Some(block)
    }

    /// Adds a user to a block.
    pub(super) fn share(&mut self, block: Block) {
        *self.users.entry(block).or_default() += 1;
    }

    /// Removes a user. Returns `true` if it was the last, and the block is free now.
    pub(super) fn release(&mut self, block: Block) -> bool {
        let Some(users) = self.users.get_mut(&block) else { return false };
        *users -= 1;
        let last = *users == 0;
        if last {
            self.users.remove(&block);
            self.free.insert(block);
        }
        last
    }

    pub(super) fn is_shared(&self, block: Block) -> bool {
        self.users.get(&block).is_some_and(|&users| users > 1)
    }

    pub(super) fn free_count(&self) -> u64 {
        self.free.len() as u64
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The number of users of each block in use.
    pub(super) fn in_use(&self) -> &BTreeMap<Block, u32> {
        &self.users
    }

    pub(super) fn pin(&mut self, block: Block, write: bool) {
        let pins = self.pins.entry(block).or_default();
        pins.all += 1;
        pins.writing += u32::from(write);
    }

    pub(super) fn unpin(&mut self, block: Block, write: bool) {
        let Some(pins) = self.pins.get_mut(&block) else { return };
        pins.all = pins.all.saturating_sub(1);
        pins.writing = pins.writing.saturating_sub(u32::from(write));
        if pins.all == 0 {
            self.pins.remove(&block);
        }
    }

    pub(super) fn pins(&self, block: Block) -> Pins {
        self.pins.get(&block).copied().unwrap_or_default()
    }

    /// Total number of pins.
    pub(super) fn pinned(&self) -> u64 {
        self.pins.values().map(|pins| u64::from(pins.all)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_free_after_its_last_user_and_reused_first() {
        let mut blocks = Blocks::new(&(0x10_0000..0x10_4000));
        let [first, second] = [blocks.allocate().unwrap(), blocks.allocate().unwrap()];
        assert_eq!((blocks.gpa(first), blocks.gpa(second)), (Gpa(0x10_0000), Gpa(0x10_1000)));
        blocks.share(first);
        assert!(blocks.is_shared(first) && !blocks.is_shared(second));
        assert!(!blocks.release(first) && blocks.release(first));
        assert_eq!(blocks.allocate(), Some(first));
        assert_eq!(blocks.free_count(), 2);
    }

    #[test]
    fn a_range_is_cut_to_whole_blocks() {
        let mut blocks = Blocks::new(&(0x10_0800..0x10_3800));
        assert_eq!((blocks.total(), blocks.at(Gpa(0x10_1fff))), (2, Some(Block(0))));
        assert_eq!((blocks.at(Gpa(0x10_0fff)), blocks.at(Gpa(0x10_3000))), (None, None));
        assert!(blocks.allocate().is_some() && blocks.allocate().is_some() && blocks.allocate().is_none());
    }

    #[test]
    fn pins_are_counted_and_keep_nothing_from_being_freed() {
        let mut blocks = Blocks::new(&(0..0x2000));
        let block = blocks.allocate().unwrap();
        blocks.pin(block, true);
        blocks.pin(block, false);
        assert_eq!(blocks.pins(block), Pins { all: 2, writing: 1 });
        assert!(blocks.release(block));
        blocks.unpin(block, true);
        blocks.unpin(block, false);
        blocks.unpin(block, false);
        assert_eq!((blocks.pins(block), blocks.pinned()), (Pins::default(), 0));
    }
}
