//! Memory regions: keys, bounds and rights. All of it is checked before an address is translated.

use std::sync::Mutex;

use refault_abi::codes::AccessRights;
use refault_bus::sync::lock;
use refault_bus::{AddressSpace, Iova, Pasid};

use crate::cause::Cause;
use crate::ids::slot_of_key;
use crate::memory::access::PageMiss;
use crate::memory::on_demand::OnDemandTable;
use crate::memory::page_table::Pages;
use crate::slab::Slab;

/// Regions that a worker caches; a power of two.
const REMEMBERED: usize = 64;

/// What translates a region's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Pinned pages; what is added to an address, modulo 2^64, to get its offset in them.
    Pinned { pages: Pages, shift: u64 },
    /// The process' own page table, by way of the IOMMU.
    Process(Pasid),
    /// A table with holes; what is added to an address to get its offset in what the table covers; the event queue for
    /// page faults; and the context that is charged for them.
    OnDemand { table: OnDemandTable, shift: u64, eqn: u32, context: u32 },
}

/// A registered range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) backing: Backing,
    /// lkey and rkey at once.
    pub(crate) key: u32,
    pub(crate) pd: u32,
    /// ACCESS_*.
    pub(crate) access: AccessRights,
    /// Accesses fail from now on.
    pub(crate) revoked: bool,
    /// Requests register and invalidate it; invalid is the same as revoked.
    pub(crate) is_fast: bool,
}

impl Region {
    /// Checks that a request of protection domain `pd` may do `access` to all of the range.
    pub(super) fn allows(&self, pd: u32, addr: u64, length: u64, access: AccessRights) -> Result<(), Cause> {
        if self.pd != pd {
            return Err(Cause::Key);
        }
        if self.revoked {
            return Err(Cause::Revoked);
        }
        let inside = addr >= self.start && length <= self.length && addr - self.start <= self.length - length;
        if !inside {
            return Err(Cause::Bounds);
        }
        if self.access.contains(access) { Ok(()) } else { Err(Cause::Rights) }
    }

    /// The page around `addr` of an on-demand region of `context`, as far as it belongs to the region.
    pub(super) fn miss(&self, addr: u64, shift: u64, context: u32, write: bool) -> PageMiss {
        let inside = addr.wrapping_add(shift) & 0xfff;
        let page = Iova(addr - inside.min(addr - self.start));
        PageMiss { space: AddressSpace::Region(self.key), owner: context, page, write }
    }
}

/// All regions, by slot.
pub(crate) struct RegionTable {
    /// A leaf lock each.
    slots: Slab<Mutex<Option<Region>>>,
}

impl RegionTable {
    pub(crate) fn new(limit: u32) -> Self {
        Self { slots: Slab::new(limit) }
    }

    /// The region named by `key`.
    pub(crate) fn find(&self, key: u32) -> Option<Region> {
        let slot = self.slots.find(slot_of_key(key))?;
        lock(slot).filter(|region| region.key == key)
    }

    /// The event queue for page faults of the region named by `key`; `None` if it has none, or is revoked or gone.
    pub(crate) fn fault_queue(&self, key: u32) -> Option<u32> {
        match self.find(key).filter(|region| !region.revoked)?.backing {
            Backing::OnDemand { eqn, .. } => Some(eqn),
            Backing::Pinned { .. } | Backing::Process(_) => None,
        }
    }

    /// Puts a region at its key's slot; `false` beyond the limit.
    pub(crate) fn put(&self, region: Region) -> bool {
        let slot = self.slots.grow_to(slot_of_key(region.key));
        slot.map(|slot| *lock(slot) = Some(region)).is_some()
    }

    /// Changes the region named by `key`, or takes it away. Workers may use the old one until
    /// [`RegionCache::forget`].
    pub(crate) fn update(&self, key: u32, change: impl FnOnce(Region) -> Option<Region>) -> Option<Region> {
        let mut slot = lock(self.slots.find(slot_of_key(key))?);
        let region = slot.filter(|region| region.key == key)?;
        *slot = change(region);
        Some(region)
    }

    /// Changes the region in the slot of `key`, whose key may be another variant; `false` if `change` does not.
    pub(crate) fn update_slot(&self, key: u32, change: impl FnOnce(Region) -> Option<Region>) -> bool {
        let Some(slot) = self.slots.find(slot_of_key(key)) else { return false };
        let mut slot = lock(slot);
        let changed = (*slot).and_then(change);
        if changed.is_some() {
            *slot = changed;
        }
        changed.is_some()
    }

    /// Empties the slot of `key`.
    pub(crate) fn empty_slot(&self, key: u32) {
        if let Some(slot) = self.slots.find(slot_of_key(key)) {
            *lock(slot) = None;
        }
    }

    /// Takes away all.
    pub(crate) fn clear(&self) {
        for slot in self.slots.iter() {
            *lock(slot) = None;
        }
    }
}

/// Regions that one worker used last. The cache is under the worker's guard, so a warm access takes no further lock. A
/// region that is changed or destroyed is removed from every worker's cache before the command is answered.
pub(crate) struct RegionCache([Option<Region>; REMEMBERED]);

impl Default for RegionCache {
    fn default() -> Self {
        Self([None; REMEMBERED])
    }
}

impl RegionCache {
    fn slot(&mut self, key: u32) -> &mut Option<Region> {
        &mut self.0[slot_of_key(key) as usize % REMEMBERED]
    }

    /// The region named by `key`, from the cache or, once, from the table.
    pub(super) fn find(&mut self, key: u32, table: &RegionTable) -> Option<&Region> {
        let remembered = self.slot(key);
        if remembered.is_none_or(|region| region.key != key) {
            *remembered = Some(table.find(key)?);
        }
        remembered.as_ref()
    }

    pub(crate) fn forget(&mut self, key: u32) {
        *self.slot(key) = None;
    }

    pub(crate) fn forget_all(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use refault_abi::codes::{ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE};

    use super::*;

    const NONE: AccessRights = AccessRights::NONE;

    fn region(start: u64, length: u64) -> Region {
        let backing = Backing::Process(Pasid::truncated(1));
        Region {
            start,
            length,
            backing,
            key: 0x101,
            pd: 3,
            access: ACCESS_REMOTE_READ,
            revoked: false,
            is_fast: false,
        }
    }

    #[test]
    fn bounds_hold_at_both_ends_and_do_not_wrap() {
        let part = region(0x1000, 0x1000);
        assert_eq!(part.allows(3, 0x1000, 0x1000, NONE), Ok(()));
        assert_eq!(part.allows(3, 0x2000, 0, NONE), Ok(()));
        for (addr, length) in [(0xfff, 1), (0x1fff, 2), (0x2001, 0), (0x1000, u64::MAX), (u64::MAX, 2)] {
            assert_eq!(part.allows(3, addr, length, NONE), Err(Cause::Bounds), "{addr:#x}+{length:#x}");
        }
        let whole = region(0, u64::MAX);
        assert_eq!(whole.allows(3, u64::MAX - 8, 8, NONE), Ok(()));
        assert_eq!(whole.allows(3, u64::MAX - 7, 9, NONE), Err(Cause::Bounds));
    }

    #[test]
    fn the_domain_is_checked_before_anything_is_disclosed() {
        let mut revoked = region(0, 16);
        revoked.revoked = true;
        assert_eq!(revoked.allows(4, 99, 99, ACCESS_REMOTE_WRITE), Err(Cause::Key));
        assert_eq!(revoked.allows(3, 0, 1, NONE), Err(Cause::Revoked));
        assert_eq!(region(0, 16).allows(3, 0, 1, ACCESS_REMOTE_WRITE), Err(Cause::Rights));
    }

    #[test]
    fn a_key_of_another_variant_names_nothing() {
        let table = RegionTable::new(16);
        assert!(table.put(region(0, 16)));
        assert!(table.find(0x101).is_some());
        assert_eq!(table.find(0x102), None);
        assert!(table.update(0x102, |_| None).is_none());
        assert!(table.update(0x101, |_| None).is_some());
        assert_eq!(table.find(0x101), None);
    }
}
