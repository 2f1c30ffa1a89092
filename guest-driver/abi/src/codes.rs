//! Operations, statuses and states. Work completion statuses and access rights have the numbers of
//! `ibv_wc_status` and `ibv_access_flags`, states those of `ibv_qp_state`.

codes! { OPERATIONS, "Operations":
    /// Operation of a request, or of the message that a completion reports.
    pub struct Opcode(u8) {
        /// SEND.
        OP_SEND = 0;
        /// SEND with immediate.
        OP_SEND_IMM = 1;
        /// RDMA WRITE.
        OP_RDMA_WRITE = 2;
        /// RDMA WRITE with immediate.
        OP_RDMA_WRITE_IMM = 3;
        /// RDMA READ.
        OP_RDMA_READ = 4;
        /// Compare and swap, 8 bytes.
        OP_COMPARE_SWAP = 5;
        /// Fetch and add, 8 bytes.
        OP_FETCH_ADD = 6;
        /// FLUSH: what was written to a range, or to a whole region, is visible or persistent.
        OP_FLUSH = 7;
        /// ATOMIC WRITE, 8 bytes.
        OP_ATOMIC_WRITE = 8;
        /// SEND that has the receiver invalidate a key.
        OP_SEND_INVALIDATE = 9;
        /// Registers memory with a region of mode MR_FAST, which is not valid until then: the region has the address
        /// `remote_addr`, `compare_add` bytes, the rights `imm`, and the key `rkey`, of which the low 8 bits may be new;
        /// its first byte is at `swap` in the first page of its table.
        OP_REGISTER = 10;
        /// Invalidates a region of mode MR_FAST, whose key is `imm`: once completed, no access through it is in flight.
        OP_LOCAL_INVALIDATE = 11;
    }
}

codes! { WC_STATUSES, "Work completion status":
    /// Status of a completion, `ibv_wc_status`.
    pub struct WcStatus(u8) {
        /// Success.
        WC_SUCCESS = 0;
        /// Local length error.
        WC_LOC_LEN_ERR = 1;
        /// Local queue pair operation error: the request itself is malformed.
        WC_LOC_QP_OP_ERR = 2;
        /// Local protection error.
        WC_LOC_PROT_ERR = 4;
        /// Flushed because the queue pair is in the error state.
        WC_WR_FLUSH_ERR = 5;
        /// Local access error.
        WC_LOC_ACCESS_ERR = 8;
        /// Remote invalid request error.
        WC_REM_INV_REQ_ERR = 9;
        /// Remote access error.
        WC_REM_ACCESS_ERR = 10;
        /// Remote operation error.
        WC_REM_OP_ERR = 11;
        /// Transport retries exceeded: the peer does not answer.
        WC_RETRY_EXC_ERR = 12;
        /// Receiver-not-ready retries exceeded.
        WC_RNR_RETRY_EXC_ERR = 13;
    }
}

constants! { FLUSH, "FLUSH: placement in bits 7:0 of `imm`, selectivity in bits 15:8":
    /// Placement: globally visible (ACCESS_FLUSH_GLOBAL).
    pub const FLUSH_GLOBAL: u32 = 1 << 0;
    /// Placement: survives the machine (ACCESS_FLUSH_PERSISTENT).
    pub const FLUSH_PERSISTENT: u32 = 1 << 1;
    /// Selectivity: the range named by the request; without it the whole region is meant.
    pub const FLUSH_RANGE: u32 = 1 << 8;
}

constants! { CAUSES, "Vendor error: why an access failed":
    /// No further cause.
    pub const CAUSE_NONE: u32 = 0;
    /// The key names no region, or one of another protection domain.
    pub const CAUSE_KEY: u32 = 1;
    /// Outside the region.
    pub const CAUSE_BOUNDS: u32 = 2;
    /// The region does not allow it.
    pub const CAUSE_RIGHTS: u32 = 3;
    /// The region was revoked.
    pub const CAUSE_REVOKED: u32 = 4;
    /// The kernel answered the page request with "invalid request", or the driver the fault with FAULT_REFUSED.
    pub const CAUSE_PAGE_REFUSED: u32 = 5;
    /// The operating system answered with "response failure".
    pub const CAUSE_PAGE_FAILURE: u32 = 6;
    /// No answer to the page request, or to the page fault, in time.
    pub const CAUSE_PAGE_TIMEOUT: u32 = 7;
    /// Answered with success too often, and still missing.
    pub const CAUSE_PAGE_RETRIES: u32 = 8;
    /// The IOMMU blocked the access, or bus mastering, PASID or ATS is off.
    pub const CAUSE_BLOCKED: u32 = 9;
    /// Translated to something that is not memory.
    pub const CAUSE_NOT_MEMORY: u32 = 10;
    /// Atomic operand not aligned to 8 bytes.
    pub const CAUSE_ALIGNMENT: u32 = 11;
    /// The memory is not persistent, or could not be written to the host's storage.
    pub const CAUSE_NOT_PERSISTENT: u32 = 12;
}

flags! { ACCESS, "Access rights":
    /// What a region, or a queue pair, allows; of a request, what it needs.
    pub struct AccessRights(u32) {
        /// The device may write locally; local reads are always allowed.
        ACCESS_LOCAL_WRITE = 1 << 0;
        /// Remote writes.
        ACCESS_REMOTE_WRITE = 1 << 1;
        /// Remote reads.
        ACCESS_REMOTE_READ = 1 << 2;
        /// Remote atomics.
        ACCESS_REMOTE_ATOMIC = 1 << 3;
        /// Remote FLUSH with placement FLUSH_GLOBAL.
        ACCESS_FLUSH_GLOBAL = 1 << 8;
        /// Remote FLUSH with placement FLUSH_PERSISTENT.
        ACCESS_FLUSH_PERSISTENT = 1 << 9;
    }
}

codes! { QP_TYPES, "Queue pair types":
    /// Transport of a queue pair.
    pub struct QpKind(u8) {
        /// Reliable connection.
        QPT_RC = 0;
        /// Unreliable datagram.
        QPT_UD = 1;
        /// Unreliable datagrams to and from QPN 1: the general services interface. One for each device.
        QPT_GSI = 2;
        /// Ethernet frames, as they are: all that arrive but are not RoCE. One for each device.
        QPT_ETHERNET = 3;
    }
}

codes! { QP_STATES, "Queue pair states":
    /// State of a queue pair, `ibv_qp_state`.
    pub struct QpState(u8) {
        /// RESET.
        QPS_RESET = 0;
        /// INIT.
        QPS_INIT = 1;
        /// Ready to receive.
        QPS_RTR = 2;
        /// Ready to send.
        QPS_RTS = 3;
        /// Send queue drained.
        QPS_SQD = 4;
        /// Send queue error: a request of a UD queue pair failed.
        QPS_SQE = 5;
        /// Error.
        QPS_ERR = 6;
    }
}
