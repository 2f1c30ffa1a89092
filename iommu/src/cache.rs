//! The unit's caches of the guest's tables: context entries, PASID entries and translations.
//!
//! Entries that are not present, malformed or without rights are never cached. CAP.CM is clear, so a guest does not
//! flush when it makes an entry present or grants more rights, and a cached refusal would last forever.

use refault_bus::ats::Translation;
use refault_bus::tlb::Tlb;
use refault_bus::{Bdf, Iova, Pasid};
use rustc_hash::FxHashMap;

use crate::spec::context::ContextEntry;
use crate::spec::invalidation::PasidCacheScope;
use crate::walk::pasid::PasidEntry;

/// Tag of a translation: domain and PASID (§6.2.1). Linux puts all SVA address spaces into one domain, so the domain
/// alone would not distinguish processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tag {
    pub(crate) did: u16,
    pub(crate) pasid: Pasid,
}

/// Context cache, PASID cache and IOTLB.
#[derive(Debug)]
pub(crate) struct Caches {
    contexts: FxHashMap<Bdf, ContextEntry>,
    pasid_entries: FxHashMap<(Bdf, Pasid), PasidEntry>,
    pasid_capacity: usize,
    iotlb: Tlb<Tag>,
}

impl Caches {
    /// Empty caches for at most `pasid_capacity` PASID entries and `iotlb_capacity` translations.
    pub(crate) fn new(pasid_capacity: usize, iotlb_capacity: usize) -> Self {
        Self {
            contexts: FxHashMap::default(),
            pasid_entries: FxHashMap::default(),
            pasid_capacity: pasid_capacity.max(1),
            iotlb: Tlb::new(iotlb_capacity),
        }
    }

    pub(crate) fn context(&self, requester: Bdf) -> Option<ContextEntry> {
        self.contexts.get(&requester).copied()
    }

    /// Caches a present context entry. Unbounded, because there are at most 65536 requesters.
    pub(crate) fn insert_context(&mut self, requester: Bdf, entry: ContextEntry) {
        self.contexts.insert(requester, entry);
    }

    pub(crate) fn pasid_entry(&self, requester: Bdf, pasid: Pasid) -> Option<PasidEntry> {
        self.pasid_entries.get(&(requester, pasid)).copied()
    }

    /// Caches a present PASID entry. A full cache is emptied first: PASIDs are few, and a walk is cheap.
    pub(crate) fn insert_pasid_entry(&mut self, requester: Bdf, pasid: Pasid, entry: PasidEntry) {
        if self.pasid_entries.len() >= self.pasid_capacity {
            self.pasid_entries.clear();
        }
        self.pasid_entries.insert((requester, pasid), entry);
    }

    pub(crate) fn translation(&self, tag: Tag, iova: Iova) -> Option<Translation> {
        self.iotlb.lookup(tag, iova)
    }

    pub(crate) fn insert_translation(&mut self, tag: Tag, iova: Iova, translation: Translation) {
        self.iotlb.insert(tag, iova, translation);
    }

    /// Flushes the context entries of requesters that equal `device` in the bits of its mask, or all (§6.5.2.1). PASID
    /// entries that were reached through them go too: they came from the old directory.
    pub(crate) fn flush_contexts(&mut self, device: Option<(Bdf, u16)>) {
        self.contexts.retain(|&requester, _| !is_named(device, requester));
        self.pasid_entries.retain(|&(requester, _), _| !is_named(device, requester));
    }

    /// Flushes PASID entries (§6.5.2.2).
    pub(crate) fn flush_pasid_entries(&mut self, scope: PasidCacheScope) {
        self.pasid_entries.retain(|&(_, pasid), entry| match scope {
            PasidCacheScope::Global => false,
            PasidCacheScope::Domain(did) => entry.did != did,
            PasidCacheScope::Pasid(did, one) => entry.did != did || pasid != one,
        });
    }

    /// Flushes translations of one domain, or all (§6.5.2.3).
    pub(crate) fn flush_domain(&mut self, did: Option<u16>) {
        match did {
            Some(did) => self.iotlb.flush_tags(|tag| tag.did == did),
            None => self.iotlb.flush_all(),
        }
    }

    /// Flushes translations of one address space (§6.5.2.4): a block, as address and log2 of its size, or all.
    pub(crate) fn flush_tag(&mut self, tag: Tag, block: Option<(Iova, u8)>) {
        match block {
            Some((iova, size_shift)) => self.iotlb.flush_range(tag, iova, size_shift),
            None => self.iotlb.flush_tag(tag),
        }
    }

    /// Flushes all three caches.
    pub(crate) fn flush_all(&mut self) {
        self.contexts.clear();
        self.pasid_entries.clear();
        self.iotlb.flush_all();
    }
}

/// Whether a context-cache invalidation of `device`, with its mask, or of all, names `requester`.
pub(crate) fn is_named(device: Option<(Bdf, u16)>, requester: Bdf) -> bool {
    device.is_none_or(|(Bdf(source), mask)| (requester.0 ^ source) & mask == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::pasid::TranslationType;

    #[test]
    fn the_pasid_cache_keeps_as_many_entries_as_it_has_room_for_and_then_starts_again() {
        let device = Bdf::new(0, 3, 0);
        let entry = PasidEntry { did: 1, translation: TranslationType::PassThrough, fpd: false };
        let mut caches = Caches::new(3, 1);
        for (last, kept) in [(1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 3]), (4, vec![4]), (5, vec![4, 5])]
        {
            caches.insert_pasid_entry(device, Pasid::truncated(last), entry);
            let found = (0..8).filter(|&pasid| caches.pasid_entry(device, Pasid::truncated(pasid)).is_some());
            assert_eq!(found.collect::<Vec<_>>(), kept);
        }
    }
}
