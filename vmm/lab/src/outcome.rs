//! What an experiment came to.

use hdrhistogram::Histogram;

use refault_observe::report::Counters;
use refault_observe::trace::Records;

/// Everything that is known of an experiment when it is over. All times are of the virtual clock, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Every fault with its stages, every invalidation: as a run of a real guest has them.
    pub records: Records,
    /// Counters of NIC and IOMMU.
    pub counters: Counters,
    /// What the program saw.
    pub load: LoadOutcome,
    /// What the guest's fault handlers saw.
    pub handlers: HandlerOutcome,
}

/// What the program saw of its requests.
#[derive(Clone, Debug)]
pub struct LoadOutcome {
    /// Requests that succeeded.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Payload bytes of those that succeeded.
    pub bytes: u64,
    /// From the first arrival to the last completion.
    pub duration_ns: u64,
    /// Arrival to completion, of those that succeeded.
    pub latency_ns: Histogram<u64>,
}

/// What the guest's fault handlers saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HandlerOutcome {
    /// Faults handled.
    pub faults: u64,
    /// Pages mapped with them ahead of their use.
    pub prefetched: u64,
    /// Sum of the waits from arrival at the handlers to the begin of the handling.
    pub wait_ns: u128,
    /// Sum of the time that handlers were busy.
    pub busy_ns: u128,
    /// Most faults that waited or were handled at one time.
    pub most_outstanding: u64,
}
