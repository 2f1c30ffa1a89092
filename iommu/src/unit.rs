//! One remapping unit: its parts, construction and reset.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use refault_bus::Bdf;
use refault_bus::ats::AtsEndpoint;
use refault_bus::dma::DmaMemory;
use refault_bus::guard::Guarded;
use refault_bus::irq::MsiSink;
use refault_bus::probe::Probe;
use refault_bus::sync::lock;
use refault_bus::warn::WarnLimit;

use crate::cache::Caches;
use crate::control::Control;
use crate::endpoints::Endpoints;
use crate::fault::FaultLog;
use crate::invalidation_queue::{Completion, InvalidationQueue};
use crate::page_request::{PageRequestQueue, PageRequests};
use crate::remapping::Remapping;
use crate::statistics::{Counters, Statistics};

/// Size of the register page in bytes. The machine chooses its base address, and reports it in the DMAR table.
pub const REGISTER_WINDOW: u64 = 0x1000;

/// Sizes of a unit's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IommuConfig {
    /// Number of translations in the IOTLB.
    pub iotlb_entries: usize,
    /// Number of entries in the PASID cache.
    pub pasid_entries: usize,
}

impl Default for IommuConfig {
    fn default() -> Self {
        Self { iotlb_entries: 8192, pasid_entries: 1024 }
    }
}

/// A VT-d remapping unit in scalable mode.
pub struct Iommu {
    pub(crate) memory: Arc<dyn DmaMemory>,
    pub(crate) msi: Arc<dyn MsiSink>,
    pub(crate) probe: Arc<dyn Probe>,
    pub(crate) endpoints: Endpoints,
    pub(crate) control: Mutex<Control>,
    pub(crate) queue: InvalidationQueue,
    pub(crate) completion: Mutex<Completion>,
    pub(crate) remapping: Guarded<Remapping>,
    pub(crate) page_requests: PageRequests,
    pub(crate) faults: Mutex<FaultLog>,
    pub(crate) counters: Counters,
    pub(crate) warnings: Warnings,
}

/// One limit for each kind of guest mistake that is logged.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    pub(crate) queue: WarnLimit,
    pub(crate) overflow: WarnLimit,
    pub(crate) no_queue: WarnLimit,
    pub(crate) access: WarnLimit,
}

impl Iommu {
    /// A unit in the state after power-on: translation off, nothing attached.
    pub fn new(
        config: IommuConfig,
        memory: Arc<dyn DmaMemory>,
        msi: Arc<dyn MsiSink>,
        probe: Arc<dyn Probe>,
    ) -> Self {
        let caches = Caches::new(config.pasid_entries, config.iotlb_entries);
        Self {
            memory,
            msi,
            probe,
            endpoints: Endpoints::default(),
            control: Mutex::default(),
            queue: InvalidationQueue::default(),
            completion: Mutex::default(),
            remapping: Guarded::new(Remapping::new(caches)),
            page_requests: PageRequests::default(),
            faults: Mutex::default(),
            counters: Counters::default(),
            warnings: Warnings::default(),
        }
    }

    /// Attaches a device: invalidations and page group responses for `requester` go to it from now on. A device attached
    /// later with the same ID takes its place. The device may still be under construction.
    pub fn attach(&self, requester: Bdf, endpoint: Weak<dyn AtsEndpoint>) {
        self.endpoints.attach(requester, endpoint);
    }

    /// Machine reset: registers and caches return to the state after power-on, and devices forget what they have cached.
    /// On return no access through the old tables is in flight, and no command or invalidation of the old guest. Devices
    /// stay attached, and statistics continue.
    pub fn reset(&self) {
        let mut ring = lock(&self.queue.ring);
        self.remapping.interrupt(Remapping::reset);
        // From here on requests are refused without a record. What earlier ones have left behind is cleared below.
        self.empty_devices(|_| true);
        self.queue.reset(&mut ring);
        *lock(&self.control) = Control::default();
        *lock(&self.completion) = Completion::default();
        *self.page_requests.lock() = PageRequestQueue::default();
        *lock(&self.faults) = FaultLog::default();
    }

    /// The event counts so far.
    pub fn statistics(&self) -> Statistics {
        let walks = self.remapping.enter().walks();
        Statistics { walks, ..self.counters.snapshot() }
    }
}

impl fmt::Debug for Iommu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iommu").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}
