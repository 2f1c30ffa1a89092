//! Work requests, completions and events as records, without a layout.
//!
//! A front end decodes the requests of its rings into these, and encodes completions and events from them; the
//! engine knows no other form.

use refault_abi::codes::{
    ACCESS_FLUSH_GLOBAL, ACCESS_FLUSH_PERSISTENT, ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC,
    ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights, WcStatus,
};
use refault_abi::event::{QpEvent, SrqEvent};
use refault_bus::bits::low_u8;

use crate::cause::Cause;

/// What a request registers with a region (InfiniBand 1.4, 10.6.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The region's key from now on: of the same slot as its present one.
    pub(crate) key: u32,
    /// First address, as requests name it.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// Where in the first page of the table it begins.
    pub(crate) first_offset: u32,
    pub(crate) access: AccessRights,
}

/// Longest message in bytes: InfiniBand's limit.
pub(crate) const MAX_MESSAGE: u64 = 1 << 31;
/// Most scatter/gather elements of a request.
pub(crate) const MAX_PIECES: usize = 12;
/// Most bytes of inline data.
pub(crate) const MAX_INLINE_BYTES: usize = 192;

/// Rights that the device knows: to write locally, and those that its operations need. Regions and queue pairs
/// have no others, even if drivers have names for some.
pub(crate) const SUPPORTED_RIGHTS: AccessRights = ACCESS_LOCAL_WRITE
    .union(ACCESS_REMOTE_WRITE)
    .union(ACCESS_REMOTE_READ)
    .union(ACCESS_REMOTE_ATOMIC)
    .union(ACCESS_FLUSH_GLOBAL)
    .union(ACCESS_FLUSH_PERSISTENT);

/// Which end of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// The requester's own memory.
    #[default]
    Local,
    /// The responder's memory.
    Remote,
}

/// A scatter/gather element: a piece of a memory region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// As the region counts addresses.
    pub(crate) addr: u64,
    /// Bytes.
    pub(crate) length: u32,
    /// lkey, or rkey of a remote piece.
    pub(crate) key: u32,
}

/// A scatter/gather list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    list: [Piece; MAX_PIECES],
    count: u8,
}

impl Pieces {
    /// An empty list.
    pub(crate) const NONE: Self = Self { list: [Piece { addr: 0, length: 0, key: 0 }; MAX_PIECES], count: 0 };

    /// Fills the list; `false` if the pieces are too many.
    pub(crate) fn fill(&mut self, pieces: impl ExactSizeIterator<Item = Piece>) -> bool {
        let fits = pieces.len() <= MAX_PIECES;
        if fits {
            self.count = low_u8(pieces.len() as u64);
            self.list.iter_mut().zip(pieces).for_each(|(to, piece)| *to = piece);
        }
        fits
    }

    /// Bytes of all pieces.
    pub(crate) fn bytes(&self) -> u64 {
        self.iter().map(|piece| u64::from(piece.length)).sum()
    }
}

impl std::ops::Deref for Pieces {
    type Target = [Piece];

    fn deref(&self) -> &[Piece] {
        &self.list[..usize::from(self.count)]
    }
}

/// The data of a send request at the requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// In memory.
    Pieces(Pieces),
    /// In the request itself: the first `length` bytes, the length of the request.
    Inline([u8; MAX_INLINE_BYTES]),
}

impl Data {
    /// Makes it a list of these pieces, in the place of an earlier list if it is one.
    pub(crate) fn fill(&mut self, list: impl ExactSizeIterator<Item = Piece>) {
        if let Self::Pieces(pieces) = self {
            pieces.fill(list);
        } else {
            let mut pieces = Pieces::NONE;
            pieces.fill(list);
            *self = Self::Pieces(pieces);
        }
    }
}

/// What a send request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// SEND, with or without immediate data.
    Send,
    /// RDMA WRITE.
    Write,
    /// RDMA WRITE that also consumes a receive request.
    WriteImm,
    /// RDMA READ.
    Read,
    /// Compare and swap (InfiniBand 1.4, 9.4.5).
    CompareSwap { expected: u64, new: u64 },
    /// Fetch and add (InfiniBand 1.4, 9.4.5).
    FetchAdd { addend: u64 },
    /// FLUSH (InfiniBand 1.5, annex A19).
    Flush(Flush),
    /// ATOMIC WRITE (InfiniBand 1.5, annex A19).
    AtomicWrite,
    /// Makes a region valid: [`SendRequest::registration`]. Nothing is sent.
    Register { length: u64, first_offset: u32, access: AccessRights },
    /// Makes a region invalid; nothing is sent.
    Invalidate { key: u32 },
}

/// What a FLUSH asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flush {
    /// The data must be visible to all of the responder's machine.
    pub(crate) global: bool,
    /// The data must survive the responder's machine.
    pub(crate) persistent: bool,
    /// The whole region, whatever address and length say.
    pub(crate) whole_region: bool,
}

impl Operation {
    /// Whether it fetches data into local memory.
    pub(crate) const fn fetches(self) -> bool {
        matches!(self, Self::Read | Self::CompareSwap { .. } | Self::FetchAdd { .. })
    }

    /// Whether it writes memory at that end.
    pub(crate) const fn writes(self, end: End) -> bool {
        match end {
            End::Local => self.fetches(),
            End::Remote => {
                !matches!(self, Self::Read | Self::Flush(_) | Self::Register { .. } | Self::Invalidate { .. })
            }
        }
    }

    /// Whether it concerns regions of the requester alone.
    pub(crate) const fn is_local(self) -> bool {
        matches!(self, Self::Register { .. } | Self::Invalidate { .. })
    }

    /// Whether it is about one word of 8 bytes.
    pub(crate) const fn is_word(self) -> bool {
        matches!(self, Self::CompareSwap { .. } | Self::FetchAdd { .. } | Self::AtomicWrite)
    }

    /// ACCESS_* that the remote region must allow.
    pub(crate) const fn remote_rights(self) -> AccessRights {
        match self {
            Self::Send | Self::Register { .. } | Self::Invalidate { .. } => AccessRights::NONE,
            Self::Write | Self::WriteImm | Self::AtomicWrite => ACCESS_REMOTE_WRITE,
            Self::Read => ACCESS_REMOTE_READ,
            Self::CompareSwap { .. } | Self::FetchAdd { .. } => ACCESS_REMOTE_ATOMIC,
            Self::Flush(Flush { global, persistent, .. }) => {
                let none = AccessRights::NONE;
                let global = if global { ACCESS_FLUSH_GLOBAL } else { none };
                global.union(if persistent { ACCESS_FLUSH_PERSISTENT } else { none })
            }
        }
    }
}

/// What a packet on Ethernet needs besides the receiver's GID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// MAC address of the next hop.
    pub(crate) dmac: [u8; 6],
    /// Own GID.
    pub(crate) sgid_index: u8,
    /// Zero: the port's choice.
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// UDP port of the sender.
    pub(crate) source_port: u16,
    /// 20 bits.
    pub(crate) flow_label: u32,
}

impl Path {
    /// No path.
    pub(crate) const NONE: Self =
        Self { dmac: [0; 6], sgid_index: 0, hop_limit: 0, traffic_class: 0, source_port: 0, flow_label: 0 };
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) qpn: u32,
    pub(crate) qkey: u32,
    pub(crate) lid: u16,
    /// Service level.
    pub(crate) sl: u8,
    /// A GRH is sent, and the GID must be the destination's.
    pub(crate) has_grh: bool,
    pub(crate) gid: [u8; 16],
    /// Ethernet only.
    pub(crate) path: Path,
}

/// A send request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendRequest {
    /// Given back in the completion.
    pub(crate) id: u64,
    /// The front end's own code of the operation: given back in completions.
    pub(crate) opcode: u8,
    pub(crate) operation: Operation,
    /// Success is reported too.
    pub(crate) signaled: bool,
    /// The receiver's completion counts as solicited.
    pub(crate) solicited: bool,
    /// It waits for the READs and atomics before it.
    pub(crate) fence: bool,
    pub(crate) immediate: Option<u32>,
    /// A SEND: a key that the receiver is to invalidate.
    pub(crate) invalidate: Option<u32>,
    /// Bytes of the message.
    pub(crate) length: u32,
    pub(crate) data: Data,
    /// RDMA, atomics and FLUSH: the remote memory, as long as the message.
    pub(crate) remote_addr: u64,
    pub(crate) rkey: u32,
    /// Datagrams only.
    pub(crate) destination: Destination,
}

impl SendRequest {
    /// No request: an empty message.
    pub(crate) const NONE: Self = Self {
        id: 0,
        opcode: 0,
        operation: Operation::Send,
        signaled: false,
        solicited: false,
        fence: false,
        immediate: None,
        invalidate: None,
        length: 0,
        data: Data::Pieces(Pieces::NONE),
        remote_addr: 0,
        rkey: 0,
        destination: Destination {
            qpn: 0,
            qkey: 0,
            lid: 0,
            sl: 0,
            has_grh: false,
            gid: [0; 16],
            path: Path::NONE,
        },
    };

    /// A request that is not executed: it only completes, with an error.
    pub(crate) fn unexecuted(id: u64, opcode: u8) -> Self {
        Self { id, opcode, ..Self::NONE }
    }

    /// The scatter/gather list; empty for inline data.
    pub(crate) fn pieces(&self) -> &[Piece] {
        match &self.data {
            Data::Pieces(pieces) => pieces,
            Data::Inline(_) => &[],
        }
    }

    /// Inline data, if the request has it.
    pub(crate) fn inline(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Pieces(_) => None,
            Data::Inline(bytes) => bytes.get(..self.length as usize),
        }
    }

    /// What it registers, if it does.
    pub(crate) fn registration(&self) -> Option<Registration> {
        let Operation::Register { length, first_offset, access } = self.operation else { return None };
        Some(Registration { key: self.rkey, start: self.remote_addr, length, first_offset, access })
    }

    /// The remote memory as a piece.
    pub(crate) fn remote(&self) -> Piece {
        Piece { addr: self.remote_addr, length: self.length, key: self.rkey }
    }
}

/// A receive request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveRequest {
    /// Given back in the completion.
    pub(crate) id: u64,
    /// Where the message goes; `None` if the request is malformed.
    pub(crate) pieces: Option<Pieces>,
}

/// The end of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    /// From the request.
    pub(crate) id: u64,
    /// Free-running index of the request in its ring.
    pub(crate) index: u32,
    /// Queue pair of the request.
    pub(crate) qpn: u32,
    /// Receive: queue pair that the message came from.
    pub(crate) src_qpn: u32,
    /// Bytes received, read or fetched.
    pub(crate) length: u32,
    /// WC_*.
    pub(crate) status: WcStatus,
    /// Diagnosis of a failure.
    pub(crate) cause: Option<Cause>,
    /// Of the request, or of the message that arrived: [`SendRequest::opcode`].
    pub(crate) opcode: u8,
    pub(crate) immediate: Option<u32>,
    /// A key of the receiver that was made invalid.
    pub(crate) invalidated: Option<u32>,
    /// Of a receive request.
    pub(crate) is_receive: bool,
    pub(crate) solicited: bool,
    /// Datagrams: a GRH lies before the payload.
    pub(crate) with_grh: bool,
    /// Datagrams on Ethernet: it came by IPv4.
    pub(crate) by_ipv4: bool,
    /// Datagrams on Ethernet: the tag of its VLAN.
    pub(crate) vlan: Option<u16>,
    /// Datagrams: service level and LID of the sender.
    pub(crate) sl: u8,
    pub(crate) src_lid: u16,
    /// Device clock.
    pub(crate) timestamp_ns: u64,
}

/// An asynchronous event, or the notification of a completion queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// An armed completion queue has a completion.
    Completion { cqn: u32 },
    /// A completion queue overran, or its memory is gone.
    CqError { cqn: u32 },
    /// QP_EVENT_* of a queue pair (InfiniBand 1.4, 11.6.3).
    QueuePair { qpn: u32, code: QpEvent },
    /// SRQ_EVENT_* of a shared receive queue.
    SharedQueue { srqn: u32, code: SrqEvent },
    /// A page of an on-demand region is missing.
    PageFault(PageFault),
    /// The port's signal has come or gone.
    Port { up: bool },
}

/// A page fault of an on-demand region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PageFault {
    pub(crate) key: u32,
    /// First address that is missing.
    pub(crate) address: u64,
    /// Bytes from there on that the request needs too.
    pub(crate) length: u32,
    pub(crate) write: bool,
    /// Names the fault in its answer; not zero.
    pub(crate) token: u32,
}
