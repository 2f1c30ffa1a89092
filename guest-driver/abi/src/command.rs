//! Commands: how the kernel driver creates, changes and destroys objects.
//!
//! A lane is a ring of [`CommandSlot`]s. The driver fills `request` with a token that is not zero and differs from the
//! slot's previous one, and moves the producer index; the device executes the slots of a lane in order, fills
//! `response` and writes `response.token` last. Lane 1 is for commands that must not wait for lane 0, such as
//! invalidations and answers to page faults. No command waits for a page fault.

use crate::codes::{AccessRights, QpKind, QpState};

constants! { COMMAND_SIZES, "Command rings":
    /// Bytes of a slot.
    pub const CMD_SLOT_SIZE: u32 = 256;
    /// log2 of the largest ring.
    pub const CMD_MAX_LOG_SLOTS: u32 = 8;
}

codes! { OPCODES, "Command opcodes (request body -> response body)":
    /// What a command does. Bodies have the names of their layouts in C: QpState is [`QpSnapshot`] here.
    pub struct CommandOpcode(u16) {
        /// Nothing -> DeviceCaps.
        CMD_QUERY_DEVICE = 0x01;
        /// CreateEq -> ObjectId.
        CMD_CREATE_EQ = 0x10;
        /// ObjectId -> nothing.
        CMD_DESTROY_EQ = 0x11;
        /// CreateContext -> ObjectId, which is also the index of its doorbell page.
        CMD_CREATE_CONTEXT = 0x20;
        /// ObjectId -> nothing. Busy while it has objects; the last of a PASID also while a page request is unanswered.
        CMD_DESTROY_CONTEXT = 0x21;
        /// ObjectId of a context -> ObjectId.
        CMD_CREATE_PD = 0x22;
        /// ObjectId -> nothing. Refused while in use.
        CMD_DESTROY_PD = 0x23;
        /// CreateMr -> ObjectId: the lkey, which is also the rkey.
        CMD_CREATE_MR = 0x30;
        /// ObjectId (the key) -> nothing. When it is answered, no access through the region is in flight.
        CMD_DESTROY_MR = 0x31;
        /// CreateCq -> ObjectId.
        CMD_CREATE_CQ = 0x40;
        /// ObjectId -> nothing. Refused while in use.
        CMD_DESTROY_CQ = 0x41;
        /// ModifyCq -> nothing.
        CMD_MODIFY_CQ = 0x42;
        /// CreateQp -> ObjectId.
        CMD_CREATE_QP = 0x50;
        /// ModifyQp -> nothing.
        CMD_MODIFY_QP = 0x51;
        /// ObjectId -> QpState.
        CMD_QUERY_QP = 0x52;
        /// ObjectId -> nothing. When it is answered nothing more is read, written or completed for it.
        CMD_DESTROY_QP = 0x53;
        /// CreateSrq -> ObjectId.
        CMD_CREATE_SRQ = 0x60;
        /// ObjectId -> nothing. Refused while in use.
        CMD_DESTROY_SRQ = 0x61;
        /// ArmSrq -> nothing.
        CMD_ARM_SRQ = 0x62;
        /// ObjectId -> SrqState.
        CMD_QUERY_SRQ = 0x63;
        /// SetGid -> nothing. Ethernet ports only.
        CMD_SET_GID = 0x70;
        /// SetPort -> nothing. Ethernet ports only.
        CMD_SET_PORT = 0x71;
        /// Nothing -> PortCounters. Ethernet ports only.
        CMD_QUERY_COUNTERS = 0x72;
        /// Lane 1. ObjectId (the key) -> nothing. Accesses fail from now on with CAUSE_REVOKED.
        CMD_REVOKE_MR = 0x80;
        /// Lane 1. ObjectId of a context -> nothing. All its queue pairs go to ERR, its PASID is not used any more.
        CMD_STOP_CONTEXT = 0x81;
        /// Lane 1. InvalidateMr -> nothing. Drops the cached range; once answered, no access that used it is in flight.
        CMD_INVALIDATE_MR = 0x82;
        /// Lane 1. ResumeFault -> nothing. Answers a page fault.
        CMD_RESUME_FAULT = 0x83;
    }
}

codes! { COMMAND_STATUSES, "Command status":
    /// How a command ended.
    pub struct CommandStatus(u16) {
        /// Done.
        STATUS_OK = 0;
        /// Unknown opcode, or not one of this lane's.
        STATUS_BAD_OPCODE = 1;
        /// A field is out of range or inconsistent.
        STATUS_BAD_PARAMETER = 2;
        /// No such object, or no such page fault (any more).
        STATUS_NO_OBJECT = 3;
        /// The object is in use by another one.
        STATUS_BUSY = 4;
        /// A limit of DeviceCaps is reached.
        STATUS_NO_RESOURCES = 5;
        /// The queue pair's state does not allow it.
        STATUS_BAD_STATE = 6;
        /// Guest memory named by the command could not be accessed.
        STATUS_BAD_MEMORY = 7;
    }
}

constants! { MR_MODES, "Memory region modes":
    /// Translated by the region's page table, filled once with pinned pages.
    pub const MR_PINNED: u8 = 0;
    /// Addresses are the process' own; the IOMMU translates them in the context's PASID, and faults.
    pub const MR_PASID: u8 = 1;
    /// On demand: translated by the region's own table, which may have holes; a hole is a page fault.
    pub const MR_ODP: u8 = 2;
    /// Translated by the region's page table, which is filled again for each OP_REGISTER. Created invalid.
    pub const MR_FAST: u8 = 3;
    /// Most levels of an on-demand region's table.
    pub const ODP_MAX_LEVELS: u8 = 4;
}

constants! { ODP_WORDS, "Words of an on-demand region's table: address in bits 63:12, zero is a hole":
    /// The page is present, and may be read.
    pub const ODP_PRESENT: u64 = 1 << 0;
    /// The page may be written; together with ODP_PRESENT.
    pub const ODP_WRITABLE: u64 = 1 << 1;
    /// The word names a table of the next level, not a page.
    pub const ODP_TABLE: u64 = 1 << 2;
}

constants! { FAULT_ANSWERS, "Answers to a page fault":
    /// The table was filled: look again.
    pub const FAULT_RESOLVED: u32 = 0;
    /// The page is refused: the access fails.
    pub const FAULT_REFUSED: u32 = 1;
}

constants! { QP_ATTRIBUTES, "ModifyQp mask":
    /// `state`.
    pub const QP_ATTR_STATE: u32 = 1 << 0;
    /// `access`.
    pub const QP_ATTR_ACCESS: u32 = 1 << 1;
    /// `pkey_index`.
    pub const QP_ATTR_PKEY: u32 = 1 << 2;
    /// `port`.
    pub const QP_ATTR_PORT: u32 = 1 << 3;
    /// `path_mtu`.
    pub const QP_ATTR_PATH_MTU: u32 = 1 << 4;
    /// `dest_lid`, `dest_gid`, `sgid_index`, `has_grh`, `sl`; on RoCE all from `flow_label` on, too.
    pub const QP_ATTR_AV: u32 = 1 << 5;
    /// `dest_qpn`.
    pub const QP_ATTR_DEST_QPN: u32 = 1 << 6;
    /// `rq_psn`.
    pub const QP_ATTR_RQ_PSN: u32 = 1 << 7;
    /// `sq_psn`.
    pub const QP_ATTR_SQ_PSN: u32 = 1 << 8;
    /// `timeout`.
    pub const QP_ATTR_TIMEOUT: u32 = 1 << 9;
    /// `retry_count`.
    pub const QP_ATTR_RETRY: u32 = 1 << 10;
    /// `rnr_retry`.
    pub const QP_ATTR_RNR_RETRY: u32 = 1 << 11;
    /// `min_rnr_timer`.
    pub const QP_ATTR_MIN_RNR_TIMER: u32 = 1 << 12;
    /// `max_rd_atomic`.
    pub const QP_ATTR_MAX_RD_ATOMIC: u32 = 1 << 13;
    /// `max_dest_rd_atomic`.
    pub const QP_ATTR_MAX_DEST_RD_ATOMIC: u32 = 1 << 14;
    /// `qkey`.
    pub const QP_ATTR_QKEY: u32 = 1 << 15;
}

layouts! { COMMAND_LAYOUTS:
    /// Head and body of a request.
    pub struct CommandRequest[128] {
        /// CMD_*.
        pub opcode: CommandOpcode,
        /// Zero.
        pub reserved: u16,
        /// Chosen by the driver, not zero, echoed in the response.
        pub token: u32,
        /// The layout that the opcode names.
        pub body: [u64; 15],
    }

    /// Head and body of a response.
    pub struct CommandResponse[128] {
        /// The request's token; written last.
        pub token: u32,
        /// STATUS_*.
        pub status: CommandStatus,
        /// Zero.
        pub reserved: u16,
        /// The layout that the opcode names, if the status is STATUS_OK.
        pub body: [u64; 15],
    }

    /// One slot of a command ring.
    pub struct CommandSlot[256] {
        /// Written by the driver.
        pub request: CommandRequest,
        /// Written by the device.
        pub response: CommandResponse,
    }

    /// Number of an object: eqn, context, pd, key, cqn or qpn.
    pub struct ObjectId[8] {
        /// The number.
        pub id: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// A run of pages, named through 0 to 3 levels of 4 KiB tables of 64-bit addresses (all IOVAs of the function).
    pub struct PageTable[16] {
        /// Level 0: address of the first byte; else of the top table. Page aligned.
        pub root: u64,
        /// Pages in all.
        pub pages: u32,
        /// Tables between `root` and the pages, 0..=3.
        pub levels: u8,
        /// log2 of the size of the pages: 12 or 21.
        pub page_shift: u8,
        /// Zero.
        pub reserved: u16,
    }

    /// What the device is and can do.
    pub struct DeviceCaps[120] {
        /// Version of the device model.
        pub version: u64,
        /// EUI-64 of the node, as a number (most significant byte first on the wire).
        pub node_guid: u64,
        /// Largest memory region in bytes.
        pub max_mr_size: u64,
        /// Most queue pairs.
        pub max_qp: u32,
        /// Most completion queues.
        pub max_cq: u32,
        /// Most memory regions.
        pub max_mr: u32,
        /// Most protection domains.
        pub max_pd: u32,
        /// Most contexts, and doorbell pages in BAR 2.
        pub max_context: u32,
        /// Most event queues.
        pub max_eq: u32,
        /// Most RDMA reads and atomics in flight per queue pair.
        pub max_rd_atomic: u32,
        /// CAP_* bits.
        pub features: u32,
        /// Local identifier of port 1.
        pub lid: u16,
        /// Entries of the P_Key table.
        pub pkeys: u16,
        /// Entries of the GID table. On InfiniBand entry 0 is fe80::/64 and the node GUID; on Ethernet CMD_SET_GID sets all.
        pub gids: u16,
        /// Zero.
        pub reserved0: u16,
        /// Page requests that may be outstanding.
        pub page_requests: u32,
        /// Page faults of on-demand regions that may be outstanding.
        pub page_faults: u32,
        /// Most shared receive queues.
        pub max_srq: u32,
        /// Zero.
        pub reserved1: u32,
        /// Ethernet: the port's MAC address.
        pub mac: [u8; 6],
        /// Ethernet: longest frame in bytes, from the MAC addresses on, without a checksum.
        pub max_frame: u16,
        /// Ethernet: 1 if there is a signal now.
        pub carrier: u32,
        /// Zero.
        pub reserved2: u32,
        /// Zero.
        pub reserved3: [u64; 3],
    }

    /// Sets or empties an entry of the GID table.
    pub struct SetGid[32] {
        /// Which.
        pub index: u16,
        /// 1: set; 0: emptied.
        pub present: u8,
        /// Zero.
        pub reserved0: u8,
        /// VLAN of what is sent from it and received for it; GID_NO_VLAN for none.
        pub vlan: u16,
        /// MAC address that it sends from.
        pub mac: [u8; 6],
        /// Zero.
        pub reserved1: u32,
        /// The GID, network order: an IPv6 address, or an IPv4 address as ::ffff:a.b.c.d.
        pub gid: [u8; 16],
    }

    /// Configures an Ethernet port.
    pub struct SetPort[16] {
        /// MAC address; frames to others are dropped, but for group addresses.
        pub mac: [u8; 6],
        /// Zero.
        pub reserved0: u16,
        /// PORT_*.
        pub flags: u32,
        /// Event queue of EVENT_PORT.
        pub eqn: u32,
    }

    /// What an Ethernet port and the queue pairs behind it counted since the device was made. A reset clears none.
    pub struct PortCounters[120] {
        /// Packets of RoCE sent.
        pub sent_packets: u64,
        /// Packets of RoCE that arrived, well formed.
        pub received_packets: u64,
        /// Bytes of the frames of those sent.
        pub sent_bytes: u64,
        /// Bytes of the frames of those that arrived.
        pub received_bytes: u64,
        /// Requests that came again.
        pub duplicate_requests: u64,
        /// Requests that came before one that was missing.
        pub out_of_sequence: u64,
        /// RNR NAKs that requesters heeded.
        pub rnr_naks_received: u64,
        /// RNR NAKs that responders sent.
        pub rnr_naks_sent: u64,
        /// NAKs for a lost packet that requesters heeded.
        pub sequence_naks_received: u64,
        /// Requests that failed with WC_RETRY_EXC_ERR.
        pub retries_exceeded: u64,
        /// Requests that failed with WC_RNR_RETRY_EXC_ERR.
        pub rnr_retries_exceeded: u64,
        /// Frames dropped for their ICRC.
        pub bad_icrc: u64,
        /// Frames dropped because they were malformed, or nothing takes them.
        pub dropped: u64,
        /// Frames dropped for want of room, or of a receive request.
        pub overflow: u64,
        /// Messages dropped because a page was missing.
        pub fault_dropped: u64,
    }

    /// Creates an event queue.
    pub struct CreateEq[32] {
        /// The ring.
        pub ring: PageTable,
        /// log2 of its entries, at most MAX_LOG_EQES.
        pub log_size: u8,
        /// Zero.
        pub reserved0: u8,
        /// MSI-X vector.
        pub vector: u16,
        /// Zero.
        pub reserved1: u32,
        /// Zero.
        pub reserved2: u64,
    }

    /// Creates a context: a process' share of the device.
    pub struct CreateContext[16] {
        /// PASID bound to the process, if `has_pasid`.
        pub pasid: u32,
        /// 1 if the context has a PASID.
        pub has_pasid: u32,
        /// Zero.
        pub reserved: u64,
    }

    /// Creates a memory region.
    pub struct CreateMr[64] {
        /// First address, as requests name it. Fast: zero, as `length`, `first_offset` and `access`.
        pub start: u64,
        /// Bytes; `start + length` may reach 2^64 (then the whole address space is meant).
        pub length: u64,
        /// Pinned: the region's pages; without tables and from address zero on, none need be mapped yet. Fast: as many pages as
        /// may be registered, and 1 to 3 `levels`. On demand: the top table and 1 to ODP_MAX_LEVELS `levels`; `pages` is zero
        /// and `page_shift` 12.
        pub table: PageTable,
        /// Bytes from the start of what the table covers to `start`: less than a page; on demand, less than 2 MiB.
        pub first_offset: u32,
        /// Protection domain.
        pub pd: u32,
        /// ACCESS_*.
        pub access: AccessRights,
        /// MR_*.
        pub mode: u8,
        /// Zero.
        pub reserved0: [u8; 3],
        /// On demand: event queue that its page faults go to.
        pub fault_eqn: u32,
        /// Zero.
        pub reserved1: u32,
        /// Zero.
        pub reserved2: u64,
    }

    /// Forgets translations of an on-demand region.
    pub struct InvalidateMr[24] {
        /// Which.
        pub key: u32,
        /// Zero.
        pub reserved: u32,
        /// First address, as requests name it.
        pub start: u64,
        /// Bytes; 2^64 - 1 is everything behind `start`.
        pub length: u64,
    }

    /// Answers a page fault of an on-demand region.
    pub struct ResumeFault[16] {
        /// The event's token.
        pub token: u32,
        /// FAULT_*.
        pub answer: u32,
        /// Zero.
        pub reserved: u64,
    }

    /// Creates a completion queue.
    pub struct CreateCq[48] {
        /// Its memory: ring, then the doorbell record.
        pub buffer: PageTable,
        /// Bytes from the start of the buffer to the CqDoorbellRecord, 64-byte aligned.
        pub record_offset: u32,
        /// Context whose doorbell page arms it.
        pub context: u32,
        /// Event queue that its events go to.
        pub eqn: u32,
        /// log2 of its entries, at most MAX_LOG_CQES.
        pub log_size: u8,
        /// Zero.
        pub reserved0: [u8; 3],
        /// Zero.
        pub reserved1: [u64; 2],
    }

    /// Sets the moderation of a completion queue: an armed event is sent when `count` completions have arrived, or
    /// `period_us` after the first of them. With a period of zero, with the first.
    pub struct ModifyCq[16] {
        /// Which.
        pub cqn: u32,
        /// Completions.
        pub count: u16,
        /// Microseconds.
        pub period_us: u16,
        /// Zero.
        pub reserved: u64,
    }

    /// Creates a shared receive queue.
    pub struct CreateSrq[48] {
        /// Its memory: ring of RqWqe, then the doorbell record.
        pub buffer: PageTable,
        /// Bytes from the start of the buffer to the SrqDoorbellRecord, 128-byte aligned.
        pub record_offset: u32,
        /// Protection domain.
        pub pd: u32,
        /// Event queue of its asynchronous events.
        pub eqn: u32,
        /// log2 of its entries, at most MAX_LOG_WQES.
        pub log_size: u8,
        /// Zero.
        pub reserved0: [u8; 3],
        /// Zero.
        pub reserved1: [u64; 2],
    }

    /// Asks for SRQ_EVENT_LIMIT_REACHED, once, when fewer than `limit` receive requests are left.
    pub struct ArmSrq[8] {
        /// Which.
        pub srqn: u32,
        /// Receive requests; zero disarms.
        pub limit: u32,
    }

    /// A shared receive queue as the device has it.
    pub struct SrqState[16] {
        /// The armed limit, zero if none.
        pub limit: u32,
        /// Receive requests the device has taken.
        pub consumer: u32,
        /// Zero.
        pub reserved: u64,
    }

    /// Creates a queue pair.
    pub struct CreateQp[80] {
        /// Its memory: send ring, receive ring, doorbell record.
        pub buffer: PageTable,
        /// Bytes from the start of the buffer to the receive ring, 128-byte aligned.
        pub rq_offset: u32,
        /// Bytes from the start of the buffer to the QpDoorbellRecord, 128-byte aligned.
        pub record_offset: u32,
        /// Protection domain; its context's doorbell page starts the queue pair.
        pub pd: u32,
        /// Completion queue of the send queue.
        pub send_cq: u32,
        /// Completion queue of the receive queue.
        pub recv_cq: u32,
        /// Event queue of its asynchronous events.
        pub eqn: u32,
        /// log2 of the send ring's entries, at most MAX_LOG_WQES.
        pub log_sq: u8,
        /// log2 of the receive ring's entries, at most MAX_LOG_WQES; with `srqn` the ring is not used.
        pub log_rq: u8,
        /// 1: every send request is signaled.
        pub signal_all: u8,
        /// QPT_*.
        pub kind: QpKind,
        /// Zero.
        pub reserved0: u32,
        /// Shared receive queue, of a protection domain of the same context; zero is none.
        pub srqn: u32,
        /// Zero.
        pub reserved1: u32,
        /// Zero.
        pub reserved2: [u64; 3],
    }

    /// Changes a queue pair; only fields named in `mask` count.
    pub struct ModifyQp[80] {
        /// Which.
        pub qpn: u32,
        /// QP_ATTR_*.
        pub mask: u32,
        /// QPS_*.
        pub state: QpState,
        /// 1 = 256 bytes up to 5 = 4096 bytes.
        pub path_mtu: u8,
        /// Local ACK timeout: 4.096 us * 2^n, 0 = forever.
        pub timeout: u8,
        /// Transport retries, 0..=7.
        pub retry_count: u8,
        /// RNR retries, 7 = forever.
        pub rnr_retry: u8,
        /// Delay that a sender is asked for, IB code 0..=31.
        pub min_rnr_timer: u8,
        /// Reads and atomics in flight as requester.
        pub max_rd_atomic: u8,
        /// Reads and atomics in flight as responder.
        pub max_dest_rd_atomic: u8,
        /// ACCESS_REMOTE_* and ACCESS_FLUSH_* that incoming requests may use.
        pub access: AccessRights,
        /// Peer.
        pub dest_qpn: u32,
        /// Packet sequence number expected first.
        pub rq_psn: u32,
        /// Packet sequence number sent first.
        pub sq_psn: u32,
        /// Peer's LID.
        pub dest_lid: u16,
        /// Index into the P_Key table.
        pub pkey_index: u16,
        /// Port, 1.
        pub port: u8,
        /// Service level.
        pub sl: u8,
        /// 1: `dest_gid` is valid.
        pub has_grh: u8,
        /// Own GID.
        pub sgid_index: u8,
        /// Peer's GID, network order.
        pub dest_gid: [u8; 16],
        /// UD: the Q_Key that incoming datagrams must have.
        pub qkey: u32,
        /// RoCE: flow label of IPv6, 20 bits.
        pub flow_label: u32,
        /// RoCE: MAC address of the next hop.
        pub dmac: [u8; 6],
        /// RoCE: IPv4 time to live, or IPv6 hop limit.
        pub hop_limit: u8,
        /// RoCE: IPv4 type of service, or IPv6 traffic class.
        pub traffic_class: u8,
        /// RoCE: UDP source port.
        pub source_port: u16,
        /// Zero.
        pub reserved0: [u8; 6],
    }

    /// A queue pair's attributes as the device has them.
    pub struct QpSnapshot as QpState[96] {
        /// What was set; `mask` is zero, `state` the present state.
        pub attributes: ModifyQp,
        /// Send requests the device is done with.
        pub sq_consumer: u32,
        /// Receive requests the device is done with.
        pub rq_consumer: u32,
        /// 1 while draining to SQD.
        pub draining: u32,
        /// Zero.
        pub reserved: u32,
    }
}

constants! { FEATURES, "DeviceCaps features":
    /// PASID regions work: the function's PASID, ATS and page request capabilities are enabled.
    pub const CAP_PASID: u32 = 1 << 0;
    /// Atomics are atomic with respect to the CPU too.
    pub const CAP_ATOMIC_GLOBAL: u32 = 1 << 1;
    /// On-demand regions with a table of their own work.
    pub const CAP_ODP: u32 = 1 << 2;
    /// FLUSH with placement FLUSH_PERSISTENT works.
    pub const CAP_FLUSH_PERSISTENT: u32 = 1 << 3;
    /// The port is an Ethernet port: QPT_ETHERNET, CMD_SET_PORT.
    pub const CAP_ETHERNET: u32 = 1 << 4;
    /// RoCE v2 works: CMD_SET_GID, and all queue pairs but QPT_ETHERNET. Without it an Ethernet port has no others.
    pub const CAP_ROCE: u32 = 1 << 5;
}

constants! { PORT_FLAGS, "SetPort flags":
    /// The port sends and receives; without it, it does neither.
    pub const PORT_UP: u32 = 1 << 0;
    /// Frames to other MAC addresses are received too.
    pub const PORT_PROMISCUOUS: u32 = 1 << 1;
    /// SetGid: no VLAN.
    pub const GID_NO_VLAN: u16 = 0xffff;
}
