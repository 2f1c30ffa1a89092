//! The responder: packets in, steps to execute, replies out in order.

mod arrival;
mod repeats;
mod replies;

use std::collections::VecDeque;

use refault_roce::{Feth, Nak, Operation, Packet, Psn, Syndrome};

use self::replies::{Queued, Stream};
pub use self::replies::{Reply, Source};
use crate::config::ResponderConfig;

/// The receiving half of a connection.
#[derive(Clone, Debug)]
pub struct Responder {
    config: ResponderConfig,
    /// The next packet in sequence.
    expected: Psn,
    /// Messages completed, 24 bits.
    msn: u32,
    /// A NAK was sent that makes the requester go back to `expected`: what it sent before that needs no other.
    went_back: bool,
    /// The SEND or WRITE whose next packet is expected.
    message: Option<Incoming>,
    /// The step that [`Self::receive`] gave, and that is not done.
    offered: Option<Offered>,
    /// What can be repeated, oldest first.
    records: VecDeque<Record>,
    replies: VecDeque<Queued>,
    failed: bool,
    counters: ResponderCounters,
}

/// What a packet asks for, in sequence and of the right length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Where the payload belongs in the message.
    pub at: u32,
    /// The message begins.
    pub first: bool,
    /// The message ends.
    pub last: Option<Last>,
}

/// What a message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The payload goes to the memory of the receive request.
    Send,
    /// The payload goes to this memory.
    Write {
        /// Virtual address of the message's first byte.
        address: u64,
        /// R_Key.
        key: u32,
        /// Bytes of the whole message.
        total: u32,
    },
    /// This memory is to be sent: check that it may be read, then [`Responder::done`]. The replies follow.
    Read(Source),
    /// Compare and swap, then [`Responder::done_atomic`].
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
    /// Fetch and add, then [`Responder::done_atomic`].
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
        /// What, unless it is the whole region.
        range: Source,
        /// How much, and how far.
        flush: Feth,
    },
    /// The payload of 8 bytes goes to this memory at once.
    AtomicWrite {
        /// Virtual address.
        address: u64,
        /// R_Key.
        key: u32,
    },
}

/// What the last packet of a message brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// Immediate data: a receive request is completed.
    pub immediate: Option<[u8; 4]>,
    /// A key to invalidate.
    pub invalidate: Option<u32>,
    /// The completion counts for a completion queue armed for solicited ones.
    pub solicited: bool,
}

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Execute it, then say how that ended: [`Responder::done`], [`Responder::done_atomic`], [`Responder::not_ready`],
    /// [`Responder::refuse`]. If none of them is called before the next packet, it is as if it had been lost.
    Execute(Step),
    /// It was expected earlier or later. There may be replies.
    OutOfSequence,
    /// It is no request that can be here. A NAK is among the replies; the connection has failed.
    Invalid,
    /// Nothing: the connection has failed before, or it is no request.
    Ignored,
}

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponderCounters {
    /// Packets that came again.
    pub duplicates: u64,
    /// Packets that came before one that is missing.
    pub out_of_sequence: u64,
    /// Receiver-not-ready NAKs.
    pub not_ready: u64,
    /// Repeated requests that are not remembered any more, or differ from what is remembered.
    pub forgotten: u64,
}

/// A message of several packets.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    action: Action,
    /// Bytes before the next packet.
    done: u32,
}

/// A step that the caller works on.
#[derive(Clone, Copy, Debug)]
struct Offered {
    step: Step,
    /// Bytes of payload.
    length: u32,
    ack_request: bool,
}

/// A request with a response of its own that was executed.
#[derive(Clone, Copy, Debug)]
struct Record {
    first: Psn,
    packets: u32,
    response: Response,
}

/// What answers a request again.
#[derive(Clone, Copy, Debug)]
enum Response {
    /// The bytes that are there now.
    Read(Source),
    /// The value from before.
    Atomic(Operation, u64),
    /// That it was done.
    Done(Operation),
}

impl Responder {
    /// A responder that expects `first`.
    #[must_use]
    pub fn new(config: ResponderConfig, first: Psn) -> Self {
        Self {
            config,
            expected: first,
            msn: 0,
            went_back: false,
            message: None,
            offered: None,
            records: VecDeque::new(),
            replies: VecDeque::new(),
            failed: false,
            counters: ResponderCounters::default(),
        }
    }

    /// Takes other limits. The MTU stays.
    pub fn configure(&mut self, config: ResponderConfig) {
        self.config = ResponderConfig { mtu: self.config.mtu, ..config };
    }

    /// Takes a request with a payload of `length` bytes.
    pub fn receive(&mut self, packet: &Packet, length: usize) -> Arrival {
        self.offered = None;
        if self.failed || packet.opcode.is_response() {
            return Arrival::Ignored;
        }
        match packet.psn.distance_from(self.expected) {
            0 => self.receive_expected(packet, length),
            1.. => {
                self.counters.out_of_sequence += 1;
                if !std::mem::replace(&mut self.went_back, true) {
                    self.queue_return(Syndrome::Nak(Nak::Sequence));
                }
                Arrival::OutOfSequence
            }
            ..0 => {
                self.counters.duplicates += 1;
                self.repeat(packet);
                Arrival::OutOfSequence
            }
        }
    }

    /// The step is done. For [`Action::Read`]: the memory may be read.
    pub fn done(&mut self) {
        let Some(Offered { step, length, ack_request }) = self.offered.take() else { return };
        match step.action {
            Action::Send | Action::Write { .. } => {
                self.message = match step.last {
                    Some(_) => None,
                    None => Some(Incoming { action: step.action, done: step.at + length }),
                };
                self.advance(1, step.last.is_some());
                if ack_request {
                    self.queue_ack();
                }
            }
            Action::Read(source) => {
                let packets = self.config.mtu.packets(source.length);
                let first = self.expected;
                self.advance(packets, true);
                self.remember(Record { first, packets, response: Response::Read(source) });
                self.queue_read(Stream { source, first, next: 0, packets, replays: false, msn: self.msn });
            }
            Action::Flush { .. } => self.finish(Response::Done(Operation::Flush)),
            Action::AtomicWrite { .. } => self.finish(Response::Done(Operation::AtomicWrite)),
            Action::CompareSwap { .. } | Action::FetchAdd { .. } => {}
        }
    }

    /// The atomic step is done, and this value was there before.
    pub fn done_atomic(&mut self, original: u64) {
        let Some(Offered { step, .. }) = self.offered.take() else { return };
        match step.action {
            Action::CompareSwap { .. } => self.finish(Response::Atomic(Operation::CompareSwap, original)),
            Action::FetchAdd { .. } => self.finish(Response::Atomic(Operation::FetchAdd, original)),
            _ => {}
        }
    }

    /// There is no receive request for the step: the requester is to repeat it after the time that `code` stands for.
    pub fn not_ready(&mut self, code: u8) {
        if self.offered.take().is_some() {
            self.counters.not_ready += 1;
            self.went_back = true;
            self.queue_return(Syndrome::ReceiverNotReady(code));
        }
    }

    /// What [`Self::not_ready`] was for has come: a NAK for the expected packet tells the requester to send it at once, if it
    /// heeds that ([`RequesterConfig::resumes`](crate::RequesterConfig::resumes)). Nothing if the packet came meanwhile.
    pub fn ready(&mut self) {
        if self.went_back && !self.failed {
            self.queue_return(Syndrome::Nak(Nak::Sequence));
        }
    }

    /// The step is refused. The connection has failed.
    pub fn refuse(&mut self, nak: Nak) {
        if self.offered.take().is_some() {
            self.fail(nak);
        }
    }

    /// Whether the connection has failed. Replies from before that remain.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// How often things happened.
    #[must_use]
    pub fn counters(&self) -> ResponderCounters {
        self.counters
    }

    /// The expected packet is executed, and `packets` numbers are used up.
    fn advance(&mut self, packets: u32, ends_message: bool) {
        self.expected = self.expected.after(packets);
        self.msn = self.msn.wrapping_add(u32::from(ends_message));
        self.went_back = false;
    }

    /// A request of one packet with a response of its own is done.
    fn finish(&mut self, response: Response) {
        let record = Record { first: self.expected, packets: 1, response };
        self.advance(1, true);
        self.remember(record);
        self.queue_response(&record);
    }

    fn fail(&mut self, nak: Nak) {
        self.queue_refusal(nak);
        self.failed = true;
    }
}
