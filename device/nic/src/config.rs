//! What one NIC is made like.

use refault_abi::regs::MAX_EQS;
use refault_bus::{Bdf, PrgIndex};

/// What a responder does whose memory is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteFaults {
    /// It keeps the request at hand until the page is there.
    #[default]
    Stall,
    /// It asks for the page and answers receiver-not-ready (RNR NAK, InfiniBand 1.4, 9.7.5.2.8): the requester comes
    /// again after the responder's `min_rnr_timer`, as often as its own `rnr_retry` allows.
    Rnr,
}

/// What one NIC is made like: its place on the bus, its size and its patience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicConfig {
    /// Requester id on the bus.
    pub bdf: Bdf,
    /// Workers, each with a share of the queue pairs and of the device TLB; at least 1.
    pub workers: usize,
    /// Translations the device TLB holds, over all workers.
    pub atc_entries: usize,
    /// Page requests the device can have outstanding, at most 512; the operating system may allow fewer.
    pub page_request_credits: u32,
    /// Page faults of on-demand regions the device can have outstanding, at most 512.
    pub page_fault_credits: u32,
    /// How long an answer to a page request, or to a page fault, may take, in nanoseconds of the NIC's clock. `None`: as
    /// long as it likes. A clock cannot tell a guest that never answers from one that hardly gets to run.
    pub page_request_timeout_ns: Option<u64>,
    /// How often a page that was answered with success, and is still missing, is asked for again before the request
    /// fails. A count, for each try takes an answer of the guest, however slow that is.
    pub page_retry_limit: u32,
    /// Pages wanted on a miss inside one request, the missing one included.
    pub fault_window: u32,
    /// What a responder does whose memory is not there.
    pub remote_faults: RemoteFaults,
    /// One request in so many of each queue pair, its first included, is watched from doorbell to completion, and the
    /// probe told of it; zero for none.
    pub sample_every: u32,
    /// EUI-64 of the node, most significant byte first on the wire.
    pub node_guid: u64,
    /// Local identifier of the port; not zero.
    pub lid: u16,
    /// MSI-X vectors, 1 to 64.
    pub vectors: u16,
    /// Most queue pairs.
    pub max_qp: u32,
    /// Most completion queues.
    pub max_cq: u32,
    /// Most shared receive queues.
    pub max_srq: u32,
    /// Most memory regions.
    pub max_mr: u32,
    /// Most protection domains.
    pub max_pd: u32,
    /// Most contexts; BAR 2 has a doorbell page for each. A power of two.
    pub max_context: u32,
}

impl Default for NicConfig {
    fn default() -> Self {
        Self {
            bdf: Bdf::new(0, 3, 0),
            workers: 2,
            atc_entries: 8192,
            page_request_credits: 256,
            page_fault_credits: 256,
            page_request_timeout_ns: None,
            page_retry_limit: 2048,
            fault_window: 8,
            remote_faults: RemoteFaults::Stall,
            sample_every: 1024,
            node_guid: 0x0200_5246_4c54_0001,
            lid: 1,
            vectors: 32,
            max_qp: 16_384,
            max_cq: 16_384,
            max_srq: 16_384,
            max_mr: 1 << 20,
            max_pd: 4096,
            max_context: 1024,
        }
    }
}

impl NicConfig {
    /// GID 0 of the port: link-local prefix and node GUID.
    pub(crate) fn gid(&self) -> [u8; 16] {
        let mut gid = [0; 16];
        gid[..2].copy_from_slice(&[0xfe, 0x80]);
        gid[8..].copy_from_slice(&self.node_guid.to_be_bytes());
        gid
    }

    /// The same with every number brought into the range the device can serve.
    pub(crate) fn clamped(self) -> Self {
        Self {
            workers: self.workers.clamp(1, 64),
            atc_entries: self.atc_entries.max(1),
            page_request_credits: self.page_request_credits.clamp(1, PrgIndex::COUNT as u32),
            page_fault_credits: self.page_fault_credits.clamp(1, PrgIndex::COUNT as u32),
            page_retry_limit: self.page_retry_limit.max(1),
            fault_window: self.fault_window.clamp(1, 64),
            lid: self.lid.max(1),
            vectors: self.vectors.clamp(1, MAX_EQS as u16),
            max_qp: self.max_qp.clamp(2, 1 << 14),
            max_cq: self.max_cq.clamp(1, 1 << 14),
            max_srq: self.max_srq.clamp(1, 1 << 14),
            max_mr: self.max_mr.clamp(1, 1 << 20),
            max_pd: self.max_pd.clamp(1, 1 << 14),
            max_context: self.max_context.clamp(1, 1 << 12).next_power_of_two(),
            ..self
        }
    }
}
