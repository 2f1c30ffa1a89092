//! Distributions in a few numbers.

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

/// The fault latency by who had the fault in hands. The parts' medians need not add up to the whole's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Miss to page request, and matched response to copy.
    pub device_ns: Percentiles,
    /// Page request, or page fault, to queue entry and interrupt, and answer to match.
    pub iommu_ns: Percentiles,
    /// Interrupt to response descriptor: the guest's kernel and its filesystem.
    pub guest_ns: Percentiles,
}
