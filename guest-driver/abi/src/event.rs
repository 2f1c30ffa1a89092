//! Event queues: what the device tells the kernel driver, one ring per interrupt vector.

constants! { EVENT_TYPES, "Event types":
    /// A completion queue that was armed has a completion; `number`: CQN.
    pub const EVENT_COMPLETION: u8 = 1;
    /// Something happened to a queue pair; `number`: QPN, `code`: QP_EVENT_*.
    pub const EVENT_QP: u8 = 2;
    /// A completion queue overran or its memory is gone; `number`: CQN.
    pub const EVENT_CQ_ERROR: u8 = 3;
    /// The device gave up; reset it.
    pub const EVENT_DEVICE_FATAL: u8 = 4;
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
    /// Bytes of an event queue entry.
    pub const EQE_SIZE: u32 = 32;
    /// log2 of the largest event ring.
    pub const MAX_LOG_EQES: u32 = 16;
}

layouts! { EVENT_LAYOUTS:
    /// An event. The device writes `owner` last. A ring that is full loses no completion event: it is sent
    /// again when the consumer index moves.
    pub struct Eqe[32] {
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
        /// Zero.
        pub reserved1: [u32; 3],
        /// OWNER_PHASE, as in completion queues.
        pub owner: u32,
    }
}
