//! The sending half of a queue pair.

use refault_bus::dma::GpaRange;

use crate::observe::Sampling;
use crate::qp::attributes::Attributes;
use crate::qp::connection::Connection;
use crate::qp::setup::Setup;
use crate::qp::stall::Stall;
use crate::verbs::SendRequest;

/// The active request: how far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) request: SendRequest,
    /// Bytes moved; of a FLUSH, found.
    pub(crate) done: u32,
    /// All checks that come before the first byte were passed.
    pub(crate) checked: bool,
    /// Datagrams: ticket of the receive request whose page is missing.
    pub(crate) receive_ticket: u64,
    /// SEND: the key that it has made invalid.
    pub(crate) invalidated: Option<u32>,
    /// FLUSH to persistence: the region of the bytes found last, which is not written out yet.
    pub(crate) unwritten: Option<GpaRange>,
}

impl Message {
    /// An empty message of which nothing is done.
    pub(crate) const NONE: Self = Self {
        request: SendRequest::NONE,
        done: 0,
        checked: false,
        receive_ticket: 0,
        invalidated: None,
        unwritten: None,
    };

    /// Bytes that are still to be moved.
    pub(crate) fn left(&self) -> u32 {
        self.request.length - self.done
    }
}

/// The active request, if there is one. Its memory is kept in between: requests are large, and one is fetched for each
/// message.
#[derive(Debug)]
pub(crate) struct Active {
    message: Message,
    present: bool,
}

impl Default for Active {
    fn default() -> Self {
        Self { message: Message::NONE, present: false }
    }
}

impl Active {
    /// A message of which nothing is done, for the request to be decoded into. What it holds is what an earlier one left.
    pub(crate) fn begin(&mut self) -> &mut SendRequest {
        let Message { request, done, checked, receive_ticket, invalidated, unwritten } = &mut self.message;
        (*done, *checked, *receive_ticket, *invalidated, *unwritten) = (0, false, 0, None, None);
        self.present = true;
        request
    }

    /// There is none any more.
    pub(crate) fn clear(&mut self) {
        self.present = false;
    }

    /// Whether there is one.
    pub(crate) fn is_some(&self) -> bool {
        self.present
    }

    /// The active request.
    pub(crate) fn get(&self) -> Option<&Message> {
        self.present.then_some(&self.message)
    }

    /// The active request.
    pub(crate) fn get_mut(&mut self) -> Option<&mut Message> {
        self.present.then_some(&mut self.message)
    }
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
    pub(crate) active: Active,
    pub(crate) stall: Stall,
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
    /// If it is connected by packets, from the first turn in RTR on.
    pub(crate) connection: Option<Box<Connection>>,
}
