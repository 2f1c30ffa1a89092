//! Distributions reduced to a few numbers.

use serde::{Deserialize, Serialize};

/// One distribution of durations, in nanoseconds. All zero if nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// Fault latency by component. The medians of the parts need not add up to that of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Miss to page request, and matched response to copy.
    pub device_ns: Percentiles,
    /// Page request, or page fault event, to queue entry and interrupt, and response to match.
    pub iommu_ns: Percentiles,
    /// Interrupt to response descriptor: the guest's kernel and its filesystem.
    pub guest_ns: Percentiles,
}
