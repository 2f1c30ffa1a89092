use refault_roce::{Feth, Mtu, Operation};

/// A request as its queue pair has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub verb: Verb,
    /// Bytes that are sent, read or flushed; 8 for atomics.
    pub length: u32,
    /// The receiver's completion counts for a completion queue armed for such ones.
    pub solicited: bool,
    /// Wait for READs and atomics before it.
    pub fence: bool,
}

/// What a request does, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A message for the next receive request.
    Send {
        /// Immediate data.
        immediate: Option<[u8; 4]>,
    },
    /// The same, and a key of the receiver to invalidate.
    SendInvalidate {
        /// The key.
        key: u32,
    },
    /// RDMA WRITE.
    Write {
        /// Virtual address.
        address: u64,
        /// R_Key.
        key: u32,
        /// Immediate data, for the next receive request.
        immediate: Option<[u8; 4]>,
    },
    /// RDMA READ.
    Read {
        /// Virtual address.
        address: u64,
        /// R_Key.
        key: u32,
    },
    /// Atomic compare and swap.
    CompareSwap {
        /// Virtual address.
        address: u64,
        /// R_Key.
        key: u32,
        /// What to compare with.
        compare: u64,
        /// What to write if that is there.
        swap: u64,
    },
    /// Atomic fetch and add.
    FetchAdd {
        /// Virtual address.
        address: u64,
        /// R_Key.
        key: u32,
        /// What to add.
        add: u64,
    },
    /// FLUSH.
    Flush {
        /// Virtual address.
        address: u64,
        /// R_Key.
        key: u32,
        /// How much, and how far.
        flush: Feth,
    },
    /// ATOMIC WRITE of eight bytes.
    AtomicWrite {
        /// Virtual address.
        address: u64,
        /// R_Key.
        key: u32,
    },
}

impl Verb {
    /// Whether it has a response of its own, which later acknowledgements do not stand for.
    pub(crate) const fn has_response(self) -> bool {
        !matches!(self, Self::Send { .. } | Self::SendInvalidate { .. } | Self::Write { .. })
    }

    /// The operation of its last packet.
    pub(crate) const fn operation(self) -> Operation {
        match self {
            Self::Send { .. } => Operation::Send,
            Self::SendInvalidate { .. } => Operation::SendInvalidate,
            Self::Write { .. } => Operation::Write,
            Self::Read { .. } => Operation::ReadRequest,
            Self::CompareSwap { .. } => Operation::CompareSwap,
            Self::FetchAdd { .. } => Operation::FetchAdd,
            Self::Flush { .. } => Operation::Flush,
            Self::AtomicWrite { .. } => Operation::AtomicWrite,
        }
    }
}

impl Request {
    /// Sequence numbers that it takes: a READ takes those of its responses.
    pub(crate) const fn packets(&self, mtu: Mtu) -> u32 {
        match self.verb {
            Verb::Send { .. } | Verb::SendInvalidate { .. } | Verb::Write { .. } | Verb::Read { .. } => {
                mtu.packets(self.length)
            }
            _ => 1,
        }
    }
}
