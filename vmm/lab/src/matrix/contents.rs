//! What every file must contain, known without asking the filesystem: the oracle of the matrix.
//!
//! Each 8-byte word says whose it is, so that a byte in the wrong place is recognised by looking at it. Where the order
//! of two things is not known - a write was in flight when the file changed - a page may be one of several.

use std::ops::Range;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;
/// The part of a page that a program writes: not all of it, so that a copy of the page must bring the rest along.
pub(super) const WRITTEN: Range<usize> = 512..3584;

/// Who wrote a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// The file under DMA, its program and everybody else who writes that file.
    Data = 0xa1,
    /// The file it is exchanged with.
    Donor = 0xd2,
    /// A file that is there all the time.
    Bystander = 0xb3,
    /// Whoever gets the blocks that become free.
    Heir = 0xc4,
}

/// A page full of words of one owner.
pub(super) fn page_of(owner: Owner, version: u32, page: u64) -> Vec<u8> {
    let word = |index: u64| (owner as u64) << 56 | u64::from(version) << 32 | (page & 0xffff) << 16 | index;
    (0..PAGE as u64 / 8).flat_map(|index| word(index).to_le_bytes()).collect()
}

/// What a program writes into a page.
pub(super) fn written(version: u32, page: u64) -> Vec<u8> {
    page_of(Owner::Data, version, page)[WRITTEN].to_vec()
}

/// Bytes of the words in which two pages differ. Everybody writes whole words, and two words of one place may well have
/// bytes in common.
pub(super) fn difference(one: &[u8], other: &[u8]) -> u64 {
    8 * one.chunks(8).zip(other.chunks(8)).filter(|(a, b)| a != b).count() as u64
}

/// Bytes of `found` that are not as `expected` has them and belong to another owner than the data file's.
pub(super) fn foreign(found: &[u8], expected: &[u8]) -> u64 {
    let words = found.chunks_exact(8).zip(expected.chunks_exact(8));
    let is_foreign = |word: &[u8]| word[7] != 0 && word[7] != Owner::Data as u8;
    8 * words.filter(|(found, expected)| found != expected && is_foreign(found)).count() as u64
}

/// What a page may be; at least one possibility.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Possible(Vec<Vec<u8>>);

impl Possible {
    /// Exactly this.
    pub(super) fn only(bytes: Vec<u8>) -> Self {
        Self(vec![bytes])
    }

    /// A hole.
    pub(super) fn zeroes() -> Self {
        Self::only(vec![0; PAGE])
    }

    /// It was overwritten from `offset` on.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        for page in &mut self.0 {
            page[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// It may have been overwritten from `offset` on.
    pub(super) fn may_write(&mut self, offset: usize, bytes: &[u8]) {
        let mut changed = self.clone();
        changed.write(offset, bytes);
        self.or(&changed);
    }

    /// It may be what `other` may be.
    pub(super) fn or(&mut self, other: &Self) {
        for page in &other.0 {
            if !self.0.contains(page) {
                self.0.push(page.clone());
            }
        }
    }

    /// The possibility that comes nearest to what was found.
    pub(super) fn nearest(&self, found: &[u8]) -> &[u8] {
        let nearest = self.0.iter().min_by_key(|page| difference(page, found));
        nearest.map_or(&[], Vec::as_slice)
    }

    /// Takes what was found for what it is; in how many bytes it is none of the possibilities.
    pub(super) fn settle(&mut self, found: &[u8]) -> u64 {
        let wrong = difference(self.nearest(found), found);
        *self = Self::only(found.to_vec());
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_whose_they_are() {
        let (ours, theirs) = (page_of(Owner::Data, 1, 3), page_of(Owner::Heir, 1, 3));
        assert_eq!(foreign(&ours, &page_of(Owner::Data, 2, 3)), 0, "old bytes are stale, not foreign");
        assert_eq!(foreign(&theirs, &ours), PAGE as u64);
        assert_eq!(foreign(&theirs, &theirs), 0, "what is expected is not foreign");
        assert_eq!(foreign(&vec![0; PAGE], &ours), 0, "zeroes are nobody's");
    }

    #[test]
    fn a_page_that_may_be_two_things_is_wrong_only_if_it_is_neither() {
        let mut page = Possible::zeroes();
        page.may_write(8, &[1; 8]);
        assert_eq!(page.clone().settle(&vec![0; PAGE]), 0);
        let mut found = vec![0; PAGE];
        found[8..16].fill(1);
        assert_eq!(page.clone().settle(&found), 0);
        found[15] = 2;
        assert_eq!(page.settle(&found), 8);
        assert_eq!(page.settle(&found), 0, "what was found once is not counted again");
    }

    #[test]
    fn a_write_leaves_the_rest_of_every_possibility_alone() {
        let mut page = Possible::only(page_of(Owner::Data, 1, 0));
        page.or(&Possible::zeroes());
        page.write(WRITTEN.start, &written(2, 0));
        let mut found = page_of(Owner::Data, 1, 0);
        found[WRITTEN].copy_from_slice(&written(2, 0));
        assert_eq!(page.settle(&found), 0);
    }
}
