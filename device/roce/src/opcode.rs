//! Opcodes (IBTA volume 1, table 38; annex A19; Linux include/rdma/ib_pack.h).

/// Transport service of an opcode: its upper three bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Reliable connection.
    Rc,
    /// Unreliable connection.
    Uc,
    /// Unreliable datagram.
    Ud,
    /// Congestion notification of RoCE v2 (annex A17.9.3): not a service, but has an opcode.
    Congestion,
}

/// What a packet asks for or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Part of a message that a receive request takes.
    Send,
    /// The last part of one, which also invalidates a key.
    SendInvalidate,
    /// Part of an RDMA WRITE.
    Write,
    /// RDMA READ request.
    ReadRequest,
    /// Part of the answer to one. FLUSH and ATOMIC WRITE are answered by an empty one.
    ReadResponse,
    /// Acknowledgement, of any kind of [`Syndrome`](crate::Syndrome).
    Acknowledge,
    /// Answer to an atomic request.
    AtomicAcknowledge,
    /// Atomic compare and swap.
    CompareSwap,
    /// Atomic fetch and add.
    FetchAdd,
    /// FLUSH of what was written, to visibility or persistence.
    Flush,
    /// ATOMIC WRITE of eight bytes.
    AtomicWrite,
    /// Congestion notification.
    Congestion,
}

/// Place of a packet in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The first of several.
    First,
    /// Neither first nor last.
    Middle,
    /// The last of several.
    Last,
    /// The only one.
    Only,
}

impl Place {
    /// Of packet `index` out of `count`, which is not 0.
    #[must_use]
    pub const fn of(index: u32, count: u32) -> Self {
        match (index == 0, index + 1 == count) {
            (true, true) => Self::Only,
            (true, false) => Self::First,
            (false, true) => Self::Last,
            (false, false) => Self::Middle,
        }
    }

    /// Whether a message starts with such a packet.
    #[must_use]
    pub const fn begins(self) -> bool {
        matches!(self, Self::First | Self::Only)
    }

    /// Whether a message ends with such a packet.
    #[must_use]
    pub const fn ends(self) -> bool {
        matches!(self, Self::Last | Self::Only)
    }
}

/// An opcode that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opcode {
    service: Service,
    operation: Operation,
    place: Place,
    immediate: bool,
}

/// The opcodes of RC by their lower five bits. Those of the other services are a part of them.
const RC: [(u8, Operation, Place, bool); 25] = {
    use Operation::*;
    use Place::*;
    [
        (0x00, Send, First, false),
        (0x01, Send, Middle, false),
        (0x02, Send, Last, false),
        (0x03, Send, Last, true),
        (0x04, Send, Only, false),
        (0x05, Send, Only, true),
        (0x06, Write, First, false),
        (0x07, Write, Middle, false),
        (0x08, Write, Last, false),
        (0x09, Write, Last, true),
        (0x0a, Write, Only, false),
        (0x0b, Write, Only, true),
        (0x0c, ReadRequest, Only, false),
        (0x0d, ReadResponse, First, false),
        (0x0e, ReadResponse, Middle, false),
        (0x0f, ReadResponse, Last, false),
        (0x10, ReadResponse, Only, false),
        (0x11, Acknowledge, Only, false),
        (0x12, AtomicAcknowledge, Only, false),
        (0x13, CompareSwap, Only, false),
        (0x14, FetchAdd, Only, false),
        (0x16, SendInvalidate, Last, false),
        (0x17, SendInvalidate, Only, false),
        (0x1c, Flush, Only, false),
        (0x1d, AtomicWrite, Only, false),
    ]
};

const UC_BITS: u8 = 0x20;
const UD_BITS: u8 = 0x60;
const CONGESTION: u8 = 0x81;

impl Opcode {
    /// Congestion notification.
    pub const CONGESTION: Self = Self {
        service: Service::Congestion,
        operation: Operation::Congestion,
        place: Place::Only,
        immediate: false,
    };

    /// The opcode of these, if there is one.
    #[must_use]
    pub fn new(service: Service, operation: Operation, place: Place, immediate: bool) -> Option<Self> {
        let opcode = Self { service, operation, place, immediate };
        opcode.byte().map(|_| opcode)
    }

    /// The opcode of a byte, if there is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        let service = match byte & 0xe0 {
            0 => Service::Rc,
            UC_BITS => Service::Uc,
            UD_BITS => Service::Ud,
            _ if byte == CONGESTION => return Some(Self::CONGESTION),
            _ => return None,
        };
        let &(_, operation, place, immediate) = RC.iter().find(|(bits, ..)| *bits == byte & 0x1f)?;
        Self::new(service, operation, place, immediate)
    }

    /// Its byte on the wire.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        self.byte().unwrap_or_default()
    }

    /// `None` if there is no such opcode.
    fn byte(self) -> Option<u8> {
        let upper = match (self.service, self.operation) {
            (Service::Rc, _) => 0,
            (Service::Uc, Operation::Send | Operation::Write) => UC_BITS,
            (Service::Ud, Operation::Send) if self.place == Place::Only => UD_BITS,
            (Service::Congestion, Operation::Congestion) => return Some(CONGESTION),
            _ => return None,
        };
        let (_, operation, place, immediate) = (0, self.operation, self.place, self.immediate);
        RC.iter().find(|row| (row.1, row.2, row.3) == (operation, place, immediate)).map(|row| upper | row.0)
    }

    /// Its transport service.
    #[must_use]
    pub const fn service(self) -> Service {
        self.service
    }

    /// What it asks for or answers.
    #[must_use]
    pub const fn operation(self) -> Operation {
        self.operation
    }

    /// Its place in the message.
    #[must_use]
    pub const fn place(self) -> Place {
        self.place
    }

    /// Whether it brings immediate data.
    #[must_use]
    pub const fn has_immediate(self) -> bool {
        self.immediate
    }

    /// Whether a responder sends it.
    #[must_use]
    pub const fn is_response(self) -> bool {
        use Operation::{Acknowledge, AtomicAcknowledge, ReadResponse};
        matches!(self.operation, ReadResponse | Acknowledge | AtomicAcknowledge)
    }

    /// The headers that follow the base header.
    #[must_use]
    pub const fn headers(self) -> Headers {
        use Operation::*;
        let request = match self.operation {
            Write if self.place.begins() => Headers::RETH,
            ReadRequest | AtomicWrite => Headers::RETH,
            Flush => Headers::FETH.and(Headers::RETH),
            CompareSwap | FetchAdd => Headers::ATOMIC,
            ReadResponse if matches!(self.place, Place::Middle) => Headers::NONE,
            ReadResponse | Acknowledge => Headers::AETH,
            AtomicAcknowledge => Headers::AETH.and(Headers::ORIGINAL),
            SendInvalidate => Headers::INVALIDATE,
            Operation::Congestion => Headers::CONGESTION,
            Send | Write => Headers::NONE,
        };
        let datagram = if matches!(self.service, Service::Ud) { Headers::DETH } else { Headers::NONE };
        let immediate = if self.immediate { Headers::IMMEDIATE } else { Headers::NONE };
        request.and(datagram).and(immediate)
    }

    /// All opcodes.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).filter_map(Self::from_byte)
    }
}

/// A set of extended transport headers. On the wire they follow each other in the order of the constants here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers(u16);

impl Headers {
    /// No header.
    pub const NONE: Self = Self(0);
    /// Datagram header: Q_Key and source.
    pub const DETH: Self = Self(1);
    /// FLUSH header: selectivity and placement.
    pub const FETH: Self = Self(1 << 1);
    /// RDMA header: address, key and length.
    pub const RETH: Self = Self(1 << 2);
    /// Atomic header: address, key and operands.
    pub const ATOMIC: Self = Self(1 << 3);
    /// ACK header: syndrome and message sequence number.
    pub const AETH: Self = Self(1 << 4);
    /// Atomic ACK header: the value before.
    pub const ORIGINAL: Self = Self(1 << 5);
    /// Immediate data.
    pub const IMMEDIATE: Self = Self(1 << 6);
    /// The key to invalidate.
    pub const INVALIDATE: Self = Self(1 << 7);
    /// The 16 reserved bytes of a congestion notification.
    pub const CONGESTION: Self = Self(1 << 8);

    /// Bytes of each, in the order of the bits.
    const BYTES: [usize; 9] = [8, 4, 16, 28, 4, 8, 4, 4, 16];

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether all of `others` are among these.
    #[must_use]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(self) -> usize {
        Self::BYTES.iter().enumerate().filter(|(bit, _)| self.0 & 1 << bit != 0).map(|(_, bytes)| bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_opcodes_are_one_to_one() {
        let all: Vec<_> = (0..=u8::MAX).filter(|&byte| Opcode::from_byte(byte).is_some()).collect();
        let rc = (0x00..=0x14).chain([0x16, 0x17, 0x1c, 0x1d]);
        assert_eq!(all, rc.chain(0x20..=0x2b).chain([0x64, 0x65, 0x81]).collect::<Vec<_>>());
        for byte in all {
            assert_eq!(Opcode::from_byte(byte).unwrap().to_byte(), byte);
        }
    }

    #[test]
    fn what_does_not_exist_cannot_be_made() {
        use {Operation::*, Place::*, Service::*};
        assert_eq!(Opcode::new(Rc, Send, First, true), None, "immediate data comes last");
        assert_eq!(Opcode::new(Ud, Write, Only, false), None);
        assert_eq!(Opcode::new(Uc, ReadRequest, Only, false), None);
        assert_eq!(Opcode::new(Ud, Send, First, false), None);
        assert_eq!(Opcode::new(Service::Congestion, Send, Only, false), None);
        assert_eq!(Opcode::new(Rc, Operation::Congestion, Only, false), None);
    }

    #[test]
    fn headers_have_the_lengths_of_soft_roce() {
        // `rxe_opcode[].length` of drivers/infiniband/sw/rxe/rxe_opcode.c, without the base header's 12 bytes.
        let lengths = [
            (0x00, 0),
            (0x03, 4),
            (0x05, 4),
            (0x06, 16),
            (0x07, 0),
            (0x09, 4),
            (0x0b, 20),
            (0x0c, 16),
            (0x0d, 4),
            (0x0e, 0),
            (0x10, 4),
            (0x11, 4),
            (0x12, 12),
            (0x13, 28),
            (0x14, 28),
            (0x17, 4),
            (0x1c, 20),
            (0x1d, 16),
            (0x2b, 20),
            (0x64, 8),
            (0x65, 12),
            (0x81, 16),
        ];
        for (byte, length) in lengths {
            assert_eq!(Opcode::from_byte(byte).unwrap().headers().bytes(), length, "{byte:#x}");
        }
    }

    #[test]
    fn places_follow_from_index_and_count() {
        let places: Vec<_> = (0..3).map(|index| Place::of(index, 3)).collect();
        assert_eq!(places, [Place::First, Place::Middle, Place::Last]);
        assert_eq!(Place::of(0, 1), Place::Only);
    }
}
