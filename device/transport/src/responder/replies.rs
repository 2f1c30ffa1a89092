//! Replies, in the order of the requests (IBTA volume 1, §9.7.5).

use refault_roce::{Aeth, Nak, Opcode, Operation, Packet, Place, Psn, Service, Syndrome};

use super::{Record, Responder, Response};

/// A packet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its headers.
    pub packet: Packet,
    /// The memory that is its payload, if it has one.
    pub payload: Option<Source>,
    /// Bytes of the READ from there on, those of later replies included.
    pub left: u32,
}

/// Memory of the responder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Virtual address.
    pub address: u64,
    /// R_Key.
    pub key: u32,
    /// Bytes.
    pub length: u32,
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Queued {
    /// One packet.
    Packet(Packet),
    /// The responses to a READ.
    Read(Stream),
}

/// The responses to a READ that are left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) source: Source,
    /// Number of the first response.
    pub(super) first: Psn,
    /// Index of the next one.
    pub(super) next: u32,
    pub(super) packets: u32,
    /// It begins in the middle of the READ, and says so.
    pub(super) replays: bool,
    pub(super) msn: u32,
}

impl Responder {
    /// The reply to send now, if there is one. The same again until [`Self::replied`].
    #[must_use]
    pub fn next_reply(&self) -> Option<Reply> {
        match *self.replies.front()? {
            Queued::Packet(packet) => Some(Reply { packet, payload: None, left: 0 }),
            Queued::Read(stream) => Some(stream.reply(self.config.mtu.bytes(), self.config.dest_qpn)),
        }
    }

    /// Whether the responses to a READ are not all sent. Executing what came after it now would let that be done though the READ
    /// fails.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.replies.iter().any(|queued| matches!(queued, Queued::Read(_)))
    }

    /// The reply is on the wire.
    pub fn replied(&mut self) {
        if let Some(Queued::Read(stream)) = self.replies.front_mut() {
            stream.next += 1;
            if stream.next < stream.packets {
                return;
            }
        }
        self.replies.pop_front();
    }

    /// The memory of the reply cannot be read any more: a NAK takes its place, and the connection has failed.
    pub fn refuse_reply(&mut self, nak: Nak) {
        let Some(Queued::Read(stream)) = self.replies.front() else { return };
        let psn = stream.first.after(stream.next);
        self.replies.clear();
        self.replies.push_back(Queued::Packet(self.acknowledge(psn, Syndrome::Nak(nak))));
        self.failed = true;
    }

    /// All before the expected packet has arrived.
    pub(super) fn queue_ack(&mut self) {
        let ack = self.acknowledge(self.expected.after(u32::MAX), Syndrome::ACK);
        self.supersede(|syndrome| matches!(syndrome, Syndrome::Ack(_)));
        self.replies.push_back(Queued::Packet(ack));
    }

    /// The requester is to go back to the expected packet: another one came first, or the receiver is not ready for it.
    pub(super) fn queue_return(&mut self, syndrome: Syndrome) {
        let nak = self.acknowledge(self.expected, syndrome);
        self.supersede(|syndrome| {
            matches!(syndrome, Syndrome::ReceiverNotReady(_) | Syndrome::Nak(Nak::Sequence))
        });
        self.replies.push_back(Queued::Packet(nak));
    }

    /// The expected packet is refused.
    pub(super) fn queue_refusal(&mut self, nak: Nak) {
        self.replies.push_back(Queued::Packet(self.acknowledge(self.expected, Syndrome::Nak(nak))));
    }

    /// Takes back what is not sent yet and says less than what is about to be queued: a requester that sends faster than the
    /// replies leave makes the queue no longer.
    fn supersede(&mut self, is_older: impl Fn(Syndrome) -> bool) {
        self.replies.retain(|queued| match queued {
            Queued::Packet(packet) => {
                packet.opcode.operation() != Operation::Acknowledge || !is_older(packet.aeth.syndrome)
            }
            Queued::Read(_) => true,
        });
    }

    /// Sends the responses to a READ. Those to the same one that are left are not sent.
    pub(super) fn queue_read(&mut self, stream: Stream) {
        let is_same = |queued: &Queued| match queued {
            Queued::Read(other) => {
                stream.first.is_within(other.first, other.packets)
                    || other.first.is_within(stream.first, stream.packets)
            }
            Queued::Packet(_) => false,
        };
        match self.replies.iter_mut().find(|queued| is_same(queued)) {
            Some(queued) => *queued = Queued::Read(stream),
            None => self.replies.push_back(Queued::Read(stream)),
        }
    }

    /// Answers a request of one packet that was executed, unless that answer is not sent yet.
    pub(super) fn queue_response(&mut self, record: &Record) {
        if self.replies.iter().any(|queued| queued.answers(record.first, 1)) {
            return;
        }
        let (operation, original) = match record.response {
            Response::Atomic(_, original) => (Operation::AtomicAcknowledge, original),
            Response::Done(_) | Response::Read(_) => (Operation::ReadResponse, 0),
        };
        let mut packet = self.packet(operation, Place::Only, record.first);
        packet.original = original;
        self.replies.push_back(Queued::Packet(packet));
    }

    /// Sends no responses to these packets any more.
    pub(super) fn drop_replies(&mut self, first: Psn, packets: u32) {
        self.replies.retain(|queued| !queued.answers(first, packets));
    }

    fn acknowledge(&self, psn: Psn, syndrome: Syndrome) -> Packet {
        let mut packet = self.packet(Operation::Acknowledge, Place::Only, psn);
        packet.aeth.syndrome = syndrome;
        packet
    }

    fn packet(&self, operation: Operation, place: Place, psn: Psn) -> Packet {
        response(operation, place, self.config.dest_qpn, psn, self.msn)
    }
}

impl Queued {
    /// Whether it is a response of its own to one of these packets.
    fn answers(&self, first: Psn, packets: u32) -> bool {
        match self {
            Self::Packet(packet) => {
                packet.opcode.operation() != Operation::Acknowledge && packet.psn.is_within(first, packets)
            }
            Self::Read(stream) => stream.first.is_within(first, packets),
        }
    }
}

impl Stream {
    fn reply(&self, mtu: u32, dest_qpn: u32) -> Reply {
        let at = self.next * mtu;
        let place = match Place::of(self.next, self.packets) {
            Place::First if self.replays => Place::Middle,
            Place::Only if self.replays => Place::Last,
            place => place,
        };
        let psn = self.first.after(self.next);
        let packet = response(Operation::ReadResponse, place, dest_qpn, psn, self.msn);
        let source = Source {
            address: self.source.address.wrapping_add(u64::from(at)),
            key: self.source.key,
            length: (self.source.length - at).min(mtu),
        };
        Reply { packet, payload: Some(source), left: self.source.length - at }
    }
}

fn response(operation: Operation, place: Place, dest_qpn: u32, psn: Psn, msn: u32) -> Packet {
    let opcode = Opcode::new(Service::Rc, operation, place, false).unwrap_or(Opcode::CONGESTION);
    let mut packet = Packet::new(opcode, dest_qpn, psn);
    if opcode.headers().has(refault_roce::Headers::AETH) {
        packet.aeth = Aeth { syndrome: Syndrome::ACK, msn };
    }
    packet
}
