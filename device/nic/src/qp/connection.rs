//! What a queue pair has besides if it is connected by packets.

use std::collections::VecDeque;

use refault_roce::{Mtu, Psn};
use refault_transport::{Requester, RequesterConfig, Responder, ResponderConfig};

use crate::cause::Cause;
use crate::config::{NicConfig, RemoteFaults};
use crate::qp::attributes::Attributes;
use crate::qp::frames::Frame;
use crate::qp::refusal::Refusal;
use crate::qp::requester::Message;
use crate::qp::stall::Stall;
use crate::verbs::SendRequest;

/// Requests in flight at most.
const POSTED_MAX: usize = 64;

/// A request that the requester has, until it completes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posted {
    pub(crate) request: SendRequest,
    /// Free-running index in the send queue.
    pub(crate) index: u32,
}

/// Both ends of a connection at this queue pair.
#[derive(Debug)]
pub(crate) struct Connection {
    /// From RTS on.
    pub(crate) requester: Option<Requester>,
    pub(crate) responder: Responder,
    /// The requests in flight, oldest first.
    pub(crate) posted: VecDeque<Posted>,
    /// The request for whose memory the requester waits.
    pub(crate) waiting_for: u64,
    /// The requester's memory cannot be reached for the request with that number: it fails when it is the oldest.
    pub(crate) unreachable: Option<(u64, Cause)>,
    /// Why the peer has refused a request, if it did.
    pub(crate) refused_for: Option<Cause>,
    /// What the responder waits for. Meanwhile requests are kept in `held`.
    pub(crate) stall: Stall,
    /// An RNR NAK was sent for a page, and its answer bears this ticket: the request comes again.
    pub(crate) asked: Option<u64>,
    /// The same, and the requester is to be told when the answer is there.
    pub(crate) to_announce: Option<u64>,
    /// The first packet of the message whose pages were all asked for.
    pub(crate) prefaulted: Option<Psn>,
    /// It waits to reply, not to execute.
    pub(crate) replying: bool,
    /// Requests that have arrived, the one being executed first.
    pub(crate) held: VecDeque<Frame>,
    /// The key that the message being executed has made invalid.
    pub(crate) invalidated: Option<u32>,
    /// How far the FLUSH being executed is.
    pub(crate) flush: Option<Message>,
    /// The responder fails with this when its replies are sent.
    pub(crate) refusal: Option<Refusal>,
}

impl Connection {
    /// As the attributes say; the requester is not there yet.
    pub(crate) fn new(attributes: &Attributes) -> Self {
        Self {
            requester: None,
            responder: Responder::new(responder_config(attributes), Psn::new(attributes.rq_psn)),
            posted: VecDeque::new(),
            waiting_for: 0,
            unreachable: None,
            refused_for: None,
            stall: Stall::default(),
            asked: None,
            to_announce: None,
            prefaulted: None,
            replying: false,
            held: VecDeque::new(),
            invalidated: None,
            flush: None,
            refusal: None,
        }
    }

    /// Makes the requester, if that was not done, or gives it the attributes of today.
    pub(crate) fn start_requester(&mut self, attributes: &Attributes, device: &NicConfig) {
        let config = requester_config(attributes, device);
        match &mut self.requester {
            Some(requester) => requester.configure(config),
            None => self.requester = Some(Requester::new(config, Psn::new(attributes.sq_psn))),
        }
        self.responder.configure(responder_config(attributes));
    }

    /// Whether one more request may be in flight.
    pub(crate) fn has_room(&self) -> bool {
        self.posted.len() < POSTED_MAX
    }

    /// The request with that number.
    pub(crate) fn posted(&self, id: u64) -> Option<&Posted> {
        let oldest = self.requester.as_ref()?.oldest();
        self.posted.get(usize::try_from(id.checked_sub(oldest)?).ok()?)
    }
}

fn mtu(attributes: &Attributes) -> Mtu {
    Mtu::from_code(attributes.path_mtu).unwrap_or(Mtu::SMALLEST)
}

fn requester_config(attributes: &Attributes, device: &NicConfig) -> RequesterConfig {
    RequesterConfig {
        window: device.packets.window,
        resumes: device.remote_faults == RemoteFaults::ResumeNak,
        dams: device.packets.damming,
        timeout_ns: attributes.timeout_ns(),
        retry_count: attributes.retry_count,
        rnr_retry: attributes.rnr_retry_limit(),
        max_rd_atomic: attributes.max_rd_atomic,
        ..RequesterConfig::new(mtu(attributes), attributes.dest_qpn)
    }
}

fn responder_config(attributes: &Attributes) -> ResponderConfig {
    ResponderConfig {
        max_dest_rd_atomic: attributes.max_dest_rd_atomic,
        ..ResponderConfig::new(mtu(attributes), attributes.dest_qpn)
    }
}
