//! Datagrams: what a UD queue pair sends.
//!
//! A datagram is no longer than a packet, so it is copied whole in one guarded step, after both ends were translated.
//! Its sender gets no acknowledgement: a datagram that is not received is dropped. So is one whose receiver misses a
//! page, which is then asked for: the receiver's fault is no concern of the sender, which may have others to talk to.
//! The receive request stays with the receiver, for a later datagram. [`DatagramFaults::Hold`] has the sender wait.
//!
//! This is so on an InfiniBand port, which reaches itself alone. On Ethernet a datagram is a frame: [`super::ethernet`].
//!
//! [`DatagramFaults::Hold`]: crate::config::DatagramFaults::Hold

pub(super) mod arrival;

use refault_abi::codes::{WC_LOC_PROT_ERR, WC_SUCCESS};
use refault_bus::bits::low_u16;
use refault_bus::sync::lock;

use super::Engine;
use super::handover::Handover;
use super::outcome::{Outcome, Refusal};
use super::turn::Turn;
use crate::cause::Cause;
use crate::fault::ask::settle;
use crate::memory::access::Stopped;
use crate::memory::copy::read_extents;
use crate::memory::list::List;
use crate::memory::port::Port;
use crate::memory::resolve::Access;
use crate::qp::Qp;
use crate::qp::requester::Requester;
use crate::qp::setup::Setup;
use crate::verbs::{Completion, Destination, End, SendRequest};
use arrival::{Arrival, ReceiverMiss};

/// Longest datagram: the port's path MTU of 4096 bytes.
pub(super) const MAX_DATAGRAM: usize = 4096;
/// Bytes of a receive request before the payload.
pub(super) const GRH: usize = 40;
/// Q_Keys with this bit stand for the sender's own.
const OWN_QKEY: u32 = 1 << 31;

impl Handover<'_, '_> {
    /// Sends the active request of a UD queue pair.
    pub(super) fn send_datagram(self) -> Outcome {
        let Self { engine, port, requester, .. } = self;
        let Requester { setup, attributes, active, .. } = requester;
        let Some(message) = active.get_mut() else { return Outcome::Done };
        let length = message.request.length as usize;
        let mut packet = [0; GRH + MAX_DATAGRAM];
        let Some(packet) = packet.get_mut(..GRH + length) else { return Outcome::TooLong };
        if let Err(stopped) = gather(port, setup, &message.request, &mut packet[GRH..]) {
            return Outcome::Stopped(stopped);
        }
        packet[..GRH].copy_from_slice(&engine.grh(&message.request));
        let destination = &message.request.destination;
        let received = match engine.receiver(destination) {
            Some(peer) => {
                let arrival = Arrival {
                    qpn: destination.qpn,
                    qkey: Some(qkey(destination, attributes.qkey)),
                    bytes: packet,
                    unwritten: if destination.has_grh { 0 } else { GRH },
                    completion: engine.datagram_completion(&message.request, setup),
                };
                engine.receive_arrival(port, peer, &arrival)
            }
            None => Ok(false),
        };
        match received {
            Ok(received) => port.shard().stats.datagrams_dropped += u64::from(!received),
            Err(ReceiverMiss { stopped, ticket }) => {
                message.receive_ticket = ticket;
                return Outcome::Stopped(stopped);
            }
        }
        Outcome::Done
    }

    /// The receiver's page that a datagram needs will not come: its receive request fails.
    pub(super) fn lose_receive(self, cause: Cause) {
        let Some(message) = self.requester.active.get() else { return };
        let Some(peer) = self.engine.qps.find(message.request.destination.qpn) else { return };
        self.engine.lose_receive(self.port, peer, message.receive_ticket, cause);
    }
}

impl Turn<'_, '_> {
    /// The receiver's page is missing: the datagram is sent, and does not arrive.
    pub(super) fn drop_datagram(&mut self) {
        self.port.shard().stats.datagrams_dropped += 1;
        self.port.shard().stats.datagrams_dropped_on_fault += 1;
        self.budget.spend(0);
        // Its pages are not copied.
        let Requester { setup, stall, .. } = &mut *self.requester;
        settle(self.port.fabric(), stall, setup.qpn, false);
        self.complete_request(WC_SUCCESS, None);
    }

    /// Fails the queue pair's own receive request: its page cannot be asked for.
    pub(super) fn lose_own_receive(&mut self, ticket: u64, cause: Cause) {
        self.engine.lose_receive(&mut self.port, self.qp, ticket, cause);
    }

    /// Fails the queue pair's own receive request if a page that was asked for on its behalf will not come.
    pub(super) fn heed_lost_receive(&mut self) {
        if let Some((ticket, cause)) = self.qp.slot.take_lost_receive() {
            self.engine.lose_receive(&mut self.port, self.qp, ticket, cause);
        }
    }
}

impl Engine {
    /// The receiver of a datagram.
    fn receiver(&self, destination: &Destination) -> Option<&Qp> {
        let Destination { qpn, lid, has_grh, gid, .. } = *destination;
        let here = lid == self.config.lid && (!has_grh || gid == self.config.gid());
        self.qps.find(qpn).filter(|_| here)
    }

    /// A page of the receive request with that ticket will not come: it fails, if it is still the current one.
    fn lose_receive(&self, port: &mut Port<'_>, peer: &Qp, ticket: u64, cause: Cause) {
        let mut responder = lock(&peer.responder);
        if responder.current.is_some_and(|current| current.ticket == ticket) {
            let refusal = Refusal::Receive(WC_LOC_PROT_ERR, Some(cause));
            self.fail_responder(port, peer, &mut responder, refusal);
        }
    }

    /// The receiver's completion.
    fn datagram_completion(&self, request: &SendRequest, sender: &Setup) -> Completion {
        Completion {
            opcode: request.opcode,
            immediate: request.immediate,
            solicited: request.solicited,
            with_grh: request.destination.has_grh,
            sl: request.destination.sl,
            src_lid: self.config.lid,
            src_qpn: sender.qpn,
            ..Completion::default()
        }
    }

    /// The global route header (InfiniBand 1.4, 8.3): version 6, no traffic class or flow label.
    fn grh(&self, request: &SendRequest) -> [u8; GRH] {
        /// Next header: an InfiniBand transport header.
        const NEXT_HEADER: u8 = 0x1b;
        const HOP_LIMIT: u8 = 64;
        // Transport headers, payload padded to words, invariant CRC.
        let immediate = if request.immediate.is_some() { 4 } else { 0 };
        let packet = 12 + 8 + immediate + request.length.next_multiple_of(4) + 4;
        let mut grh = [0; GRH];
        grh[0] = 6 << 4;
        grh[4..6].copy_from_slice(&low_u16(packet.into()).to_be_bytes());
        grh[6] = NEXT_HEADER;
        grh[7] = HOP_LIMIT;
        grh[8..24].copy_from_slice(&self.config.gid());
        grh[24..].copy_from_slice(&request.destination.gid);
        grh
    }
}

/// The Q_Key that a datagram bears, of a sender whose own is `own`.
pub(super) fn qkey(destination: &Destination, own: u32) -> u32 {
    if destination.qkey & OWN_QKEY != 0 { own } else { destination.qkey }
}

/// Reads the sender's data.
pub(super) fn gather(
    port: &mut Port<'_>,
    setup: &Setup,
    request: &SendRequest,
    payload: &mut [u8],
) -> Result<(), Stopped> {
    if let Some(bytes) = request.inline() {
        payload.copy_from_slice(bytes);
        return Ok(());
    }
    let rights = Access::local_rights(false);
    let from = List { pieces: request.pieces(), pd: setup.pd, rights, write: false, end: End::Local };
    from.check(port).map_err(|cause| from.stopped(cause))?;
    let extents = from.extents(port, request.length.into())?;
    read_extents(port, payload, &extents).map_err(|error| from.stopped(error))
}
