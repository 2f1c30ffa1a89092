//! Waiting for devices: what has to land before an invalidation or a command is complete.
//!
//! Untranslated accesses are translated by the unit, which notes who made some. When the IOTLB is invalidated, it has these
//! requesters drained (CAP.DRD, CAP.DWD).
//!
//! Accesses that a device's own TLB has translated are drained by the device-TLB invalidations that the guest sends. A
//! root complex checks them once more: with translation off, or without a context entry that allows ATS, it refuses them.
//! Here they do not pass through the unit. Instead, when one of these may have changed, devices are emptied: they have to
//! ask for their translations again, and are refused. That drains them, too.
//!
//! All this happens with the queue locked. So nothing is complete as long as another vCPU waits for accesses that it has to
//! wait for as well.

use std::collections::BTreeSet;

use refault_bus::ats::InvalidationRequest;
use refault_bus::{Bdf, Iova};

use crate::unit::Iommu;

/// Every translation of a device, in all address spaces.
const EVERYTHING: InvalidationRequest = InvalidationRequest { pasid: None, iova: Iova(0), size_shift: 64 };

impl Iommu {
    /// Waits for the untranslated accesses of devices whose mappings were just flushed. An access that starts in the
    /// meantime walks the new tables.
    pub(crate) fn drain(&self, users: &BTreeSet<Bdf>) {
        users.iter().filter_map(|&user| self.endpoints.find(user)).for_each(|endpoint| endpoint.drain());
    }

    /// Empties the devices that `matches` selects, and waits for all their accesses.
    pub(crate) fn empty_devices(&self, matches: impl Fn(Bdf) -> bool) {
        for endpoint in self.endpoints.matching(matches) {
            self.counters.device_tlbs_emptied.increment();
            endpoint.invalidate(EVERYTHING);
        }
    }
}
