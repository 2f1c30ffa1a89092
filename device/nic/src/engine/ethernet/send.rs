//! What a queue pair without a connection sends.

use core::net::Ipv6Addr;
use std::ops::ControlFlow;

use refault_bus::wire::EthernetFrame;
use refault_roce::{Deth, MacAddress, Opcode, Operation, Packet, Place, Psn, Service, frame};

use super::super::Engine;
use super::super::datagram::{MAX_DATAGRAM, gather, qkey};
use super::super::handover::Handover;
use super::super::outcome::{Leave, Outcome, TurnEnd};
use super::super::turn::Turn;
use crate::ethernet::{EthernetPort, FrameCounters, MAX_FRAME};
use crate::qp::requester::Requester;
use crate::verbs::Destination;

/// MAC address of what has no GID to be sent from.
const NOWHERE: MacAddress = [0; 6];
/// Nanoseconds until a queue pair looks again whether the wire has room: asking all the time would take a worker.
const BUSY_WIRE_NS: u64 = 50_000;
/// Bits of a PSN.
const PSN: u32 = 0xff_ffff;

impl Handover<'_, '_> {
    /// Sends the active request of a UD queue pair as a packet.
    pub(in crate::engine) fn send_packet(self, ethernet: &EthernetPort) -> Outcome {
        let Self { engine, port, requester, .. } = self;
        let Requester { setup, attributes, active, .. } = requester;
        let Some(message) = active.get_mut() else { return Outcome::Done };
        let request = &message.request;
        if request.length as usize > MAX_DATAGRAM {
            return Outcome::TooLong;
        }
        if !ethernet.is_ready() {
            return Outcome::WireBusy;
        }
        let Destination { qpn, gid, path, .. } = request.destination;
        let immediate = request.immediate;
        let opcode = Opcode::new(Service::Ud, Operation::Send, Place::Only, immediate.is_some());
        let Some(opcode) = opcode else { return Outcome::Done };
        let mut packet = Packet::new(opcode, qpn, Psn::new(attributes.sq_psn));
        packet.deth =
            Deth { q_key: qkey(&request.destination, attributes.qkey), source_qpn: setup.wire_qpn() };
        packet.solicited = request.solicited;
        packet.immediate = immediate.unwrap_or(0).to_le_bytes();
        let mut bytes = Vec::new();
        // Without a GID to send from it goes nowhere, which its sender does not learn.
        let envelope = ethernet.envelope(&path, Ipv6Addr::from(gid)).filter(|_| ethernet.has_roce);
        let place = envelope
            .and_then(|envelope| frame::begin(&mut bytes, &envelope, &packet, request.length as usize));
        let Some(place) = place else {
            FrameCounters::count(&ethernet.counters.unsent);
            return Outcome::Done;
        };
        if let Err(stopped) = gather(port, setup, request, &mut bytes[place]) {
            return Outcome::Stopped(stopped);
        }
        attributes.sq_psn = (attributes.sq_psn + 1) & PSN;
        engine.emit(ethernet, EthernetFrame { bytes, sealed: false });
        Outcome::Done
    }

    /// Sends the active request of a queue pair for frames.
    pub(in crate::engine) fn send_frame(self, ethernet: &EthernetPort) -> Outcome {
        let Self { port, requester, .. } = self;
        let Requester { setup, active, .. } = requester;
        let Some(message) = active.get_mut() else { return Outcome::Done };
        let request = &message.request;
        if request.length > u32::from(MAX_FRAME) {
            return Outcome::TooLong;
        }
        if !ethernet.is_ready() {
            return Outcome::WireBusy;
        }
        let mut bytes = vec![0; request.length as usize];
        if let Err(stopped) = gather(port, setup, request, &mut bytes) {
            return Outcome::Stopped(stopped);
        }
        // Its checksums are those that software computed.
        ethernet.send(EthernetFrame { bytes, sealed: true });
        Outcome::Done
    }
}

impl Turn<'_, '_> {
    /// Ends the turn until the wire may have room again, which it does not report.
    pub(in crate::engine) fn wait_for_wire(&self) -> ControlFlow<Leave> {
        let again_ns = self.port.fabric().now_ns().saturating_add(BUSY_WIRE_NS);
        self.engine.workers.wake_at(self.qp.qpn(), again_ns);
        ControlFlow::Break(Leave::End(TurnEnd::Idle))
    }
}

impl Engine {
    /// Sends a packet: by the wire, or back to the port itself. Returns whether it may arrive.
    pub(in crate::engine) fn emit(&self, ethernet: &EthernetPort, frame: EthernetFrame) -> bool {
        let length = frame.bytes.len();
        let dest = frame.bytes.first_chunk().copied().unwrap_or(NOWHERE);
        if dest == NOWHERE {
            FrameCounters::count(&ethernet.counters.unsent);
            return false;
        }
        if !ethernet.has_mac(dest) {
            let sent = ethernet.send(frame);
            if sent {
                ethernet.counters.count_packet_sent(length);
            }
            return sent;
        }
        ethernet.counters.count_sent(length);
        ethernet.counters.count_packet_sent(length);
        self.frame_arrived(frame);
        true
    }
}
