//! Event queues: events from the device to the kernel driver, one ring per interrupt vector.

constants! { EVENT_TYPES, "Event types":
    /// A completion queue that was armed has a completion; `number`: CQN.
    pub const EVENT_COMPLETION: u8 = 1;
    /// Something happened to a queue pair; `number`: QPN, `code`: QP_EVENT_*.
    pub const EVENT_QP: u8 = 2;
    /// A completion queue overran or its memory is gone; `number`: CQN.
    pub const EVENT_CQ_ERROR: u8 = 3;
    /// Reserved: a device that has failed says so in REG_STATUS.
    pub const EVENT_DEVICE_FATAL: u8 = 4;
    /// An access hit a hole; `number`: the region's key, `code`: FAULT_WRITE or 0, and `address`, `length`, `token`.
    pub const EVENT_PAGE_FAULT: u8 = 5;
    /// Something happened to a shared receive queue; `number`: SRQN, `code`: SRQ_EVENT_*.
    pub const EVENT_SRQ: u8 = 6;
    /// Page fault: the access is a write.
    pub const FAULT_WRITE: u8 = 1;
    /// Shared receive queue event: fewer receive requests are left than the armed limit.
    pub const SRQ_EVENT_LIMIT_REACHED: u8 = 1;
    /// Shared receive queue event: its ring or record cannot be used.
    pub const SRQ_EVENT_ERROR: u8 = 2;
    /// Queue pair event: moved to the error state by a fatal local error.
    pub const QP_EVENT_FATAL: u8 = 1;
    /// Queue pair event: a remote request was invalid.
    pub const QP_EVENT_REQUEST_ERROR: u8 = 2;
    /// Queue pair event: a remote request broke the protection rules.
    pub const QP_EVENT_ACCESS_ERROR: u8 = 3;
    /// Queue pair event: the first message arrived while in RTR.
    pub const QP_EVENT_COMMUNICATION_ESTABLISHED: u8 = 4;
    /// Queue pair event: the send queue is drained (SQD).
    pub const QP_EVENT_SQ_DRAINED: u8 = 5;
    /// Queue pair event: in ERR, it takes nothing more from its shared receive queue.
    pub const QP_EVENT_LAST_WQE_REACHED: u8 = 6;
    /// Bytes of an event queue entry.
    pub const EQE_SIZE: u32 = 64;
    /// log2 of the largest event ring.
    pub const MAX_LOG_EQES: u32 = 16;
}

layouts! { EVENT_LAYOUTS:
    /// An event. The device writes `owner` last. A full ring loses no event: events are held back, and written
    /// when the consumer index moves.
    pub struct Eqe[64] {
        /// EVENT_*.
        pub kind: u8,
        /// Code of the kind.
        pub code: u8,
        /// Zero.
        pub reserved0: [u8; 2],
        /// Object number.
        pub number: u32,
        /// Device clock when the event was written.
        pub timestamp_ns: u64,
        /// Page fault: the first address that is missing, as the request names it.
        pub address: u64,
        /// Page fault: bytes from there on that the request also needs.
        pub length: u32,
        /// Page fault: names it in the answer; not zero.
        pub token: u32,
        /// Zero.
        pub reserved1: [u64; 3],
        /// Zero.
        pub reserved2: u32,
        /// OWNER_PHASE, as in completion queues.
        pub owner: u32,
    }
}
