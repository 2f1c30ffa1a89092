//! A cache of translations, tagged by address space: both the NIC's ATC and the IOMMU's IOTLB.
//!
//! A flush costs what it drops, whatever else is cached and however large its range: entries are kept in the order of
//! their addresses, and no two of an address space overlap, so those in a range are neighbours. Flushing a tag costs
//! one hash probe: entries are kept under an identity of the tag, and the tag gets a new identity. Entries under the old
//! one never match again, and are evicted as the cache fills.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::Iova;
use crate::ats::Translation;

#[cfg(test)]
mod tests;

/// log2 of the size of the largest block that is cached, 1 GiB.
const LARGEST: u8 = 30;

/// Translations of several address spaces, each named by a `Tag`.
#[derive(Debug)]
pub struct Tlb<Tag> {
    capacity: usize,
    /// Blocks of one identity do not overlap.
    entries: BTreeMap<Key, Translation>,
    /// Keys in the order of insertion, the oldest first; may name entries that were flushed.
    order: VecDeque<Key>,
    /// The identity of each tag since its last flush.
    identities: FxHashMap<Tag, u64>,
    next_identity: u64,
}

impl<Tag: Copy + Eq + Hash> Tlb<Tag> {
    /// An empty cache for at most `capacity` translations (at least one).
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: BTreeMap::new(),
            order: VecDeque::new(),
            identities: FxHashMap::default(),
            next_identity: 0,
        }
    }

    /// The translation of the block around `iova`, if cached.
    pub fn lookup(&self, tag: Tag, iova: Iova) -> Option<Translation> {
        let identity = *self.identities.get(&tag)?;
        self.block_around(identity, iova).map(|(_, translation)| translation)
    }

    /// Caches `translation` for the block around `iova`, in place of what overlaps that block. A translation without rights
    /// is not cached, because the guest does not announce upgrades. Blocks of more than 1 GiB are cut to the 1 GiB around
    /// `iova`.
    pub fn insert(&mut self, tag: Tag, iova: Iova, translation: Translation) {
        if !translation.read && !translation.write {
            return;
        }
        let shift = translation.page_shift.min(LARGEST);
        let cut =
            Translation { gpa: translation.gpa_of(iova).align_down(shift), page_shift: shift, ..translation };
        if self.identities.len() >= self.capacity && !self.identities.contains_key(&tag) {
            self.flush_all();
        }
        let identity = *self.identities.entry(tag).or_insert_with(|| {
            self.next_identity += 1;
            self.next_identity
        });
        let key = Key { identity, first: iova.align_down(shift) };
        match self.entries.get_mut(&key) {
            Some(entry) if entry.page_shift == shift => *entry = cut,
            _ => {
                self.drop_overlapping(identity, iova, shift);
                self.entries.insert(key, cut);
                self.order.push_back(key);
                self.evict();
            }
        }
    }

    /// Flushes the blocks of `tag` that overlap the naturally aligned `1 << size_shift` bytes around `iova`.
    pub fn flush_range(&mut self, tag: Tag, iova: Iova, size_shift: u8) {
        if size_shift >= 64 {
            return self.flush_tag(tag);
        }
        if let Some(&identity) = self.identities.get(&tag) {
            self.drop_overlapping(identity, iova, size_shift);
        }
    }

    /// Flushes all of `tag`.
    pub fn flush_tag(&mut self, tag: Tag) {
        self.identities.remove(&tag);
    }

    /// Flushes all tags that `matches` selects. Visits every tag, and no entry.
    pub fn flush_tags(&mut self, mut matches: impl FnMut(&Tag) -> bool) {
        self.identities.retain(|tag, _| !matches(tag));
    }

    /// Flushes everything and frees the memory.
    pub fn flush_all(&mut self) {
        *self = Self { next_identity: self.next_identity, ..Self::new(self.capacity) };
    }

    /// Number of entries in memory, including those of flushed tags that are not evicted yet.
    pub fn occupied(&self) -> usize {
        self.entries.len()
    }

    /// The entry of the block around `iova`: if there is one, it is the last that does not begin after `iova`.
    fn block_around(&self, identity: u64, iova: Iova) -> Option<(Key, Translation)> {
        let (&key, &translation) = self.entries.range(..=Key { identity, first: iova }).next_back()?;
        let holds = key.identity == identity && key.first == iova.align_down(translation.page_shift);
        holds.then_some((key, translation))
    }

    /// Removes the entries that overlap the `1 << shift` bytes around `iova`, `shift` below 64.
    fn drop_overlapping(&mut self, identity: u64, iova: Iova, shift: u8) {
        let first = iova.align_down(shift);
        let last = Iova(first.0 | ((1 << shift) - 1));
        if let Some((key, _)) = self.block_around(identity, first) {
            self.entries.remove(&key);
        }
        let inside = Key { identity, first }..=Key { identity, first: last };
        self.entries.extract_if(inside, |_, _| true).for_each(drop);
    }

    /// Evicts the oldest entries beyond the capacity. A key that was flushed and inserted again is in `order` twice, and
    /// the older place evicts it early, which a cache may do. `order` is bounded too, at twice the capacity.
    fn evict(&mut self) {
        while self.entries.len() > self.capacity || self.order.len() > 2 * self.capacity {
            match self.order.pop_front() {
                Some(key) => self.entries.remove(&key),
                None => break,
            };
        }
    }
}

/// Where an entry is kept: identity of the tag, and first address of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    identity: u64,
    first: Iova,
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        tests::COMPARISONS.set(tests::COMPARISONS.get() + 1);
        (self.identity, self.first).cmp(&(other.identity, other.first))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
