//! The sending half of a queue pair.

use refault_bus::PrgIndex;

use crate::memory::access::PageMiss;
use crate::observe::Sampling;
use crate::qp::answer::Place;
use crate::qp::attributes::Attributes;
use crate::qp::setup::Setup;
use crate::verbs::{End, SendRequest};

/// The active request: how far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) request: SendRequest,
    /// Bytes moved.
    pub(crate) done: u32,
    /// All checks that come before the first byte were passed.
    pub(crate) checked: bool,
    /// Datagrams: ticket of the receive request whose page is missing.
    pub(crate) receive_ticket: u64,
}

impl Message {
    /// An empty message of which nothing is done.
    pub(crate) const NONE: Self =
        Self { request: SendRequest::NONE, done: 0, checked: false, receive_ticket: 0 };

    /// Bytes that are still to be moved.
    pub(crate) fn left(&self) -> u32 {
        self.request.length - self.done
    }
}

/// What a requester waits for before it looks at its request again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Nothing.
    #[default]
    None,
    /// The answer to a page request or page fault, which bears the ticket.
    Page { ticket: u64 },
    /// The same, after an RNR NAK for the responder's page: no retry before the deadline.
    NotReady { ticket: u64, deadline_ns: u64 },
    /// A credit to ask for a page, at a place in the queue for them, until the deadline if there is one.
    Credit { ticket: u64, place: Place, deadline_ns: Option<u64> },
    /// A deadline, and nothing else: of a pause between page requests, of the transport timer, of an RNR NAK.
    Until { deadline_ns: u64 },
    /// The peer to get ready, which has a turn queued.
    Peer,
    /// That many bytes more of a FLUSH to be persistent.
    Persistence { ticket: u64, bytes: u32 },
}

/// A page this request asked for, until it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Faulted {
    pub(crate) group: PrgIndex,
    pub(crate) miss: PageMiss,
    /// Byte of the message that is first on the page.
    pub(crate) at: u32,
}

/// How often a request asked for pages since it last moved a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageTrouble {
    /// Where a page was missing last.
    pub(crate) end: End,
    /// Times that pages were asked for.
    pub(crate) asked: u32,
    /// It has waited, and tries once more before it asks again.
    pub(crate) backed_off: bool,
    /// A page whose miss was recorded, and that could not be asked for yet.
    pub(crate) queued: Option<Queued>,
}

/// A page that waits for a credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) miss: PageMiss,
    /// Its place among those that wait, kept until it is asked for.
    pub(crate) place: Place,
}

/// The sending half.
#[derive(Debug, Default)]
pub(crate) struct Requester {
    pub(crate) setup: Setup,
    pub(crate) attributes: Attributes,
    /// Index of the next request that is not done.
    pub(crate) consumer: u32,
    /// Requests known to wait behind `consumer`, the active one included.
    pub(crate) known: u32,
    pub(crate) active: Option<Message>,
    pub(crate) wait: Wait,
    pub(crate) trouble: PageTrouble,
    pub(crate) faulted: Vec<Faulted>,
    pub(crate) transport_retries: u8,
    pub(crate) rnr_retries: u8,
    /// Going to SQD; the event that says so is still to be sent.
    pub(crate) draining: bool,
    /// The rings cannot be read: nothing is left to flush.
    pub(crate) lost: bool,
    /// The doorbell record says that the queue pair is in ERR.
    pub(crate) noted_error: bool,
    /// The event of a fatal error was sent.
    pub(crate) reported_fatal: bool,
    /// QP_EVENT_LAST_WQE_REACHED was sent.
    pub(crate) reported_last: bool,
    pub(crate) sampling: Sampling,
}

impl Requester {
    /// Whether the success of the active request is to be reported.
    pub(crate) fn signaled(&self) -> bool {
        self.setup.signal_all || self.active.as_ref().is_some_and(|message| message.request.signaled)
    }
}
