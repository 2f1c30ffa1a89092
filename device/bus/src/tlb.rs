//! A cache of translations, tagged by address space: the NIC's ATC and the IOMMU's IOTLB are both one.
//!
//! Flushing one page costs a few hash probes however many entries there are; flushing a tag costs one,
//! because a tag maps to an identity that is replaced, and entries under the old identity can never match
//! again. They leave when the capacity pushes them out.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::Iova;
use crate::ats::Translation;

/// Ranges of more 4 KiB pages than this flush their whole tag: legal, and bounded.
const PAGE_PROBES: u64 = 64;

/// Page sizes the cache knows, as log2: 4 KiB, 2 MiB, 1 GiB.
const SHIFTS: [u8; 3] = [12, 21, 30];

/// Identity of a tag between two flushes, then block number, then index into [`SHIFTS`].
type Key = (u64, u64, u8);

/// Translations of several address spaces, each named by a `Tag`.
#[derive(Debug)]
pub struct Tlb<Tag> {
    capacity: usize,
    entries: FxHashMap<Key, Translation>,
    order: VecDeque<Key>,
    identities: FxHashMap<Tag, u64>,
    next_identity: u64,
    /// How many entries of each size there ever were since the last full flush: a lookup skips sizes not in use.
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

    /// Caches `translation` for the block around `iova`. Answers without rights are never cached, for the
    /// guest does not announce upgrades; larger pages than 1 GiB are cut to it.
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
        let key = (identity, iova.0 >> shift, size as u8);
        self.sizes_seen[size] = true;
        if self.entries.insert(key, cut).is_none() {
            self.order.push_back(key);
            self.evict();
        }
    }

    /// Forgets the blocks of `tag` that touch the `1 << size_shift` bytes at `iova` (naturally aligned).
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

    /// Forgets all of `tag`.
    pub fn flush_tag(&mut self, tag: Tag) {
        self.identities.remove(&tag);
    }

    /// Forgets all tags that `matches` picks; costs a visit to each tag, none to the entries.
    pub fn flush_tags(&mut self, mut matches: impl FnMut(&Tag) -> bool) {
        self.identities.retain(|tag, _| !matches(tag));
    }

    /// Forgets everything and gives the memory back.
    pub fn flush_all(&mut self) {
        *self = Self { next_identity: self.next_identity, ..Self::new(self.capacity) };
    }

    /// How many entries occupy the cache, flushed tags' included until they are pushed out.
    pub fn occupied(&self) -> usize {
        self.entries.len()
    }

    /// Drops the oldest entries beyond the capacity. A key flushed and inserted again has two places in
    /// `order`; the older one then evicts it early, which a cache may do. `order` itself is kept short.
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
