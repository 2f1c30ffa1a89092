//! What the NIC is plugged into: memory, IOMMU, configuration space, clock and probe.

use std::sync::Arc;

use refault_bus::Bdf;
use refault_bus::ats::TranslationAgent;
use refault_bus::clock::Clock;
use refault_bus::dma::DmaMemory;
use refault_bus::probe::{Probe, ProbeEvent};
use refault_pci::Endpoint;

use refault_bus::warn::WarnLimit;

/// What the NIC reaches outside itself.
pub(crate) struct Fabric {
    pub(crate) bdf: Bdf,
    pub(crate) endpoint: Endpoint,
    pub(crate) memory: Arc<dyn DmaMemory>,
    pub(crate) agent: Arc<dyn TranslationAgent>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) probe: Arc<dyn Probe>,
    /// Limits warnings about rings that cannot be read or written.
    pub(crate) ring_warnings: WarnLimit,
}

impl Fabric {
    pub(crate) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    pub(crate) fn record(&self, event: ProbeEvent) {
        self.probe.record(&event);
    }
}
