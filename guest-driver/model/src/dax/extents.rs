//! A file's block map: runs of pages that lie in runs of blocks.

use std::ops::Range;

use crate::dax::Block;

/// A run of pages of a file that lie one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First page of the file.
    pub page: u64,
    /// Where it lies.
    pub block: Block,
    /// Pages.
    pub pages: u64,
    /// Allocated but never written: reads as zeroes.
    pub unwritten: bool,
}

impl Extent {
    const fn end(&self) -> u64 {
        self.page + self.pages
    }

    /// The part of it inside `range`.
    fn cut(&self, range: &Range<u64>) -> Option<Self> {
        let (page, end) = (self.page.max(range.start), self.end().min(range.end));
        (page < end).then(|| Self {
            page,
            block: Block(self.block.0 + (page - self.page)),
            pages: end - page,
            ..*self
        })
    }

    /// Whether `next` continues it.
    fn continues_in(&self, next: &Self) -> bool {
        self.end() == next.page
            && self.block.0 + self.pages == next.block.0
            && self.unwritten == next.unwritten
    }
}

/// Extents in the order of the file, merged where they can be. What is in none is a hole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExtentMap(Vec<Extent>);

impl ExtentMap {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Extent> {
        self.0.iter()
    }

    /// What is mapped inside `range`.
    pub(super) fn inside(&self, range: Range<u64>) -> Vec<Extent> {
        self.0.iter().filter_map(|extent| extent.cut(&range)).collect()
    }

    /// The page's block, and whether it was never written.
    pub(super) fn lookup(&self, page: u64) -> Option<Extent> {
        self.inside(page..page + 1).first().copied()
    }

    /// The blocks of `range`, page by page.
    pub(super) fn blocks(&self, range: Range<u64>) -> Vec<Block> {
        let each = |extent: Extent| (0..extent.pages).map(move |page| Block(extent.block.0 + page));
        self.inside(range).into_iter().flat_map(each).collect()
    }

    /// Makes a hole of `range`; what was there.
    pub(super) fn remove(&mut self, range: Range<u64>) -> Vec<Extent> {
        let removed = self.inside(range.clone());
        let outside = [0..range.start, range.end..u64::MAX];
        self.0 = self
            .0
            .iter()
            .flat_map(|extent| outside.each_ref().map(|part| extent.cut(part)))
            .flatten()
            .collect();
        removed
    }

    /// Puts an extent in place of whatever is there; what was there.
    pub(super) fn put(&mut self, extent: Extent) -> Vec<Extent> {
        let replaced = self.remove(extent.page..extent.end());
        let at = self.0.partition_point(|other| other.page < extent.page);
        self.0.insert(at, extent);
        self.merge();
        replaced
    }

    /// Moves everything from page `from` on by `by` pages, which may be negative: then the pages before `from` that
    /// it moves to are a hole.
    pub(super) fn shift(&mut self, from: u64, by: i64) {
        let moved = self.remove(from..u64::MAX);
        for extent in moved {
            self.put(Extent { page: extent.page.wrapping_add_signed(by), ..extent });
        }
    }

    fn merge(&mut self) {
        let mut merged: Vec<Extent> = Vec::with_capacity(self.0.len());
        for extent in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if last.continues_in(&extent) => last.pages += extent.pages,
                _ => merged.push(extent),
            }
        }
        self.0 = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(page: u64, block: u64, pages: u64) -> Extent {
        Extent { page, block: Block(block), pages, unwritten: false }
    }

    fn map(extents: &[Extent]) -> ExtentMap {
        let mut map = ExtentMap::default();
        extents.iter().for_each(|&extent| drop(map.put(extent)));
        map
    }

    #[test]
    fn neighbours_merge_and_others_do_not() {
        let merged = map(&[extent(4, 104, 2), extent(0, 100, 2), extent(2, 102, 2)]);
        assert_eq!(merged.0, [extent(0, 100, 6)]);
        let unwritten = Extent { unwritten: true, ..extent(2, 102, 2) };
        assert_eq!(map(&[extent(0, 100, 2), unwritten]).0.len(), 2);
        assert_eq!(map(&[extent(0, 100, 2), extent(2, 103, 2)]).0.len(), 2);
    }

    #[test]
    fn a_hole_splits_an_extent() {
        let mut map = map(&[extent(0, 100, 10)]);
        assert_eq!(map.remove(3..5), [extent(3, 103, 2)]);
        assert_eq!(map.0, [extent(0, 100, 3), extent(5, 105, 5)]);
        assert_eq!((map.lookup(4), map.lookup(5)), (None, Some(extent(5, 105, 1))));
        assert_eq!(map.blocks(2..6), [Block(102), Block(105)]);
    }

    #[test]
    fn putting_replaces_what_was_there() {
        let mut map = map(&[extent(0, 100, 4)]);
        assert_eq!(map.put(extent(1, 200, 2)), [extent(1, 101, 2)]);
        assert_eq!(map.0, [extent(0, 100, 1), extent(1, 200, 2), extent(3, 103, 1)]);
    }

    #[test]
    fn shifting_down_closes_a_hole_and_shifting_up_opens_one() {
        let mut map = map(&[extent(0, 100, 2), extent(4, 104, 2)]);
        map.shift(4, -2);
        assert_eq!(map.0, [extent(0, 100, 2), extent(2, 104, 2)]);
        map.shift(1, 3);
        assert_eq!(map.0, [extent(0, 100, 1), extent(4, 101, 1), extent(5, 104, 2)]);
    }
}
