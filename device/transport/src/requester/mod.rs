//! The requester: requests in, packets out, completions back in order.

mod answers;
mod build;
mod recovery;

use std::collections::VecDeque;
use std::ops::Range;

use refault_roce::{Packet, Psn};

use crate::config::RequesterConfig;
use crate::request::{Request, Verb};

/// Sequence numbers are compared by their difference, so that those in use must lie within half of all.
const SPAN_MAX: u32 = (1 << 23) - 1;

/// Requests that are posted and not completed, at most.
const REQUESTS_MAX: usize = 256;

/// The sending half of a connection.
#[derive(Clone, Debug)]
pub struct Requester {
    config: RequesterConfig,
    /// Posted and not completed, in order.
    requests: VecDeque<InFlight>,
    /// Number of the first of them.
    first_id: u64,
    /// Sequence number of the next request that is posted.
    next_posted: Psn,
    /// The first packet that is not acknowledged.
    unacknowledged: Psn,
    /// The packet to send next.
    cursor: Psn,
    /// The first packet that was never sent.
    unsent: Psn,
    /// Packets sent since an acknowledgement was requested.
    unrequested: u32,
    /// When all that is not acknowledged is sent again.
    timeout_at_ns: Option<u64>,
    /// The end of a receiver-not-ready delay.
    not_ready_until_ns: Option<u64>,
    /// [`RequesterConfig::dams`]: end of the refused message, behind which nothing is sent again.
    dam: Option<Psn>,
    /// Repetitions since the last progress.
    retries: u8,
    rnr_retries: u8,
    /// Went back since the last progress because a packet was lost: what the same loss causes besides is ignored.
    went_back: bool,
    /// A response whose bytes are not placed yet.
    offered: bool,
    completions: VecDeque<Completion>,
    failed: bool,
    counters: RequesterCounters,
}

/// A request, and what is known of it.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    request: Request,
    first: Psn,
    packets: u32,
    /// Packets that are acknowledged or, of a READ, placed.
    answered: u32,
}

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The request that it belongs to.
    pub id: u64,
    /// Its headers.
    pub packet: Packet,
    /// The request's bytes that are its payload.
    pub payload: Range<u32>,
}

/// A request that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// As [`Requester::post`] gave it.
    pub id: u64,
    /// Whether it succeeded. After a failure there are no more completions.
    pub result: Result<(), Failure>,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// NAK: invalid request.
    InvalidRequest,
    /// NAK: remote access error.
    RemoteAccess,
    /// NAK: remote operational error.
    RemoteOperation,
    /// No answer, however often it was sent.
    RetriesExceeded,
    /// The receiver was not ready, however often it was sent.
    NotReadyRetriesExceeded,
    /// A response that does not fit the request.
    BadResponse,
}

/// What a response asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing. Completions may have come.
    Nothing,
    /// Its payload goes to this place of the request's memory; then [`Requester::placed`].
    Data {
        /// The READ.
        id: u64,
        /// First byte.
        at: u32,
    },
    /// The value before an atomic operation goes to the request's memory; then [`Requester::placed`].
    Original {
        /// The atomic.
        id: u64,
        /// The value.
        value: u64,
    },
}

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequesterCounters {
    /// Packets sent, repetitions included.
    pub sent: u64,
    /// Of these, repetitions.
    pub repeated: u64,
    /// NAKs for a lost packet that were heeded.
    pub sequence_errors: u64,
    /// Responses that were missing before a later one.
    pub lost_responses: u64,
    /// Receiver-not-ready NAKs.
    pub not_ready: u64,
    /// Delays for these that the responder ended.
    pub resumed: u64,
    /// Times that the retransmission timer ran out.
    pub timeouts: u64,
    /// Responses that answer nothing.
    pub ignored: u64,
}

impl Requester {
    /// A requester that has sent nothing, whose first packet will be `first`.
    #[must_use]
    pub fn new(config: RequesterConfig, first: Psn) -> Self {
        Self {
            config,
            requests: VecDeque::new(),
            first_id: 0,
            next_posted: first,
            unacknowledged: first,
            cursor: first,
            unsent: first,
            unrequested: 0,
            timeout_at_ns: None,
            not_ready_until_ns: None,
            dam: None,
            retries: 0,
            rnr_retries: 0,
            went_back: false,
            offered: false,
            completions: VecDeque::new(),
            failed: false,
            counters: RequesterCounters::default(),
        }
    }

    /// Takes other limits, timeouts and retry counts. The MTU stays.
    pub fn configure(&mut self, config: RequesterConfig) {
        self.config = RequesterConfig { mtu: self.config.mtu, ..config };
    }

    /// Takes a request, and returns its number: these count up from zero. `None` if there is no room for it now; if nothing is
    /// in flight it is too long: it takes 2^23 packets or more.
    pub fn post(&mut self, request: Request) -> Option<u64> {
        let packets = request.packets(self.config.mtu);
        let used =
            (self.next_posted.get().wrapping_sub(self.unacknowledged.get())) & Psn::new(u32::MAX).get();
        if self.failed || self.requests.len() >= REQUESTS_MAX || packets > SPAN_MAX - used.min(SPAN_MAX) {
            return None;
        }
        let id = self.first_id + self.requests.len() as u64;
        self.requests.push_back(InFlight { request, first: self.next_posted, packets, answered: 0 });
        self.next_posted = self.next_posted.after(packets);
        Some(id)
    }

    /// The packet to send now, if there is one. The same again until [`Self::sent`] is called or something arrives.
    #[must_use]
    pub fn next(&self, now_ns: u64) -> Option<Outgoing> {
        let index = self.next_index(now_ns)?;
        let in_flight = &self.requests[index];
        let at = in_flight.index_of(self.cursor);
        let wants_ack = self.unrequested + 1 >= self.config.packets_per_ack();
        let (packet, payload) = build::packet(&self.config, in_flight, at, wants_ack);
        Some(Outgoing { id: self.first_id + index as u64, packet, payload })
    }

    /// The packet that [`Self::next`] gave is on the wire.
    pub fn sent(&mut self, now_ns: u64) {
        let Some(index) = self.next_index(now_ns) else { return };
        let in_flight = &self.requests[index];
        let at = in_flight.index_of(self.cursor);
        let (taken, ends) = match in_flight.request.verb {
            Verb::Read { .. } => (in_flight.packets - at, true),
            _ => (1, at + 1 == in_flight.packets),
        };
        let requested = ends || self.unrequested + 1 >= self.config.packets_per_ack();
        self.unrequested = if requested { 0 } else { self.unrequested + 1 };
        self.counters.sent += 1;
        self.counters.repeated += u64::from(self.cursor.distance_from(self.unsent) < 0);
        self.cursor = self.cursor.after(taken);
        if self.cursor.distance_from(self.unsent) > 0 {
            self.unsent = self.cursor;
        }
        if self.dam == Some(self.cursor) {
            self.dam = None;
            (self.cursor, self.unsent) = (self.next_posted, self.next_posted);
        }
        if self.timeout_at_ns.is_none() {
            self.start_timer(now_ns);
        }
    }

    /// The next completion, in the order of the requests.
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// Number of the oldest request that is not completed, or of the next one.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.first_id
    }

    /// Whether all requests are completed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether a request has failed: nothing more is sent.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// How often things happened.
    #[must_use]
    pub fn counters(&self) -> RequesterCounters {
        self.counters
    }

    /// Index of the request whose packet may be sent now.
    fn next_index(&self, now_ns: u64) -> Option<usize> {
        let waits = self.not_ready_until_ns.is_some_and(|until| now_ns < until);
        let in_flight = self.cursor.distance_from(self.unacknowledged);
        let is_open = u32::try_from(in_flight).is_ok_and(|packets| packets < self.config.window.max(1));
        if self.failed || waits || !is_open {
            return None;
        }
        let index = self.index_of(self.cursor)?;
        let request = &self.requests[index].request;
        let before = || self.requests.iter().take(index).filter(|before| before.request.verb.has_response());
        if request.fence && before().next().is_some() {
            return None;
        }
        let limit = usize::from(self.config.max_rd_atomic.max(1));
        if request.verb.has_response() && before().count() >= limit {
            return None;
        }
        Some(index)
    }

    /// Index of the request that a packet belongs to, if one that is posted does.
    fn index_of(&self, psn: Psn) -> Option<usize> {
        if psn.distance_from(self.next_posted) >= 0 {
            return None;
        }
        let begun = |in_flight: &InFlight| in_flight.first.distance_from(psn) <= 0;
        self.requests.partition_point(begun).checked_sub(1)
    }
}

impl InFlight {
    /// Index of one of its packets.
    fn index_of(&self, psn: Psn) -> u32 {
        u32::try_from(psn.distance_from(self.first)).unwrap_or(0)
    }
}
