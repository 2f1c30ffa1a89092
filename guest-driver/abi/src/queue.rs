//! Rings in guest memory: send, receive and completion queues, and their doorbell records.
//!
//! Indices are free-running 32-bit counters; the slot is the index modulo the (power of two) ring size. The
//! buffer of a queue pair is page aligned and holds, in this order: the send ring, the receive ring, and the
//! doorbell record at the offset given when it is created.

use crate::codes::{Opcode, WcStatus};

constants! { QUEUE_SIZES, "Rings":
    /// Bytes of a send queue entry.
    pub const SQ_WQE_SIZE: u32 = 256;
    /// Bytes of a receive queue entry.
    pub const RQ_WQE_SIZE: u32 = 256;
    /// First bytes of a send or receive queue entry: the device reads the rest only if its data goes beyond them.
    pub const WQE_HEAD_SIZE: u32 = 128;
    /// Bytes of a completion queue entry.
    pub const CQE_SIZE: u32 = 64;
    /// Most scatter/gather elements of one request.
    pub const MAX_SGE: u32 = 12;
    /// Most bytes of inline data in one request.
    pub const MAX_INLINE: u32 = 192;
    /// log2 of the largest send or receive ring.
    pub const MAX_LOG_WQES: u32 = 14;
    /// log2 of the largest completion ring.
    pub const MAX_LOG_CQES: u32 = 22;
}

flags! { WQE_FLAGS, "Send request flags":
    /// How a send request is executed, and where its data is.
    pub struct WqeFlags(u8) {
        /// Report success too; failures are always reported.
        WQE_SIGNALED = 1 << 0;
        /// The receiver's completion counts as solicited.
        WQE_SOLICITED = 1 << 1;
        /// Start only when all earlier reads and atomics of this queue pair are complete.
        WQE_FENCE = 1 << 2;
        /// The data is in the request itself: `inline_length` bytes in place of the scatter/gather list.
        WQE_INLINE = 1 << 3;
    }
}

flags! { CQE_FLAGS, "Completion flags":
    /// What a completion reports besides its status.
    pub struct CqeFlags(u8) {
        /// `imm` is valid.
        CQE_WITH_IMM = 1 << 0;
        /// Completion of a receive request; otherwise of a send request.
        CQE_RECEIVE = 1 << 1;
        /// Solicited.
        CQE_SOLICITED = 1 << 2;
        /// UD: the first 40 bytes of the receive request's memory hold a GRH; without it they are left as they were.
        CQE_GRH = 1 << 3;
        /// UD on RoCE: it came by IPv4, whose header is in the last 20 of these 40 bytes.
        CQE_IPV4 = 1 << 4;
        /// UD on RoCE: `vlan` is valid.
        CQE_VLAN = 1 << 5;
        /// `imm` is a key of the receiver, which was invalidated.
        CQE_INVALIDATED = 1 << 6;
    }
}

constants! { OWNER:
    /// In `owner`: the phase. The first pass over the ring writes 1, the second 0, and so on.
    pub const OWNER_PHASE: u32 = 1 << 0;
}

layouts! { QUEUE_LAYOUTS:
    /// One piece of a request's local memory.
    pub struct Sge[16] {
        /// Virtual address in the memory region.
        pub addr: u64,
        /// Bytes.
        pub length: u32,
        /// Key of the memory region.
        pub lkey: u32,
    }

    /// A request in a send queue.
    pub struct SqWqe[256] {
        /// OP_*.
        pub opcode: Opcode,
        /// WQE_*.
        pub flags: WqeFlags,
        /// Elements of `sge` in use, at most MAX_SGE; 0 for inline data.
        pub num_sge: u8,
        /// Zero.
        pub reserved0: u8,
        /// Immediate data, passed on unchanged; for a FLUSH, FLUSH_* bits; the key to invalidate.
        pub imm: u32,
        /// Given back in the completion.
        pub wr_id: u64,
        /// RDMA and atomics: address in the remote region. UD on RoCE: the MAC address of the next hop in bytes 0..6, the
        /// index of the own GID in byte 6, the hop limit in byte 7.
        pub remote_addr: u64,
        /// RDMA and atomics: key of the remote region. UD on RoCE: flow label in bits 19:0, traffic class in bits 27:20.
        pub rkey: u32,
        /// Inline data: its length, at most MAX_INLINE.
        pub inline_length: u32,
        /// Compare-and-swap: the value expected; fetch-and-add: the value to add; FLUSH of a range: its length. UD with
        /// a GRH: bytes 0..8 of the destination's GID, in the order of the wire.
        pub compare_add: u64,
        /// Compare-and-swap: the value to put. UD with a GRH: bytes 8..16 of the destination's GID.
        pub swap: u64,
        /// UD: destination.
        pub dest_qpn: u32,
        /// UD: the Q_Key that the destination must have; with bit 31 set, the sender's own is used.
        pub qkey: u32,
        /// UD: the destination's LID.
        pub dest_lid: u16,
        /// UD: service level.
        pub sl: u8,
        /// UD: 1 if the destination's GID counts, and a GRH is sent. On RoCE it must be 1.
        pub has_grh: u8,
        /// UD on RoCE: UDP source port.
        pub source_port: u16,
        /// Zero.
        pub reserved1: u16,
        /// Scatter/gather list; with WQE_INLINE the bytes themselves.
        pub sge: [Sge; 12],
    }

    /// A request in a receive queue.
    pub struct RqWqe[256] {
        /// Given back in the completion.
        pub wr_id: u64,
        /// Elements of `sge` in use, at most MAX_SGE.
        pub num_sge: u32,
        /// Zero.
        pub reserved0: u32,
        /// Where the message goes.
        pub sge: [Sge; 12],
        /// Zero.
        pub reserved1: [u64; 6],
    }

    /// A completion. The device writes `owner` last, so an entry whose phase fits is whole.
    pub struct Cqe[64] {
        /// From the request.
        pub wr_id: u64,
        /// Device clock when the completion was written.
        pub timestamp_ns: u64,
        /// Queue pair the request belongs to.
        pub qpn: u32,
        /// Queue pair the message came from; receive completions.
        pub src_qpn: u32,
        /// Bytes received, read or fetched.
        pub byte_len: u32,
        /// Immediate data, with CQE_WITH_IMM.
        pub imm: u32,
        /// Free-running index of the request in its ring: all slots up to it are free.
        pub wqe_index: u32,
        /// Diagnosis of a failure: CAUSE_*.
        pub vendor_error: u32,
        /// WC_* status.
        pub status: WcStatus,
        /// OP_* of the request (send), or of the message that arrived (receive).
        pub opcode: Opcode,
        /// CQE_*.
        pub flags: CqeFlags,
        /// UD: service level of the datagram.
        pub sl: u8,
        /// UD: LID that the datagram came from.
        pub src_lid: u16,
        /// UD on RoCE: tag of the VLAN that the datagram came through, with CQE_VLAN.
        pub vlan: u16,
        /// Zero.
        pub reserved1: [u32; 3],
        /// OWNER_PHASE.
        pub owner: u32,
    }

    /// Doorbell record of a queue pair, written by the driver but for one word.
    pub struct QpDoorbellRecord[128] {
        /// Send producer index.
        pub sq_producer: u32,
        /// Zero: the two indices lie in cache lines of their own.
        pub reserved0: [u32; 15],
        /// Receive producer index.
        pub rq_producer: u32,
        /// The device writes 1 in ERR: receive requests need the send doorbell from now on, to be flushed.
        pub in_error: u32,
        /// Zero.
        pub reserved1: [u32; 14],
    }

    /// Doorbell record of a shared receive queue.
    pub struct SrqDoorbellRecord[128] {
        /// Producer index, written by the driver.
        pub producer: u32,
        /// Zero: the two indices lie in cache lines of their own.
        pub reserved0: [u32; 15],
        /// Consumer index, written by the device: entries before it were taken, and may be overwritten.
        pub consumer: u32,
        /// Zero.
        pub reserved1: [u32; 15],
    }

    /// Doorbell record of a completion queue, written by the driver.
    pub struct CqDoorbellRecord[64] {
        /// Consumer index: entries before it may be overwritten.
        pub consumer: u32,
        /// Zero.
        pub reserved0: [u32; 15],
    }
}
