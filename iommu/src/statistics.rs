//! Event counters of the unit.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the unit was created; a reset does not clear them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Statistics {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Statistics {
                Statistics { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Translation requests and untranslated accesses.
    translations,
    /// Translations that walked first-stage tables.
    walks,
    /// Page requests received from devices.
    page_requests,
    /// Page requests put into the queue.
    page_requests_queued,
    /// Page requests dropped because the queue was full, or an overflow was not cleared.
    page_requests_overflowed,
    /// Page requests refused because the tables do not allow them, or there is no queue in memory.
    page_requests_refused,
    /// Page request events sent as interrupts.
    page_request_interrupts,
    /// Page group responses read from the invalidation queue.
    page_group_responses,
    /// Page group responses to a requester that is not attached.
    page_group_responses_lost,
    /// Context cache invalidations (type 1).
    context_invalidations,
    /// IOTLB invalidations (type 2).
    iotlb_invalidations,
    /// Device-TLB invalidations (types 3 and 8).
    device_tlb_invalidations,
    /// Device TLBs emptied by a command, a context invalidation or a reset, without a descriptor.
    device_tlbs_emptied,
    /// Wait descriptors (type 5).
    waits,
    /// PASID-based IOTLB invalidations (type 6).
    pasid_iotlb_invalidations,
    /// PASID cache invalidations (type 7).
    pasid_cache_invalidations,
    /// Descriptors that stopped the queue.
    queue_errors,
    /// Faults recorded in a fault recording register.
    faults_recorded,
    /// Faults not recorded because their requester had an unserviced record.
    faults_compressed,
    /// Faults not recorded because all records were occupied, or an overflow was not cleared.
    faults_overflowed,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
