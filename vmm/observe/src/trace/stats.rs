//! Statistics of a scenario's faults. Histograms include faults that the record store drops.

use super::durations::Durations;
use super::record::{FaultOutcome, FaultRecord};
use crate::trace::percentiles::{Percentiles, Split};

/// The faults of one scenario in one mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultSummary {
    /// Faults that ended in a copy after a page request.
    pub faults: u64,
    /// Faults whose access failed.
    pub failed: u64,
    /// Accesses that joined another queue pair's fault.
    pub coalesced: u64,
    /// Faults without a recorded end.
    pub abandoned: u64,
    /// Page requests sent for all of them.
    pub page_requests: u64,
    /// Miss to copy of [`Self::faults`], in nanoseconds.
    pub fault_ns: Percentiles,
    /// That time by component, as [`FaultSplit`](super::FaultSplit) divides it, without earlier rounds.
    pub split: Split,
}

/// Counts and histograms of one scenario.
#[derive(Clone, Debug)]
pub(super) struct ScenarioStats {
    outcomes: [u64; 4],
    page_requests: u64,
    total: Durations,
    device: Durations,
    iommu: Durations,
    guest: Durations,
}

impl ScenarioStats {
    pub(super) fn new() -> Self {
        Self {
            outcomes: [0; 4],
            page_requests: 0,
            total: Durations::new(),
            device: Durations::new(),
            iommu: Durations::new(),
            guest: Durations::new(),
        }
    }

    pub(super) fn add(&mut self, record: &FaultRecord) {
        self.outcomes[record.outcome as usize] += 1;
        self.page_requests += u64::from(record.requests);
        if record.outcome == FaultOutcome::Copied {
            let split = record.times.split();
            self.total.record(record.times.total());
            self.device.record(split.device);
            self.iommu.record(split.iommu);
            self.guest.record(split.guest);
        }
    }

    pub(super) fn summary(&self) -> FaultSummary {
        let [faults, failed, coalesced, abandoned] = self.outcomes;
        FaultSummary {
            faults,
            failed,
            coalesced,
            abandoned,
            page_requests: self.page_requests,
            fault_ns: self.total.percentiles(),
            split: Split {
                device_ns: self.device.percentiles(),
                iommu_ns: self.iommu.percentiles(),
                guest_ns: self.guest.percentiles(),
            },
        }
    }
}
