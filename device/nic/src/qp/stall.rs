//! What keeps a half of a queue pair from going on.

use refault_bus::PrgIndex;

use crate::memory::access::PageMiss;
use crate::qp::answer::Place;
use crate::verbs::End;

/// What a half of a queue pair waits for before it looks at its request again.
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
    /// A region of a FLUSH to be persistent.
    Persistence { ticket: u64 },
}

impl Wait {
    /// When the half looks again though no answer has come, if ever.
    pub(crate) fn deadline_ns(self) -> Option<u64> {
        match self {
            Self::NotReady { deadline_ns, .. } | Self::Until { deadline_ns } => Some(deadline_ns),
            Self::Credit { deadline_ns, .. } => deadline_ns,
            Self::None | Self::Page { .. } | Self::Peer | Self::Persistence { .. } => None,
        }
    }
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

/// What a half of a queue pair waits for, and what it has waited for since its request began.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    pub(crate) wait: Wait,
    pub(crate) trouble: PageTrouble,
    pub(crate) faulted: Vec<Faulted>,
}
