//! A cache of translations, tagged by address space: both the NIC's ATC and the IOMMU's IOTLB.
//!
//! Flushing a page costs a few hash probes, whatever the number of entries. Flushing a tag costs one: entries are kept
//! under an identity of the tag, and the tag gets a new identity. Entries under the old one never match again, and are
//! evicted as the cache fills.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::Iova;
use crate::ats::Translation;

/// A range of more 4 KiB pages than this flushes its whole tag. Flushing too much is always allowed, and this bounds
/// the number of probes.
const PAGE_PROBES: u64 = 64;

/// Page sizes of entries, as log2: 4 KiB, 2 MiB, 1 GiB.
const SHIFTS: [u8; 3] = [12, 21, 30];

/// Identity of a tag, block number (address >> shift), and index of the shift in [`SHIFTS`].
type Key = (u64, u64, u8);

/// Translations of several address spaces, each named by a `Tag`.
#[derive(Debug)]
pub struct Tlb<Tag> {
    capacity: usize,
    entries: FxHashMap<Key, Translation>,
    /// Keys in the order of insertion, the oldest first; may name entries that were flushed.
    order: VecDeque<Key>,
    /// The identity of each tag since its last flush.
    identities: FxHashMap<Tag, u64>,
    next_identity: u64,
    /// Whether an entry of each size was inserted since the last full flush; lookups skip the others.
    sizes_seen: [bool; 3],
}

impl<Tag: Copy + Eq + Hash> Tlb<Tag> {
    /// An empty cache for at most `capacity` translations (at least one).
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: FxHashMap::default(),
            order: VecDeque::new(),
            identities: FxHashMap::default(),
            next_identity: 0,
            sizes_seen: [false; 3],
        }
    }

    /// The translation of the block around `iova`, if cached.
    pub fn lookup(&self, tag: Tag, iova: Iova) -> Option<Translation> {
        let identity = *self.identities.get(&tag)?;
        SHIFTS
            .iter()
            .zip(0u8..)
            .filter(|&(_, size)| self.sizes_seen[usize::from(size)])
            .find_map(|(&shift, size)| self.entries.get(&(identity, iova.0 >> shift, size)).copied())
    }

    /// Caches `translation` for the block around `iova`. A translation without rights is not cached, because the guest
    /// does not announce upgrades. Blocks of more than 1 GiB are cut to the 1 GiB around `iova`.
    pub fn insert(&mut self, tag: Tag, iova: Iova, translation: Translation) {
        if !translation.read && !translation.write {
            return;
        }
        let sizes = (0u8..).zip(SHIFTS);
        let largest = sizes.filter(|&(_, shift)| shift <= translation.page_shift).last();
        let (size, shift) = largest.unwrap_or((0, SHIFTS[0]));
        let cut =
            Translation { gpa: translation.gpa_of(iova).align_down(shift), page_shift: shift, ..translation };
        if self.identities.len() >= self.capacity && !self.identities.contains_key(&tag) {
            self.flush_all();
        }
        let identity = *self.identities.entry(tag).or_insert_with(|| {
            self.next_identity += 1;
            self.next_identity
        });
        let key = (identity, iova.0 >> shift, size);
        self.sizes_seen[usize::from(size)] = true;
        if self.entries.insert(key, cut).is_none() {
            self.order.push_back(key);
            self.evict();
        }
    }

    /// Flushes the blocks of `tag` that overlap the naturally aligned `1 << size_shift` bytes around `iova`.
    pub fn flush_range(&mut self, tag: Tag, iova: Iova, size_shift: u8) {
        let pages = 1u64.checked_shl(u32::from(size_shift.saturating_sub(12))).unwrap_or(u64::MAX);
        if size_shift >= 64 || pages > PAGE_PROBES {
            return self.flush_tag(tag);
        }
        let Some(&identity) = self.identities.get(&tag) else { return };
        let first = iova.align_down(size_shift.max(12));
        for (&shift, size) in SHIFTS.iter().zip(0u8..) {
            if !self.sizes_seen[usize::from(size)] {
                continue;
            }
            let last = first.0 | ((pages << 12) - 1);
            for block in (first.0 >> shift)..=(last >> shift) {
                self.entries.remove(&(identity, block, size));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gpa;

    fn page(gpa: u64, shift: u8) -> Translation {
        Translation { gpa: Gpa(gpa), page_shift: shift, read: true, write: true }
    }

    #[test]
    fn tags_do_not_see_each_other() {
        let mut tlb = Tlb::new(8);
        tlb.insert(1, Iova(0x1000), page(0xa000, 12));
        assert_eq!(tlb.lookup(2, Iova(0x1000)), None);
        assert_eq!(tlb.lookup(1, Iova(0x1fff)).unwrap().gpa_of(Iova(0x1fff)), Gpa(0xafff));
    }

    #[test]
    fn answers_without_rights_are_never_cached() {
        let mut tlb = Tlb::new(8);
        tlb.insert(1, Iova(0x1000), Translation::NONE);
        assert_eq!(tlb.lookup(1, Iova(0x1000)), None);
    }

    #[test]
    fn a_page_flush_takes_the_large_block_around_it() {
        let mut tlb = Tlb::new(8);
        tlb.insert(1, Iova(0x20_0000), page(0x4000_0000, 21));
        tlb.insert(1, Iova(0x40_0000), page(0x4020_0000, 21));
        tlb.flush_range(1, Iova(0x20_5000), 12);
        assert_eq!(tlb.lookup(1, Iova(0x20_0000)), None);
        assert!(tlb.lookup(1, Iova(0x40_0000)).is_some());
    }

    #[test]
    fn a_large_range_takes_every_page_inside() {
        for shift in [12, 15, 18, 21, 35, 63, 64] {
            let mut tlb = Tlb::new(8);
            tlb.insert(1, Iova(0), page(0xa000, 12));
            tlb.insert(2, Iova(0), page(0xb000, 12));
            tlb.flush_range(1, Iova(0), shift);
            assert_eq!(tlb.lookup(1, Iova(0)), None, "shift {shift}");
            assert!(tlb.lookup(2, Iova(0)).is_some());
        }
    }

    #[test]
    fn a_flushed_tag_starts_anew() {
        let mut tlb = Tlb::new(8);
        tlb.insert(1, Iova(0x1000), page(0xa000, 12));
        tlb.flush_tag(1);
        assert_eq!(tlb.lookup(1, Iova(0x1000)), None);
        tlb.insert(1, Iova(0x2000), page(0xb000, 12));
        assert_eq!(tlb.lookup(1, Iova(0x1000)), None);
        assert!(tlb.lookup(1, Iova(0x2000)).is_some());
    }

    #[test]
    fn capacity_bounds_entries_order_and_tags() {
        let mut tlb = Tlb::new(16);
        for round in 0..1000u64 {
            tlb.insert(round, Iova(round << 12), page(round << 12, 12));
            tlb.insert(0, Iova(0x5000), page(0x5000, 12));
            tlb.flush_range(0, Iova(0x5000), 12);
        }
        assert!(tlb.occupied() <= 16 && tlb.order.len() <= 33 && tlb.identities.len() <= 16);
    }

    #[test]
    fn huge_pass_through_blocks_are_cut() {
        let mut tlb = Tlb::new(8);
        tlb.insert(1, Iova(0x1_2345_6000), page(0, 48));
        let hit = tlb.lookup(1, Iova(0x1_2345_6789)).unwrap();
        assert_eq!((hit.gpa_of(Iova(0x1_2345_6789)), hit.page_shift), (Gpa(0x1_2345_6789), 30));
    }
}
