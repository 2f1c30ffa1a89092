//! The block map of a file.

use std::ops::Range;

use crate::dax::Block;

/// A run of pages of a file in contiguous blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First page, from the start of the file.
    pub page: u64,
    /// Block of the first page.
    pub block: Block,
    /// Number of pages.
    pub pages: u64,
    /// The blocks were allocated but never written, and read as zeroes.
    pub unwritten: bool,
}

impl Extent {
    const fn end(&self) -> u64 {
        self.page + self.pages
    }

    /// The part within `range`, if any.
    fn cut(&self, range: &Range<u64>) -> Option<Self> {
        let (page, end) = (self.page.max(range.start), self.end().min(range.end));
        (page < end).then(|| Self {
            page,
            block: Block(self.block.0 + (page - self.page)),
            pages: end - page,
            ..*self
        })
    }

    /// Whether `next` can be merged into it.
    fn continues_in(&self, next: &Self) -> bool {
        self.end() == next.page
            && self.block.0 + self.pages == next.block.0
            && self.unwritten == next.unwritten
    }
}

/// The extents of a file in order, merged where possible. Pages in no extent are holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExtentMap(Vec<Extent>);

impl ExtentMap {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Extent> {
        self.0.iter()
    }

    /// The parts of extents within `range`.
    pub(super) fn inside(&self, range: Range<u64>) -> Vec<Extent> {
        self.0.iter().filter_map(|extent| extent.cut(&range)).collect()
    }

    /// The extent of one page; `None` for a hole.
    pub(super) fn lookup(&self, page: u64) -> Option<Extent> {
        self.inside(page..page + 1).first().copied()
    }

    /// The blocks of `range`, one per page that has one.
    pub(super) fn blocks(&self, range: Range<u64>) -> Vec<Block> {
        let each = |extent: Extent| (0..extent.pages).map(move |page| Block(extent.block.0 + page));
        self.inside(range).into_iter().flat_map(each).collect()
    }

    /// Makes `range` a hole. Returns the extents that were there.
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

    /// Inserts an extent. Returns the extents that it replaces.
    pub(super) fn put(&mut self, extent: Extent) -> Vec<Extent> {
        let replaced = self.remove(extent.page..extent.end());
        let at = self.0.partition_point(|other| other.page < extent.page);
        self.0.insert(at, extent);
        self.merge();
        replaced
    }

    /// Moves all extents from page `from` on by `by` pages. If `by` is negative, the pages that they move to must be a
    /// hole.
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
