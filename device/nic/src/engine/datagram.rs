//! Datagrams: what a UD queue pair sends.
//!
//! A datagram is no longer than a packet, so it is copied whole in one guarded step, after both ends were translated.
//! Its sender gets no acknowledgement: a datagram that is not received is dropped. So is one whose receiver misses a
//! page, which is then asked for: the receiver's fault is no concern of the sender, which may have others to talk to.
//! The receive request stays with the receiver, for a later datagram. [`DatagramFaults::Hold`] has the sender wait.
//!
//! [`DatagramFaults::Hold`]: crate::config::DatagramFaults::Hold

use refault_abi::codes::{QPS_RTR, QPS_RTS, QPS_SQD, QPS_SQE, WC_LOC_PROT_ERR, WC_LOC_QP_OP_ERR, WC_SUCCESS};
use refault_bus::bits::{low_u16, low_u32};
use refault_bus::sync::lock;

use super::Engine;
use super::handover::Handover;
use super::outcome::{Outcome, Refusal};
use super::turn::Turn;
use crate::cause::Cause;
use crate::fault::ask::settle;
use crate::memory::access::{AccessError, Extent, Stopped};
use crate::memory::copy::{read_extents, write_extents};
use crate::memory::list::List;
use crate::memory::port::Port;
use crate::memory::resolve::Access;
use crate::qp::Qp;
use crate::qp::requester::{Message, Requester};
use crate::qp::responder::Responder;
use crate::qp::setup::Setup;
use crate::verbs::{Completion, Destination, End, SendRequest};

/// Longest datagram: the port's path MTU of 4096 bytes.
const MAX_DATAGRAM: usize = 4096;
/// Bytes of a receive request before the payload.
const GRH: usize = 40;
/// Q_Keys with this bit stand for the sender's own.
const OWN_QKEY: u32 = 1 << 31;

/// A datagram in flight.
struct Datagram<'a> {
    sender: &'a Setup,
    qkey: u32,
    /// GRH and payload.
    packet: &'a [u8],
}

impl Handover<'_, '_> {
    /// Sends the active request of a UD queue pair.
    pub(super) fn send_datagram(self) -> Outcome {
        let Self { engine, port, requester, .. } = self;
        let Requester { setup, attributes, active: Some(message), .. } = requester else {
            return Outcome::Done;
        };
        let length = message.request.length as usize;
        let mut packet = [0; GRH + MAX_DATAGRAM];
        let Some(packet) = packet.get_mut(..GRH + length) else { return Outcome::TooLong };
        if let Err(stopped) = gather(port, setup, message, &mut packet[GRH..]) {
            return Outcome::Stopped(stopped);
        }
        packet[..GRH].copy_from_slice(&engine.grh(&message.request));
        let destination = &message.request.destination;
        let own_key = destination.qkey & OWN_QKEY != 0;
        let qkey = if own_key { attributes.qkey } else { destination.qkey };
        let received = match engine.receiver(destination) {
            Some(peer) => {
                engine.receive_datagram(port, peer, message, &Datagram { sender: setup, qkey, packet })
            }
            None => Ok(false),
        };
        match received {
            Ok(received) => port.shard().stats.datagrams_dropped += u64::from(!received),
            Err(stopped) => return Outcome::Stopped(stopped),
        }
        Outcome::Done
    }

    /// The receiver's page that a datagram needs will not come: its receive request fails.
    pub(super) fn lose_receive(self, cause: Cause) {
        let Some(message) = &self.requester.active else { return };
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

    /// Puts a datagram, its GRH in front, into the receiver's memory. Returns whether it was received.
    ///
    /// # Errors
    ///
    /// A page of the receiver is missing.
    fn receive_datagram(
        &self,
        port: &mut Port<'_>,
        peer: &Qp,
        message: &mut Message,
        datagram: &Datagram<'_>,
    ) -> Result<bool, Stopped> {
        let mut responder = lock(&peer.responder);
        let packet = datagram.packet;
        let Destination { qpn, has_grh, .. } = message.request.destination;
        let listens = matches!(peer.state(), QPS_RTR | QPS_RTS | QPS_SQD | QPS_SQE);
        // The slot may have another queue pair by now.
        let same = responder.setup.qpn == qpn && responder.setup.is_datagram();
        if !listens || !same || responder.qkey != datagram.qkey {
            return Ok(false);
        }
        let place = match self.place_for(port, &mut responder, packet.len()) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(false),
            Err(Trouble::Wait(stopped)) => {
                message.receive_ticket = responder.current.map_or(0, |current| current.ticket);
                return Err(stopped);
            }
            Err(Trouble::Refused(refusal)) => {
                self.fail_responder(port, peer, &mut responder, refusal);
                return Ok(false);
            }
        };
        let written = if has_grh {
            write_extents(port, packet, &place)
        } else {
            write_extents(port, &packet[GRH..], &skip(&place, GRH as u64))
        };
        if written.is_err() {
            let lost = Refusal::Receive(WC_LOC_PROT_ERR, Some(Cause::NotMemory));
            self.fail_responder(port, peer, &mut responder, lost);
            return Ok(false);
        }
        let completion = self.datagram_completion(&message.request, datagram);
        self.complete_receive(port, peer, &mut responder, completion);
        Ok(true)
    }

    /// The memory of the next receive request, if it has room for `length` bytes.
    fn place_for(
        &self,
        port: &mut Port<'_>,
        responder: &mut Responder,
        length: usize,
    ) -> Result<Option<Vec<Extent>>, Trouble> {
        let taken = self.take_receive(port, responder);
        if !taken.map_err(|_| Trouble::Refused(Refusal::Broken))? {
            return Ok(None);
        }
        let Some(current) = responder.current else { return Ok(None) };
        let malformed = Trouble::Refused(Refusal::Receive(WC_LOC_QP_OP_ERR, None));
        let pieces = current.taken.request.pieces.ok_or(malformed)?;
        if length as u64 > pieces.bytes() {
            return Ok(None);
        }
        let rights = Access::local_rights(true);
        let to = List { pieces: &pieces, pd: current.taken.pd, rights, write: true, end: End::Remote };
        let found = to.check(port).map_err(|cause| to.stopped(cause));
        let found = found.and_then(|()| to.extents(port, length as u64));
        found.map(Some).map_err(|stopped| match stopped.error {
            AccessError::Miss(_) => Trouble::Wait(stopped),
            AccessError::Denied(cause) => Trouble::Refused(Refusal::Receive(WC_LOC_PROT_ERR, Some(cause))),
        })
    }

    /// The receiver's completion.
    fn datagram_completion(&self, request: &SendRequest, datagram: &Datagram<'_>) -> Completion {
        Completion {
            length: low_u32(datagram.packet.len() as u64),
            opcode: request.opcode,
            immediate: request.immediate,
            solicited: request.solicited,
            with_grh: request.destination.has_grh,
            sl: request.destination.sl,
            src_lid: self.config.lid,
            src_qpn: datagram.sender.qpn,
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

/// Why a receiver does not take a datagram.
enum Trouble {
    /// A page is missing, and may come.
    Wait(Stopped),
    /// The receive request, or the receive queue, fails.
    Refused(Refusal),
}

/// Reads the sender's data.
fn gather(port: &mut Port<'_>, setup: &Setup, message: &Message, payload: &mut [u8]) -> Result<(), Stopped> {
    let request = &message.request;
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

/// What is left of a run of memory behind its first `bytes`.
fn skip(place: &[Extent], mut bytes: u64) -> Vec<Extent> {
    let mut left = Vec::with_capacity(place.len());
    for extent in place {
        let gone = bytes.min(extent.bytes);
        bytes -= gone;
        if gone < extent.bytes {
            left.push(Extent { gpa: extent.after(gone), bytes: extent.bytes - gone });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use refault_bus::Gpa;

    use super::*;

    #[test]
    fn skipping_takes_whole_and_split_pieces() {
        let piece = |gpa, bytes| Extent { gpa: Gpa(gpa), bytes };
        let place = [piece(0x1000, 10), piece(0x3000, 30), piece(0x5000, 5)];
        assert_eq!(skip(&place, 40), [piece(0x5000, 5)]);
        assert_eq!(skip(&place, 12), [piece(0x3002, 28), piece(0x5000, 5)]);
        assert_eq!(skip(&place, 45), []);
    }
}
