//! Frames of a connection: to a queue pair of the same device, or to the wire.

use core::net::Ipv6Addr;
use std::ops::{ControlFlow, Range};

use refault_bus::sync::lock;
use refault_bus::wire::EthernetFrame;
use refault_roce::{Envelope, FlushIcrc, Opcode, Operation, Packet, frame};

use super::super::outcome::Leave;
use super::super::turn::Turn;
use super::AGAIN;
use crate::cause::Cause;
use crate::config::Loopback;
use crate::ethernet::FrameCounters;
use crate::qp::Qp;
use crate::qp::attributes::Attributes;
use crate::qp::frames::Source;

impl<'e> Turn<'e, '_> {
    /// The queue pair at the other end, if it is there.
    pub(super) fn receiver(&self) -> Option<&'e Qp> {
        self.engine.peer(&self.requester.attributes)
    }

    /// Goes on if there is room for another packet, otherwise waits until there may be.
    pub(super) fn make_way(&self) -> ControlFlow<Leave> {
        match &self.engine.ethernet {
            Some(port) if !self.requester.attributes.is_here => {
                if port.is_ready() {
                    ControlFlow::Continue(())
                } else {
                    self.wait_for_wire()
                }
            }
            _ => match self.receiver() {
                Some(receiver) if receiver.inbox.is_crowded() => AGAIN,
                _ => ControlFlow::Continue(()),
            },
        }
    }

    /// Whether a packet comes from the other end.
    pub(super) fn is_from_peer(&self, source: Source, envelope: &Envelope) -> bool {
        let Attributes { dest_qpn, dest_gid, path, is_here, .. } = &self.requester.attributes;
        match (source, &self.engine.ethernet) {
            (Source::Own(qpn), _) => *is_here && qpn == *dest_qpn,
            (Source::Wire, Some(port)) => {
                let (from, _) = envelope.addresses.gids();
                let is_peer = from.octets() == *dest_gid && port.is_for(envelope, Some(path.sgid_index));
                if !is_peer {
                    FrameCounters::count(&port.counters.unexpected);
                }
                is_peer && !is_here
            }
            (Source::Wire, None) => false,
        }
    }

    /// A frame of this packet with room for a payload of `length` bytes, and where that is.
    pub(super) fn frame(&self, packet: &Packet, length: usize) -> (Vec<u8>, Range<usize>) {
        let mut bytes = Vec::new();
        let place = frame::begin(&mut bytes, &self.envelope(), packet, length).unwrap_or_default();
        (bytes, place)
    }

    /// What carries packets to the other end.
    fn envelope(&self) -> Envelope {
        let Attributes { path, dest_gid, .. } = &self.requester.attributes;
        match &self.engine.ethernet {
            // Without a GID to send from it goes to no MAC address.
            Some(port) => port
                .envelope(path, Ipv6Addr::from(*dest_gid))
                .unwrap_or(Envelope::v6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)),
            None => {
                // Both ends are the port's own address.
                let gid = Ipv6Addr::from(self.engine.config.gid());
                Envelope::v6(gid, gid)
            }
        }
    }

    /// Sends a frame with this opcode, which may be lost. `cause` says more about a refusal.
    pub(super) fn transmit(&mut self, opcode: Opcode, bytes: Vec<u8>, cause: Option<Cause>) {
        let length = bytes.len();
        let sent = match &self.engine.ethernet {
            Some(port) if !self.requester.attributes.is_here => {
                self.engine.emit(port, self.outgoing(opcode, bytes))
            }
            _ => !self.loses_frame() && self.put(bytes, cause),
        };
        let stats = &mut self.port.shard().stats;
        stats.packets += 1;
        stats.packet_bytes += length as u64;
        stats.packets_lost += u64::from(!sent);
    }

    /// A frame for the wire. Others compute its ICRC when it is needed, as the specification has it.
    fn outgoing(&self, opcode: Opcode, mut bytes: Vec<u8>) -> EthernetFrame {
        let way = self.engine.config.flush_icrc;
        let is_special = way != FlushIcrc::Standard && opcode.operation() == Operation::Flush;
        let sealed = is_special && frame::seal(&mut bytes, way).is_ok();
        EthernetFrame { bytes, sealed }
    }

    /// Puts a frame into the other end's inbox; `false` if it does not expect this queue pair, or there is no room.
    fn put(&self, bytes: Vec<u8>, cause: Option<Cause>) -> bool {
        let source = self.qp.qpn();
        let Some(receiver) = self.receiver() else { return false };
        if lock(&receiver.responder).peer_qpn != source {
            return false;
        }
        let context = self.requester.setup.context;
        let frame = self.engine.frames.frame(context, Source::Own(source), cause, bytes);
        let taken = frame.is_some_and(|frame| receiver.inbox.put(frame));
        self.engine.workers.schedule(receiver);
        taken
    }

    /// Whether the configured loss takes this frame.
    fn loses_frame(&self) -> bool {
        let Loopback::Packets { loss_ppm } = self.engine.config.loopback else { return false };
        loss_ppm > 0 && self.engine.loss.next_below(1_000_000) < u64::from(loss_ppm)
    }
}
