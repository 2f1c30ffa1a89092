//! The result of an experiment.

use hdrhistogram::Histogram;

use refault_observe::report::DeviceCounters;
use refault_observe::trace::Records;

/// Significant digits of latencies.
pub(crate) const DIGITS: u8 = 3;

/// The result of an experiment. All times are nanoseconds of the virtual clock.
#[derive(Clone, Debug)]
pub struct ExperimentOutcome {
    /// Faults with their stages, and invalidations, as for a run of a real guest.
    pub records: Records,
    /// Counters of NIC and IOMMU.
    pub counters: DeviceCounters,
    /// The program's statistics.
    pub load: LoadOutcome,
    /// Statistics of the guest's fault handlers.
    pub handlers: HandlerOutcome,
}

/// The program's statistics.
#[derive(Clone, Debug)]
pub struct LoadOutcome {
    /// Requests that succeeded.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Payload bytes of those that succeeded.
    pub bytes: u64,
    /// Nanoseconds from the first arrival to the last completion.
    pub duration_ns: u64,
    /// Nanoseconds from arrival to completion of those that succeeded.
    pub latency_ns: Histogram<u64>,
    /// The same for each [`RequestKind`].
    pub by_kind_ns: [Histogram<u64>; 3],
}

/// How near a request is to a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Its pages were evicted before it was posted.
    Faulting,
    /// They were not, but those of others of its queue pair are.
    Neighbour,
    /// Its queue pair is a bystander.
    Bystander,
}

impl RequestKind {
    /// An empty histogram for each kind.
    ///
    /// # Panics
    /// Never: the precision is a valid one.
    pub fn histograms() -> [Histogram<u64>; 3] {
        [(); 3].map(|()| Histogram::new(DIGITS).expect("digits from 0 to 5"))
    }
}

/// Statistics of the guest's fault handlers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HandlerOutcome {
    /// Handled faults.
    pub faults: u64,
    /// Pages that were mapped along with a faulting one.
    pub prefetched: u64,
    /// Total time, in nanoseconds, from arrival at the handlers to the start of handling.
    pub wait_ns: u128,
    /// Total time that handlers were busy, in nanoseconds.
    pub busy_ns: u128,
    /// Most faults that waited or were being handled at one time.
    pub most_outstanding: u64,
}
