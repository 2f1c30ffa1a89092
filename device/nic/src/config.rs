//! Configuration of a NIC.

use refault_abi::regs::MAX_EQS;
use refault_bus::bits::{low_u16, low_u32};
use refault_bus::{Bdf, PrgIndex};
use refault_roce::FlushIcrc;

/// What a responder does when a page of its memory is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteFaults {
    /// It holds the request until the page is present.
    #[default]
    Stall,
    /// It asks for the page and sends an RNR NAK (InfiniBand 1.4, 9.7.5.2.8): the requester retries after the
    /// responder's `min_rnr_timer`, as often as its own `rnr_retry` allows.
    Rnr,
    /// It asks for the page and drops the packet. The requester's timer repeats it, or the NAK that the next packet causes.
    /// In packets only: without them it is as `Stall`.
    Drop,
    /// It asks for the page and sends an RNR NAK with a long timer, and a NAK for a lost packet when the page is there. The
    /// requesters of this device end their delay on that; InfiniBand does not have it. In packets only, likewise.
    ResumeNak,
}

/// How connections in packets behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketConfig {
    /// Packets of a queue pair that are sent and not acknowledged, at most: 1 to 256.
    pub window: u32,
    /// Packets that a queue pair keeps while its responder waits for a page, at most: 1 to 256. One more is lost.
    pub fault_buffer: u32,
    /// Bytes that all responders together may keep for pages before the port has no room for the wire's next frame, so that
    /// the wire stops: priority flow control (IEEE 802.1Qbb). `None`: it does not stop for that.
    pub pause_above: Option<u64>,
    /// With the first packet of an RDMA WRITE or READ, which says where all of it goes, its responder asks for all pages that
    /// are missing, of 4 MiB at most and as far as there are credits to spare.
    pub prefault: bool,
    /// A bug, for experiments: after an RNR delay only the refused message is sent again, and what is behind it after the ACK
    /// timeout.
    pub damming: bool,
    /// Decides which packets are lost.
    pub seed: u64,
}

impl Default for PacketConfig {
    fn default() -> Self {
        Self { window: 128, fault_buffer: 256, pause_above: None, prefault: false, damming: false, seed: 0 }
    }
}

/// What becomes of a datagram when a page of its receiver is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DatagramFaults {
    /// It is dropped, and the page asked for: the next one may arrive. The sender never waits for a receiver
    /// (InfiniBand 1.4, 9.8).
    #[default]
    Drop,
    /// Its sender waits until the page is present.
    Hold,
}

/// How a reliable connection gets to a queue pair of the same port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loopback {
    /// Requester and responder meet in one step, and no packet is made.
    #[default]
    Direct,
    /// In packets, with all that goes with them: windows, acknowledgements, repetition.
    Packets {
        /// How many of a million are lost.
        loss_ppm: u32,
    },
}

/// What the port is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkLayer {
    /// InfiniBand, with nothing plugged in: the port reaches itself alone.
    #[default]
    InfiniBand,
    /// Ethernet, on the wire that [`crate::Nic::plug`] connects.
    Ethernet {
        /// The port's address.
        mac: [u8; 6],
        /// RoCE v2 works. Without it the function is a network interface and no more.
        roce: bool,
    },
}

/// Configuration of a NIC: its place on the bus, its limits and its timeouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicConfig {
    /// Requester id on the bus.
    pub bdf: Bdf,
    /// Workers, each with a share of the queue pairs and of the device TLB; at least 1.
    pub workers: usize,
    /// Entries of the device TLB, over all workers.
    pub atc_entries: usize,
    /// Outstanding page requests, 1 to 512; the operating system may allow fewer.
    pub page_request_credits: u32,
    /// Outstanding page faults of on-demand regions, 1 to 512.
    pub page_fault_credits: u32,
    /// Whether processes share these credits: each may hold as many as it leaves free, and the last quarter is for those
    /// that hold none. Without it, one process may take all.
    pub credit_quota: bool,
    /// Timeout of page requests and page faults, in nanoseconds of the NIC's clock; `None` for none, the default,
    /// because a clock cannot distinguish a guest that never answers from one that hardly gets to run.
    pub page_request_timeout_ns: Option<u64>,
    /// How often a request asks for pages without progress before it fails with CAUSE_PAGE_RETRIES: each time the guest
    /// has answered with success, and a page is still missing. A count, so that the guest's speed does not matter.
    pub page_retry_limit: u32,
    /// Pages that a request asks for at once on a miss, the missing one included; 1 to 64.
    pub fault_window: u32,
    /// What a connected responder does when a page of its memory is missing.
    pub remote_faults: RemoteFaults,
    /// What becomes of a datagram when a page of its receiver is missing.
    pub datagram_faults: DatagramFaults,
    /// How reliable connections get to queue pairs of the same port.
    pub loopback: Loopback,
    /// How the ICRC of a FLUSH is computed that leaves the port. Those of both ways are accepted.
    pub flush_icrc: FlushIcrc,
    /// How connections in packets behave.
    pub packets: PacketConfig,
    /// One request in this many of each queue pair, its first included, is sampled from doorbell to completion and
    /// reported to the probe; zero for none.
    pub sample_every: u32,
    /// What the port is.
    pub link: LinkLayer,
    /// EUI-64 of the node, most significant byte first on the wire.
    pub node_guid: u64,
    /// Local identifier of the port; not zero.
    pub lid: u16,
    /// MSI-X vectors, 1 to 64.
    pub vectors: u16,
    /// Queue pairs, 2 to 16384.
    pub max_qp: u32,
    /// Completion queues, 1 to 16384.
    pub max_cq: u32,
    /// Shared receive queues, 1 to 16384.
    pub max_srq: u32,
    /// Memory regions, 1 to 2^20.
    pub max_mr: u32,
    /// Protection domains, 1 to 16384.
    pub max_pd: u32,
    /// Contexts, a power of two up to 4096; BAR 2 has a doorbell page for each.
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
            credit_quota: true,
            page_request_timeout_ns: None,
            page_retry_limit: 2048,
            fault_window: 8,
            remote_faults: RemoteFaults::Stall,
            datagram_faults: DatagramFaults::Drop,
            loopback: Loopback::Direct,
            flush_icrc: FlushIcrc::Standard,
            packets: PacketConfig::default(),
            sample_every: 1024,
            link: LinkLayer::InfiniBand,
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
    /// GID 0 of an InfiniBand port: link-local prefix and node GUID.
    pub(crate) fn gid(&self) -> [u8; 16] {
        let mut gid = [0; 16];
        gid[..2].copy_from_slice(&[0xfe, 0x80]);
        gid[8..].copy_from_slice(&self.node_guid.to_be_bytes());
        gid
    }

    /// The port's MAC address; zero on InfiniBand.
    pub(crate) fn mac(&self) -> [u8; 6] {
        match self.link {
            LinkLayer::InfiniBand => [0; 6],
            LinkLayer::Ethernet { mac, .. } => mac,
        }
    }

    /// The same with every number brought into the range the device can serve.
    pub(crate) fn clamped(self) -> Self {
        Self {
            workers: self.workers.clamp(1, 64),
            atc_entries: self.atc_entries.max(1),
            page_request_credits: self.page_request_credits.clamp(1, low_u32(PrgIndex::COUNT as u64)),
            page_fault_credits: self.page_fault_credits.clamp(1, low_u32(PrgIndex::COUNT as u64)),
            page_retry_limit: self.page_retry_limit.max(1),
            fault_window: self.fault_window.clamp(1, 64),
            packets: PacketConfig {
                window: self.packets.window.clamp(1, 256),
                fault_buffer: self.packets.fault_buffer.clamp(1, 256),
                ..self.packets
            },
            lid: self.lid.max(1),
            vectors: self.vectors.clamp(1, low_u16(MAX_EQS.into())),
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
