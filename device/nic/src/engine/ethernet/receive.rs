//! What has arrived for a queue pair without a connection.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use refault_abi::codes::{QPS_RTR, QPS_RTS, QPS_SQD, QPS_SQE, QpState};
use refault_roce::{Addresses, frame};

use super::super::datagram::GRH;
use super::super::datagram::arrival::{Arrival, ReceiverMiss};
use super::super::outcome::{Leave, TurnEnd};
use super::super::turn::Turn;
use crate::ethernet::{FrameCounters, VLAN_ID};
use crate::memory::access::AccessError;
use crate::qp::answer::{Half, Waiter};
use crate::qp::frames::Frame;
use crate::verbs::Completion;

/// Where IP begins, but for a VLAN's tag, and the length of that.
const IP_START: usize = 14;
const TAG: usize = 4;

impl Turn<'_, '_> {
    /// Takes a frame that has arrived for a queue pair without a connection; `false` if there is none.
    pub(in crate::engine) fn take_frame(&mut self, state: QpState) -> ControlFlow<Leave, bool> {
        const NOTHING: ControlFlow<Leave, bool> = ControlFlow::Continue(false);
        let setup = self.requester.setup;
        let Some(ethernet) = &self.engine.ethernet else { return NOTHING };
        if setup.is_connected() {
            // It is connected to the port itself, without packets: what has come for it is not its peer's.
            let dropped = self.qp.inbox.clear() as u64;
            ethernet.counters.unexpected.fetch_add(dropped, Ordering::Relaxed);
            return NOTHING;
        }
        if !matches!(state, QPS_RTR | QPS_RTS | QPS_SQD | QPS_SQE) {
            return NOTHING;
        }
        if self.budget.is_spent() {
            return ControlFlow::Break(Leave::End(TurnEnd::Again));
        }
        let Some(frame) = self.qp.inbox.take() else { return NOTHING };
        self.budget.spend(u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX));
        let received = if setup.is_raw() { self.receive_raw(&frame) } else { self.receive_packet(&frame) };
        match received {
            Ok(true) => {}
            Ok(false) => {
                FrameCounters::count(&ethernet.counters.overflow);
                self.port.shard().stats.datagrams_dropped += 1;
            }
            Err(ReceiverMiss { stopped, ticket }) => {
                let stats = &mut self.port.shard().stats;
                stats.datagrams_dropped += 1;
                stats.datagrams_dropped_on_fault += 1;
                if let AccessError::Miss(miss) = stopped.error {
                    let waiter = Waiter { qpn: setup.qpn, half: Half::Responder, ticket };
                    return ControlFlow::Break(Leave::AskForReceiver(miss, waiter));
                }
            }
        }
        ControlFlow::Continue(true)
    }

    /// A frame as it is.
    fn receive_raw(&mut self, frame: &Frame) -> Result<bool, ReceiverMiss> {
        let opcode = self.engine.layout.arrived_opcode(false, false);
        let arrival = Arrival {
            qpn: self.requester.setup.qpn,
            qkey: None,
            bytes: &frame.bytes,
            unwritten: 0,
            completion: Completion { opcode, ..Completion::default() },
        };
        self.engine.receive_arrival(&mut self.port, self.qp, &arrival)
    }

    /// A datagram: before its payload go 40 bytes, an IPv6 header or, in the last 20, an IPv4 header (annex A17.4.5.1).
    fn receive_packet(&mut self, frame: &Frame) -> Result<bool, ReceiverMiss> {
        let Ok(received) = frame::parse_unsealed(&frame.bytes) else { return Ok(false) };
        if received.packet.dest_qpn != self.requester.setup.wire_qpn() {
            // It was for the slot's queue pair before.
            return Ok(false);
        }
        let (envelope, packet) = (&received.envelope, &received.packet);
        let by_ipv4 = matches!(envelope.addresses, Addresses::V4 { .. });
        let start = IP_START + if envelope.vlan.is_some() { TAG } else { 0 };
        let header = if by_ipv4 { GRH / 2 } else { GRH };
        let mut bytes = vec![0; GRH - header];
        bytes.extend_from_slice(frame.bytes.get(start..start + header).unwrap_or_default());
        bytes.extend_from_slice(received.payload);
        let has_immediate = packet.opcode.has_immediate();
        let completion = Completion {
            opcode: self.engine.layout.arrived_opcode(false, has_immediate),
            immediate: has_immediate.then(|| u32::from_le_bytes(packet.immediate)),
            solicited: packet.solicited,
            with_grh: true,
            by_ipv4,
            // A tag without a VLAN is of priority alone (IEEE 802.1Q, 9.6).
            vlan: envelope.vlan.filter(|tag| tag & VLAN_ID != 0),
            src_qpn: packet.deth.source_qpn,
            ..Completion::default()
        };
        let qpn = self.requester.setup.qpn;
        let arrival = Arrival { qpn, qkey: Some(packet.deth.q_key), bytes: &bytes, unwritten: 0, completion };
        self.engine.receive_arrival(&mut self.port, self.qp, &arrival)
    }
}
