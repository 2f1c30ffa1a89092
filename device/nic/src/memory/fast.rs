//! Fast registration: regions that requests, not commands, make valid and invalid (InfiniBand 1.4, 10.6.4.4).

use refault_abi::codes::{ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_WRITE};

use crate::memory::Memory;
use crate::memory::region::{Backing, Region};
use crate::verbs::{Registration, SUPPORTED_RIGHTS};

impl Registration {
    /// The region as registered; `None` if it cannot be.
    fn apply(&self, region: Region, pd: u32, identity: u64) -> Option<Region> {
        let Self { key, start, length, first_offset, access } = *self;
        let Backing::Pinned { pages, .. } = region.backing else { return None };
        let changes = access.intersects(ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC);
        let has_rights =
            SUPPORTED_RIGHTS.contains(access) && (!changes || access.contains(ACCESS_LOCAL_WRITE));
        let end = u64::from(first_offset).checked_add(length)?;
        let fits = first_offset < 1 << 12 && end <= pages.bytes() && start.checked_add(length).is_some();
        let is_free = region.is_fast && region.revoked && region.pd == pd;
        (is_free && has_rights && fits).then(|| Region {
            key,
            start,
            length,
            access,
            revoked: false,
            backing: Backing::Pinned {
                pages: pages.renewed(identity),
                shift: u64::from(first_offset).wrapping_sub(start),
            },
            ..region
        })
    }
}

impl Memory {
    /// Makes a region of protection domain `pd` valid; `false` if it cannot be. Passes through every guard.
    pub(crate) fn register(&self, registration: &Registration, pd: u32) -> bool {
        let identity = self.new_identity();
        let change = |region| registration.apply(region, pd, identity);
        let done = self.regions.update_slot(registration.key, change);
        self.forget_region(registration.key);
        done
    }

    /// Makes a region of protection domain `pd` invalid; `false` if there is none that is valid and may be. When this
    /// returns, no access through it is in flight: it passes through every guard.
    pub(crate) fn invalidate_fast(&self, key: u32, pd: u32) -> bool {
        let change = |region: Region| {
            let is_valid = region.is_fast && region.key == key && region.pd == pd && !region.revoked;
            is_valid.then_some(Region { revoked: true, ..region })
        };
        let done = self.regions.update_slot(key, change);
        self.forget_region(key);
        done
    }

    /// Whether [`Self::invalidate_fast`] would do what it is for.
    pub(crate) fn may_invalidate(&self, key: u32, pd: u32) -> bool {
        self.regions.find(key).is_some_and(|region| region.is_fast && region.pd == pd && !region.revoked)
    }
}
