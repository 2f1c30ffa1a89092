//! The hand-over: the only way from a requester to its responder.
//!
//! Both are queue pairs of one device, so it is a direct call. What a packet would carry is the active request; what an
//! acknowledgement would say is the [`Outcome`] that comes back. A connection that leaves the port is in [`super::packets`].

use core::net::Ipv6Addr;

use refault_abi::codes::{QPS_RTR, QPS_RTS, QPS_SQD};
use refault_abi::event::QP_EVENT_COMMUNICATION_ESTABLISHED;
use refault_bus::sync::lock;

use super::Engine;
use super::outcome::{Outcome, Refusal};
use super::responder::{Delivery, Ends};
use super::turn::Turn;
use crate::fault::ahead;
use crate::memory::port::Port;
use crate::memory::resolve::Ahead;
use crate::qp::Qp;
use crate::qp::attributes::Attributes;
use crate::qp::requester::Requester;

/// A requester, with what it needs to reach its responder.
pub(super) struct Handover<'t, 'e> {
    pub(super) engine: &'e Engine,
    pub(super) port: &'t mut Port<'e>,
    pub(super) requester: &'t mut Requester,
    /// Most bytes that a step may move.
    pub(super) room: u32,
}

impl<'e> Turn<'e, '_> {
    /// The way to the responder.
    #[inline]
    pub(super) fn handover(&mut self) -> Handover<'_, 'e> {
        let room = self.budget.room();
        Handover { engine: self.engine, port: &mut self.port, requester: self.requester, room }
    }
}

impl<'e> Handover<'_, 'e> {
    /// Moves the active request on by one step, or finishes it.
    pub(super) fn deliver(self) -> Outcome {
        match &self.engine.ethernet {
            None if self.requester.setup.is_datagram() => return self.send_datagram(),
            Some(ethernet) if self.requester.setup.is_datagram() => return self.send_packet(ethernet),
            Some(ethernet) if self.requester.setup.is_raw() => return self.send_frame(ethernet),
            _ => {}
        }
        let Self { engine, port, requester, room } = self;
        let Requester { setup, attributes, active, .. } = requester;
        let Some(message) = active.get_mut() else { return Outcome::Done };
        let Some(peer) = engine.peer(attributes) else { return Outcome::NoPeer };
        let mut responder = lock(&peer.responder);
        let listens = matches!(peer.state(), QPS_RTR | QPS_RTS | QPS_SQD);
        if !listens || !responder.setup.is_connected() || responder.peer_qpn != setup.qpn {
            return Outcome::NoPeer;
        }
        if !responder.established {
            responder.established = true;
            if peer.state() == QPS_RTR {
                engine.raise_qp_event(port, &responder.setup, QP_EVENT_COMMUNICATION_ESTABLISHED);
            }
        }
        let ends = Ends { sender: setup, message, responder: &mut responder };
        Delivery { engine, port, ends, peer, room }.advance()
    }

    /// The request failed at the responder's end: the responder fails as if it had refused it.
    pub(super) fn refuse(self, refusal: Refusal) {
        let Some(peer) = self.find_peer() else { return };
        let mut responder = lock(&peer.responder);
        if responder.peer_qpn == self.requester.setup.qpn {
            self.engine.fail_responder(self.port, peer, &mut responder, refusal);
        }
    }

    /// The timer code of the responder's RNR NAKs.
    pub(super) fn rnr_timer(self) -> u8 {
        self.find_peer().map_or(0, |peer| lock(&peer.responder).min_rnr_timer)
    }

    /// What the active request needs beyond the page that is missing at the responder. A datagram's few pages are
    /// asked for one by one.
    pub(super) fn pages_ahead(self, pages: u32) -> Ahead {
        if self.requester.setup.is_datagram() {
            return Ahead::default();
        }
        let Some(peer) = self.find_peer() else { return Ahead::default() };
        ahead::remote(self.port, self.requester, &lock(&peer.responder), pages)
    }

    fn find_peer(&self) -> Option<&'e Qp> {
        self.engine.qps.find(self.requester.attributes.dest_qpn)
    }
}

impl Engine {
    /// The queue pair at the other end of a path, if it is one of this device.
    pub(super) fn peer(&self, attributes: &Attributes) -> Option<&Qp> {
        self.qps.find(attributes.dest_qpn).filter(|_| attributes.is_here)
    }

    /// Whether a path leads to this port.
    pub(crate) fn leads_here(&self, attributes: &Attributes) -> bool {
        match &self.ethernet {
            None => attributes.leads_to(self.config.lid, self.config.gid()),
            Some(port) => port.is_own(&attributes.path, Ipv6Addr::from(attributes.dest_gid)),
        }
    }
}
