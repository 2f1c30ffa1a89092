//! The wire: frames that leave the port, and frames that arrive.
//!
//! A frame that arrives comes on the thread of its sender, which may hold a guard of another NIC: here it is only read, and
//! left in the inbox of the queue pair that takes it. The rest is that queue pair's turn.

mod receive;
mod send;

use refault_abi::codes::{QPS_RTR, QPS_RTS, QPS_SQD, QPS_SQE, QPT_GSI, QPT_RC, QPT_UD};
use refault_bus::wire::EthernetFrame;
use refault_roce::{Dropped, FlushIcrc, Received, Service, frame};

use super::Engine;
use crate::ethernet::{EthernetPort, FrameCounters, Listener};
use crate::qp::Qp;
use crate::qp::frames::Source;
use crate::qp::setup::GSI_QPN;
use crate::verbs::Event;

/// Frames that may wait in all inboxes before senders are to wait.
const BUSY: usize = 1024;
/// Low bits of a P_Key: the partition. Of the default partition they are all ones.
const PARTITION: u16 = 0x7fff;

impl Engine {
    /// A frame has come by the wire.
    pub(crate) fn frame_arrived(&self, mut frame: EthernetFrame) {
        let Some(port) = &self.ethernet else { return };
        let counters = &port.counters;
        counters.count_received(frame.bytes.len());
        let Some(&dest) = frame.bytes.first_chunk() else {
            return FrameCounters::count(&counters.malformed);
        };
        let is_master = self.memory.fabric.endpoint.controls().bus_master();
        let Some((listener, raw)) = port.listener(dest).filter(|_| is_master) else {
            return FrameCounters::count(&counters.unwanted);
        };
        if listener == Listener::Named {
            let parsed =
                if frame.sealed { frame::parse(&frame.bytes) } else { frame::parse_unsealed(&frame.bytes) };
            match parsed {
                Ok(received) => {
                    counters.count_packet_received(frame.bytes.len());
                    let taker = self.taker(port, &received);
                    return match taker {
                        Some(qp) => self.keep_frame(port, qp, frame.bytes),
                        None => FrameCounters::count(&counters.unexpected),
                    };
                }
                Err(Dropped::NotRoce) => {}
                Err(Dropped::Icrc) => return FrameCounters::count(&counters.bad_icrc),
                Err(_) => return FrameCounters::count(&counters.malformed),
            }
        }
        let Some(qp) = self.qps.find(raw).filter(|qp| listens(qp)) else {
            return FrameCounters::count(&counters.unwanted);
        };
        if !frame.sealed {
            // Software looks at checksums. What is no packet of RoCE has none that is missing.
            let _ = frame::seal(&mut frame.bytes, FlushIcrc::Standard);
        }
        self.keep_frame(port, qp, frame.bytes);
    }

    /// The queue pair that a packet is for, if it takes such packets now.
    fn taker(&self, port: &EthernetPort, received: &Received<'_>) -> Option<&Qp> {
        let packet = &received.packet;
        let in_partition = packet.partition & PARTITION == PARTITION;
        if !in_partition || !port.is_for(&received.envelope, None) {
            return None;
        }
        let qp = self.qps.find(if packet.dest_qpn == GSI_QPN { port.gsi() } else { packet.dest_qpn })?;
        let fits = match packet.opcode.service() {
            Service::Rc => qp.kind() == QPT_RC,
            Service::Ud if packet.dest_qpn == GSI_QPN => qp.kind() == QPT_GSI,
            Service::Ud => qp.kind() == QPT_UD,
            Service::Uc | Service::Congestion => false,
        };
        Some(qp).filter(|qp| fits && listens(qp))
    }

    /// Leaves a frame for a queue pair's turn.
    fn keep_frame(&self, port: &EthernetPort, qp: &Qp, bytes: Vec<u8>) {
        let frame = self.frames.frame(qp.context(), Source::Wire, None, bytes);
        if !frame.is_some_and(|frame| qp.inbox.put(frame)) {
            FrameCounters::count(&port.counters.overflow);
        }
        self.workers.schedule(qp);
    }

    /// Whether the port has room for the time being.
    pub(crate) fn has_room_for_frames(&self) -> bool {
        let may_keep = self.config.packets.pause_above.is_none_or(|most| self.frames.held() as u64 <= most);
        may_keep && self.frames.waiting() < BUSY
    }

    /// There is a signal on the wire from now on, or none.
    pub(crate) fn carrier_changed(&self, up: bool) {
        let eqn = self.ethernet.as_ref().and_then(|port| port.set_carrier(up));
        // A driver that is switching off reads DeviceCaps when it comes back.
        let Some(eqn) = eqn.filter(|_| self.memory.fabric.endpoint.controls().bus_master()) else { return };
        // What was to be said of an earlier change is out of date.
        self.events.forget(eqn, |event| matches!(event, Event::Port { .. }));
        self.events.raise(&mut self.memory.front_port(), eqn, Event::Port { up });
    }
}

/// Whether a queue pair takes what arrives.
fn listens(qp: &Qp) -> bool {
    matches!(qp.state(), QPS_RTR | QPS_RTS | QPS_SQD | QPS_SQE)
}
