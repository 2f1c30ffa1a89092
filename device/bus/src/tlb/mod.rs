//! A cache of translations, tagged by address space: both the NIC's ATC and the IOMMU's IOTLB.
//!
//! A lookup, and a flush of a few pages, costs a few hash probes, whatever else is cached. A flush of a larger range costs
//! what it drops: the blocks are also kept in the order of their addresses, so those in a range are neighbours. Flushing
//! a tag costs one probe: entries are kept under an identity of the tag, and the tag gets a new identity. Entries under
//! the old one never match again, and are evicted as the cache fills.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::Iova;
use crate::ats::Translation;

#[cfg(test)]
mod tests;

/// Sizes of the blocks that are cached, as log2: 4 KiB, 2 MiB, 1 GiB. Others are cut to the next smaller one.
const SHIFTS: [u8; 3] = [12, 21, 30];

/// A flush of more blocks of one size than this asks the ordered set which of them are cached.
const PROBES: u64 = 8;

/// Translations of several address spaces, each named by a `Tag`.
#[derive(Debug)]
pub struct Tlb<Tag> {
    capacity: usize,
    /// Blocks of one identity do not overlap.
    entries: FxHashMap<Key, Translation>,
    /// The keys of `entries`, and maybe some that a flush of few pages has dropped there.
    ordered: BTreeSet<Key>,
    /// Keys in the order of insertion, the oldest first; may name entries that were flushed.
    order: VecDeque<Key>,
    /// The identity of each tag since its last flush.
    identities: FxHashMap<Tag, u64>,
    next_identity: u64,
    /// Whether a block of each size was inserted since the last full flush; the others are not looked for.
    sizes_seen: [bool; SHIFTS.len()],
}

impl<Tag: Copy + Eq + Hash> Tlb<Tag> {
    /// An empty cache for at most `capacity` translations (at least one).
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: FxHashMap::default(),
            ordered: BTreeSet::new(),
            order: VecDeque::new(),
            identities: FxHashMap::default(),
            next_identity: 0,
            sizes_seen: [false; SHIFTS.len()],
        }
    }

    /// The translation of the block around `iova`, if cached.
    pub fn lookup(&self, tag: Tag, iova: Iova) -> Option<Translation> {
        let identity = *self.identities.get(&tag)?;
        self.seen().find_map(|size| self.entries.get(&Key::around(identity, size, iova)).copied())
    }

    /// Caches `translation` for the block around `iova`, in place of what overlaps that block. A translation without rights
    /// is not cached, because the guest does not announce upgrades. Blocks of more than 1 GiB are cut to the 1 GiB around
    /// `iova`.
    pub fn insert(&mut self, tag: Tag, iova: Iova, translation: Translation) {
        if !translation.read && !translation.write {
            return;
        }
        let size = SHIFTS.iter().rposition(|&shift| shift <= translation.page_shift).unwrap_or(0);
        let shift = SHIFTS[size];
        let cut =
            Translation { gpa: translation.gpa_of(iova).align_down(shift), page_shift: shift, ..translation };
        if self.identities.len() >= self.capacity && !self.identities.contains_key(&tag) {
            self.flush_all();
        }
        let identity = *self.identities.entry(tag).or_insert_with(|| {
            self.next_identity += 1;
            self.next_identity
        });
        let key = Key::around(identity, size, iova);
        self.sizes_seen[size] = true;
        if self.entries.insert(key, cut).is_none() {
            self.drop_overlapping(identity, iova, shift, |other| other != size);
            self.ordered.insert(key);
            self.order.push_back(key);
            self.evict();
        }
    }

    /// Flushes the blocks of `tag` that overlap the naturally aligned `1 << size_shift` bytes around `iova`.
    pub fn flush_range(&mut self, tag: Tag, iova: Iova, size_shift: u8) {
        if size_shift >= 64 {
            return self.flush_tag(tag);
        }
        if let Some(&identity) = self.identities.get(&tag) {
            self.drop_overlapping(identity, iova, size_shift, |_| true);
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

    /// The sizes of which there may be blocks, the smallest first.
    fn seen(&self) -> impl Iterator<Item = usize> + use<Tag> {
        let seen = self.sizes_seen;
        (0..SHIFTS.len()).filter(move |&size| seen[size])
    }

    /// Removes the entries of the sizes that `is_meant` selects and that overlap the `1 << shift` bytes around `iova`,
    /// `shift` below 64.
    fn drop_overlapping(&mut self, identity: u64, iova: Iova, shift: u8, is_meant: impl Fn(usize) -> bool) {
        let first = iova.align_down(shift);
        let last = Iova(first.0 | ((1 << shift) - 1));
        for size in self.seen().filter(|&size| is_meant(size)) {
            let (first, last) = (Key::around(identity, size, first), Key::around(identity, size, last));
            if last.block - first.block < PROBES {
                for block in first.block..=last.block {
                    self.entries.remove(&Key { block, ..first });
                }
            } else {
                self.ordered.extract_if(first..=last, |_| true).for_each(|key| {
                    self.entries.remove(&key);
                });
            }
        }
    }

    /// Evicts the oldest entries beyond the capacity. A key that was flushed and inserted again is in `order` twice, and
    /// the older place evicts it early, which a cache may do. `order` is bounded too, at twice the capacity.
    fn evict(&mut self) {
        while self.entries.len() > self.capacity || self.order.len() > 2 * self.capacity {
            let Some(key) = self.order.pop_front() else { break };
            self.entries.remove(&key);
            self.ordered.remove(&key);
        }
    }
}

/// Where an entry is kept: identity of the tag, index in [`SHIFTS`], and number of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    identity: u64,
    size: usize,
    block: u64,
}

impl Key {
    fn around(identity: u64, size: usize, iova: Iova) -> Self {
        Self { identity, size, block: iova.0 >> SHIFTS[size] }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        tests::COMPARISONS.set(tests::COMPARISONS.get() + 1);
        (self.identity, self.size, self.block).cmp(&(other.identity, other.size, other.block))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
