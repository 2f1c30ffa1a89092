//! What the kernel module and the libibverbs provider exchange in the driver-specific parts of uverbs commands.

layouts! { UVERBS_LAYOUTS:
    /// Answer to opening a context.
    pub struct UverbsContext[32] {
        /// Offset to mmap() for the doorbell page.
        pub doorbell_offset: u64,
        /// Bytes of it.
        pub doorbell_length: u32,
        /// UVERBS_CONTEXT_* bits.
        pub flags: u32,
        /// PASID of the process, if it has one.
        pub pasid: u32,
        /// Zero.
        pub reserved0: u32,
        /// Zero.
        pub reserved1: u64,
    }

    /// Request for a completion queue: its memory, as in CreateCq.
    pub struct UverbsCreateCq[32] {
        /// Address of the ring in the process, page aligned.
        pub buffer: u64,
        /// Bytes.
        pub length: u64,
        /// Bytes from the start to the doorbell record.
        pub record_offset: u32,
        /// log2 of its entries.
        pub log_size: u32,
        /// Zero.
        pub reserved: u64,
    }

    /// Answer to it.
    pub struct UverbsCq[8] {
        /// Number of the completion queue.
        pub cqn: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// Request for a queue pair: its memory, as in CreateQp.
    pub struct UverbsCreateQp[40] {
        /// Address of the rings in the process, page aligned.
        pub buffer: u64,
        /// Bytes.
        pub length: u64,
        /// Bytes from the start to the receive ring.
        pub rq_offset: u32,
        /// Bytes from the start to the doorbell record.
        pub record_offset: u32,
        /// log2 of the send ring's entries.
        pub log_sq: u32,
        /// log2 of the receive ring's entries.
        pub log_rq: u32,
        /// Zero.
        pub reserved: u64,
    }

    /// Request for a shared receive queue: its memory, as in CreateSrq.
    pub struct UverbsCreateSrq[32] {
        /// Address of the ring in the process, page aligned.
        pub buffer: u64,
        /// Bytes.
        pub length: u64,
        /// Bytes from the start to the doorbell record.
        pub record_offset: u32,
        /// log2 of its entries.
        pub log_size: u32,
        /// Zero.
        pub reserved: u64,
    }

    /// Answer to it.
    pub struct UverbsSrq[8] {
        /// Number of the shared receive queue.
        pub srqn: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// Answer to a request for an address handle, on RoCE: what the kernel resolved. Zero on InfiniBand.
    pub struct UverbsAh[16] {
        /// MAC address of the next hop.
        pub dmac: [u8; 6],
        /// Own GID.
        pub sgid_index: u8,
        /// Hop limit.
        pub hop_limit: u8,
        /// UDP source port.
        pub source_port: u16,
        /// Zero.
        pub reserved0: u16,
        /// Zero.
        pub reserved1: u32,
    }

    /// Answer to a request for a queue pair.
    pub struct UverbsQp[8] {
        /// Number of the queue pair.
        pub qpn: u32,
        /// Zero.
        pub reserved: u32,
    }
}

constants! { UVERBS_FLAGS, "Context flags":
    /// The context is bound to the process' PASID.
    pub const UVERBS_CONTEXT_PASID: u32 = 1 << 0;
    /// ABI version that provider and module must share (ib_device_ops.uverbs_abi_ver).
    pub const UVERBS_ABI_VERSION: u32 = 4;
    /// Optional access flag of an on-demand region: translate it by its own table (MR_ODP).
    pub const UVERBS_ACCESS_ODP: u32 = 1 << 28;
    /// Optional access flag of an on-demand region: translate it in the process' address space (MR_PASID).
    pub const UVERBS_ACCESS_PASID: u32 = 1 << 29;
}
