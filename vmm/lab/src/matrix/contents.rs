//! The oracle of the matrix: the expected contents of every file, tracked independently of the filesystem.
//!
//! Each 8-byte word identifies its owner, so a misplaced byte is recognised by its value. If the order of two events is
//! unknown, such as a file operation and a write in flight, a page has several candidate contents.

use std::ops::Range;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;
/// The part of a page that a program writes. Not all of it, so that a copy on write must preserve the rest.
pub(super) const WRITTEN: Range<usize> = 512..3584;

/// The writer of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WordOwner {
    /// A writer of the file under DMA: its program, or another one.
    Data = 0xa1,
    /// The file that blocks are exchanged with.
    Donor = 0xd2,
    /// A file that no operation touches.
    Bystander = 0xb3,
    /// The file that reuses freed blocks.
    Inheritor = 0xc4,
}

/// A page filled with words of one owner.
pub(super) fn page_of(owner: WordOwner, version: u32, page: u64) -> Vec<u8> {
    let word = |index: u64| (owner as u64) << 56 | u64::from(version) << 32 | (page & 0xffff) << 16 | index;
    (0..PAGE as u64 / 8).flat_map(|index| word(index).to_le_bytes()).collect()
}

/// The bytes that a program writes into a page.
pub(super) fn written(version: u32, page: u64) -> Vec<u8> {
    page_of(WordOwner::Data, version, page)[WRITTEN].to_vec()
}

/// Size in bytes of the words in which two pages differ. Whole words, because all writes are, and two different words may
/// have bytes in common.
pub(super) fn difference(one: &[u8], other: &[u8]) -> u64 {
    8 * one.chunks(8).zip(other.chunks(8)).filter(|(a, b)| a != b).count() as u64
}

/// Bytes of `found` that differ from `expected` and belong to another file.
pub(super) fn foreign(found: &[u8], expected: &[u8]) -> u64 {
    let words = found.chunks_exact(8).zip(expected.chunks_exact(8));
    let is_foreign = |word: &[u8]| word[7] != 0 && word[7] != WordOwner::Data as u8;
    8 * words.filter(|(found, expected)| found != expected && is_foreign(found)).count() as u64
}

/// The candidate contents of a page; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageCandidates(Vec<Vec<u8>>);

impl PageCandidates {
    /// A single candidate.
    pub(super) fn only(bytes: Vec<u8>) -> Self {
        Self(vec![bytes])
    }

    /// A hole.
    pub(super) fn zeroes() -> Self {
        Self::only(vec![0; PAGE])
    }

    /// The page was written at `offset`.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        for page in &mut self.0 {
            page[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The page may have been written at `offset`.
    pub(super) fn may_write(&mut self, offset: usize, bytes: &[u8]) {
        let mut changed = self.clone();
        changed.write(offset, bytes);
        self.or(&changed);
    }

    /// Adds the candidates of `other`.
    pub(super) fn or(&mut self, other: &Self) {
        for page in &other.0 {
            if !self.0.contains(page) {
                self.0.push(page.clone());
            }
        }
    }

    /// The candidate that is nearest to `found`.
    pub(super) fn nearest(&self, found: &[u8]) -> &[u8] {
        let nearest = self.0.iter().min_by_key(|page| difference(page, found));
        nearest.map_or(&[], Vec::as_slice)
    }

    /// Replaces the candidates by `found`, and returns how many bytes of it match none of them.
    pub(super) fn resolve(&mut self, found: &[u8]) -> u64 {
        let wrong = difference(self.nearest(found), found);
        *self = Self::only(found.to_vec());
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_identify_their_owner() {
        let (ours, theirs) = (page_of(WordOwner::Data, 1, 3), page_of(WordOwner::Inheritor, 1, 3));
        assert_eq!(foreign(&ours, &page_of(WordOwner::Data, 2, 3)), 0, "old bytes are stale, not foreign");
        assert_eq!(foreign(&theirs, &ours), PAGE as u64);
        assert_eq!(foreign(&theirs, &theirs), 0, "what is expected is not foreign");
        assert_eq!(foreign(&vec![0; PAGE], &ours), 0, "zeroes belong to no file");
    }

    #[test]
    fn a_page_with_two_candidates_is_wrong_only_if_it_matches_neither() {
        let mut page = PageCandidates::zeroes();
        page.may_write(8, &[1; 8]);
        assert_eq!(page.clone().resolve(&vec![0; PAGE]), 0);
        let mut found = vec![0; PAGE];
        found[8..16].fill(1);
        assert_eq!(page.clone().resolve(&found), 0);
        found[15] = 2;
        assert_eq!(page.resolve(&found), 8);
        assert_eq!(page.resolve(&found), 0, "what was found once is not counted again");
    }

    #[test]
    fn a_write_preserves_the_rest_of_every_candidate() {
        let mut page = PageCandidates::only(page_of(WordOwner::Data, 1, 0));
        page.or(&PageCandidates::zeroes());
        page.write(WRITTEN.start, &written(2, 0));
        let mut found = page_of(WordOwner::Data, 1, 0);
        found[WRITTEN].copy_from_slice(&written(2, 0));
        assert_eq!(page.resolve(&found), 0);
    }
}
