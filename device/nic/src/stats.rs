//! Counters, for reports and tests.

/// What a NIC did since it was made. Reset does not clear it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct NicStats {
    /// Commands executed.
    pub commands: u64,
    /// Send requests finished, well or not.
    pub requests: u64,
    /// Completions written.
    pub completions: u64,
    /// Events written.
    pub events: u64,
    /// Payload bytes copied.
    pub bytes_copied: u64,
    /// Translation requests for want of a cached translation.
    pub atc_misses: u64,
    /// Walks of tables of the device's own: rings', pinned regions' and on-demand regions'.
    pub table_walks: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Invalidations served, from the IOMMU and from the driver.
    pub invalidations: u64,
    /// Page requests sent.
    pub page_requests: u64,
    /// Accesses that waited for a page somebody else had asked for.
    pub page_waits_joined: u64,
    /// Page group responses that matched an open group.
    pub page_responses: u64,
    /// Page group responses that matched nothing.
    pub page_responses_unexpected: u64,
    /// Page request groups given up.
    pub page_timeouts: u64,
    /// Page faults of on-demand regions that the driver was told of.
    pub page_faults: u64,
    /// Answers to them.
    pub page_fault_answers: u64,
    /// Answers that named no fault.
    pub page_fault_answers_unexpected: u64,
    /// Page faults given up.
    pub page_fault_timeouts: u64,
    /// Receiver-not-ready delays.
    pub rnr_waits: u64,
    /// Transport retries.
    pub transport_retries: u64,
    /// Datagrams that met nobody who would take them.
    pub datagrams_dropped: u64,
}

/// The part that is counted under a worker's guard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShardStats {
    pub(crate) commands: u64,
    pub(crate) requests: u64,
    pub(crate) completions: u64,
    pub(crate) events: u64,
    pub(crate) bytes_copied: u64,
    pub(crate) atc_misses: u64,
    pub(crate) table_walks: u64,
    pub(crate) interrupts: u64,
    pub(crate) rnr_waits: u64,
    pub(crate) transport_retries: u64,
    pub(crate) datagrams_dropped: u64,
}

impl NicStats {
    pub(crate) fn add(&mut self, shard: &ShardStats) {
        self.commands += shard.commands;
        self.requests += shard.requests;
        self.completions += shard.completions;
        self.events += shard.events;
        self.bytes_copied += shard.bytes_copied;
        self.atc_misses += shard.atc_misses;
        self.table_walks += shard.table_walks;
        self.interrupts += shard.interrupts;
        self.rnr_waits += shard.rnr_waits;
        self.transport_retries += shard.transport_retries;
        self.datagrams_dropped += shard.datagrams_dropped;
    }
}
