//! Counters, for reports and tests.

/// Counters of a NIC since it was made. A reset does not clear them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct NicStats {
    /// Commands executed.
    pub commands: u64,
    /// Send requests completed, successful or not.
    pub requests: u64,
    /// Completions written.
    pub completions: u64,
    /// Events written.
    pub events: u64,
    /// Payload bytes copied.
    pub bytes_copied: u64,
    /// Translation requests: translations that were not cached.
    pub atc_misses: u64,
    /// Walks of the device's own tables: rings', pinned regions' and on-demand regions'.
    pub table_walks: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Invalidations served, from the IOMMU and from the driver.
    pub invalidations: u64,
    /// Page requests sent.
    pub page_requests: u64,
    /// Accesses that joined an outstanding page request or page fault.
    pub page_waits_joined: u64,
    /// Page group responses that matched an open group.
    pub page_responses: u64,
    /// Page group responses that matched nothing.
    pub page_responses_unexpected: u64,
    /// Page request groups that timed out.
    pub page_timeouts: u64,
    /// Events of page faults of on-demand regions.
    pub page_faults: u64,
    /// Answers that matched an open page fault.
    pub page_fault_answers: u64,
    /// Answers that matched none.
    pub page_fault_answers_unexpected: u64,
    /// Page faults that timed out.
    pub page_fault_timeouts: u64,
    /// Waits for a credit to request a page.
    pub page_credit_waits: u64,
    /// Of these, because the process had its share of credits, while others were free.
    pub page_quota_waits: u64,
    /// Page requests and page faults that were called off before they left: the context was stopped, or a switch in
    /// configuration space turned off.
    pub page_requests_called_off: u64,
    /// Write-outs of persistent memory, for FLUSH.
    pub flush_writes: u64,
    /// FLUSH requests that shared the write-out of another one.
    pub flushes_joined: u64,
    /// FLUSH requests whose queue pair was reset, or failed, before the write-out began.
    pub flushes_abandoned: u64,
    /// Waits after an RNR NAK.
    pub rnr_waits: u64,
    /// Retries because no responder answered.
    pub transport_retries: u64,
    /// Datagrams that were not received.
    pub datagrams_dropped: u64,
    /// Of these, because a page of the receiver was missing.
    pub datagrams_dropped_on_fault: u64,
    /// Packets of reliable connections that were sent.
    pub packets: u64,
    /// Of these, lost: on purpose, or because the receiver had no room, or was gone.
    pub packets_lost: u64,
    /// Bytes of all that were sent, headers included.
    pub packet_bytes: u64,
    /// Packets that requesters sent again.
    pub packets_repeated: u64,
    /// RNR NAKs that responders sent, for a page or for want of a receive request.
    pub rnr_naks: u64,
    /// Times that a responder did not keep a request whose page is missing, other than with an RNR NAK.
    pub requests_dropped_on_fault: u64,
    /// RNR delays that the responder ended because its page was there.
    pub rnr_resumes: u64,
    /// Requests that came again to responders in packets.
    pub duplicate_requests: u64,
    /// Requests that came before one that was missing.
    pub out_of_sequence: u64,
    /// NAKs for a lost packet that requesters heeded.
    pub sequence_naks: u64,
    /// Requests that failed because no retry was answered.
    pub retries_exceeded: u64,
    /// Requests that failed because the receiver was never ready.
    pub rnr_retries_exceeded: u64,
    /// Most bytes that were kept at one time for pages of responders.
    pub held_bytes_peak: u64,
    /// Frames of an Ethernet port.
    pub frames: FrameStats,
}

/// Counters of the frames of an Ethernet port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FrameStats {
    /// Sent.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Arrived, wanted or not.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: u64,
    /// Packets of RoCE among those sent, also to the port itself.
    pub packets_sent: u64,
    /// Bytes of these.
    pub packet_bytes_sent: u64,
    /// Packets of RoCE, well formed, among those that arrived.
    pub packets_received: u64,
    /// Bytes of these.
    pub packet_bytes_received: u64,
    /// Not sent: there was no signal, or no GID to send from.
    pub unsent: u64,
    /// Dropped: to another MAC address, or there is nothing that takes such frames.
    pub unwanted: u64,
    /// Dropped: RoCE, but not well formed.
    pub malformed: u64,
    /// Dropped: the ICRC is wrong.
    pub bad_icrc: u64,
    /// Dropped: for a queue pair that is not there or does not listen, or not from its peer.
    pub unexpected: u64,
    /// Dropped: no room, or no receive request.
    pub overflow: u64,
}

/// The counters under a worker's guard.
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
    pub(crate) datagrams_dropped_on_fault: u64,
    pub(crate) packets: u64,
    pub(crate) packets_lost: u64,
    pub(crate) packet_bytes: u64,
    pub(crate) packets_repeated: u64,
    pub(crate) rnr_naks: u64,
    pub(crate) requests_dropped_on_fault: u64,
    pub(crate) rnr_resumes: u64,
    pub(crate) duplicate_requests: u64,
    pub(crate) out_of_sequence: u64,
    pub(crate) sequence_naks: u64,
    pub(crate) retries_exceeded: u64,
    pub(crate) rnr_retries_exceeded: u64,
}

impl NicStats {
    /// Adds the counters of one shard.
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
        self.datagrams_dropped_on_fault += shard.datagrams_dropped_on_fault;
        self.packets += shard.packets;
        self.packets_lost += shard.packets_lost;
        self.packet_bytes += shard.packet_bytes;
        self.packets_repeated += shard.packets_repeated;
        self.rnr_naks += shard.rnr_naks;
        self.requests_dropped_on_fault += shard.requests_dropped_on_fault;
        self.rnr_resumes += shard.rnr_resumes;
        self.duplicate_requests += shard.duplicate_requests;
        self.out_of_sequence += shard.out_of_sequence;
        self.sequence_naks += shard.sequence_naks;
        self.retries_exceeded += shard.retries_exceeded;
        self.rnr_retries_exceeded += shard.rnr_retries_exceeded;
    }
}
