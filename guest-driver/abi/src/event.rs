//! Event queues: events from the device to the kernel driver, one ring per interrupt vector.

codes! { EVENT_TYPES, "Event types":
    /// What an event is about.
    pub struct EventKind(u8) {
        /// A completion queue that was armed has a completion; `number`: CQN.
        EVENT_COMPLETION = 1;
        /// Something happened to a queue pair; `number`: QPN, `code`: QP_EVENT_*.
        EVENT_QP = 2;
        /// A completion queue overran or its memory is gone; `number`: CQN.
        EVENT_CQ_ERROR = 3;
        /// Reserved: a device that has failed says so in REG_STATUS.
        EVENT_DEVICE_FATAL = 4;
        /// An access hit a hole; `number`: the region's key, `code`: FAULT_WRITE or 0, and `address`, `length`, `token`.
        EVENT_PAGE_FAULT = 5;
        /// Something happened to a shared receive queue; `number`: SRQN, `code`: SRQ_EVENT_*.
        EVENT_SRQ = 6;
        /// The port's link came up or went down; `number`: 1, `code`: PORT_EVENT_*.
        EVENT_PORT = 7;
    }
}

constants! { FAULTS:
    /// Page fault: the access is a write.
    pub const FAULT_WRITE: u8 = 1;
}

codes! { SRQ_EVENTS:
    /// What happened to a shared receive queue: `code` of an EVENT_SRQ.
    pub struct SrqEvent(u8) {
        /// Shared receive queue event: fewer receive requests are left than the armed limit.
        SRQ_EVENT_LIMIT_REACHED = 1;
        /// Shared receive queue event: its ring or record cannot be used.
        SRQ_EVENT_ERROR = 2;
    }
}

codes! { QP_EVENTS:
    /// What happened to a queue pair: `code` of an EVENT_QP.
    pub struct QpEvent(u8) {
        /// Queue pair event: moved to the error state by a fatal local error.
        QP_EVENT_FATAL = 1;
        /// Queue pair event: a remote request was invalid.
        QP_EVENT_REQUEST_ERROR = 2;
        /// Queue pair event: a remote request broke the protection rules.
        QP_EVENT_ACCESS_ERROR = 3;
        /// Queue pair event: the first message arrived while in RTR.
        QP_EVENT_COMMUNICATION_ESTABLISHED = 4;
        /// Queue pair event: the send queue is drained (SQD).
        QP_EVENT_SQ_DRAINED = 5;
        /// Queue pair event: in ERR, it takes nothing more from its shared receive queue.
        QP_EVENT_LAST_WQE_REACHED = 6;
    }
}

codes! { PORT_EVENTS:
    /// What happened to the port: `code` of an EVENT_PORT.
    pub struct PortEvent(u8) {
        /// Port event: no signal.
        PORT_EVENT_DOWN = 0;
        /// Port event: there is a signal.
        PORT_EVENT_UP = 1;
    }
}

constants! { EVENT_SIZES:
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
        pub kind: EventKind,
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
