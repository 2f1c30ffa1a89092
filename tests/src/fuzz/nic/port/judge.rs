//! What a port may do about a frame, by rules of its own: the addresses, the queue pair and its state.

use refault_abi::codes::{QPS_RTR, QPS_RTS, QPS_SQD, QPT_RC};
use refault_abi::command::QpSnapshot;
use refault_bus::wire::EthernetFrame;
use refault_model::nic::Driver;
use refault_roce::{DEFAULT_PARTITION, Nak, Operation, Packet, Received, Service, Syndrome, frame};

use super::station::{End, MAC, PEER_MAC, SECRET_BYTE, gid};

/// Bytes of memory that no peer may reach: so many in a row mean that one has.
const LEAK: usize = 32;
/// Requests of an end that its peer remembers.
const REQUESTS: usize = 8;

/// The driver's settings of the port.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortState {
    pub(super) up: bool,
    /// Whether each of the two GIDs is there.
    pub(super) gids: [bool; 2],
    /// NAKs may come again, to end an RNR delay.
    pub(super) resumes: bool,
}

impl PortState {
    /// Whether a connection may answer `frame`. One that cannot must be silent.
    pub(super) fn may_answer(self, driver: &Driver, ends: &[End], frame: &EthernetFrame) -> bool {
        let parsed =
            if frame.sealed { frame::parse(&frame.bytes) } else { frame::parse_unsealed(&frame.bytes) };
        let Ok(Received { envelope, packet, .. }) = parsed else { return false };
        let Some(end) = ends.iter().find(|end| end.queue.qpn != 0 && end.queue.qpn == packet.dest_qpn) else {
            return false;
        };
        let network = gid(end.gid);
        let has_gid = self.gids[usize::from(end.gid) - 1];
        let is_addressed = envelope.dest_mac == MAC
            && envelope.addresses.gids() == (network.peer, network.own)
            && envelope.vlan.map(|tag| tag & 0xfff).filter(|&id| id != 0) == network.vlan;
        let is_connected = end.queue.kind == QPT_RC && !end.is_here;
        self.up
            && has_gid
            && is_addressed
            && is_connected
            && packet.partition & 0x7fff == DEFAULT_PARTITION & 0x7fff
            && packet.opcode.service() == Service::Rc
            && self.is_listening(driver, end)
    }

    fn is_listening(self, driver: &Driver, end: &End) -> bool {
        let known: Option<QpSnapshot> = driver.query(end.queue.qpn).ok();
        known.is_some_and(|known| matches!(known.attributes.state, QPS_RTR | QPS_RTS | QPS_SQD))
    }

    /// Checks what was sent, and notes what it tells.
    pub(super) fn check(self, ends: &mut [End], sent: &[Vec<u8>]) {
        for bytes in sent {
            let is_leak = bytes.windows(LEAK).any(|run| run.iter().all(|&byte| byte == SECRET_BYTE));
            assert!(!is_leak, "memory that no peer may reach was sent: {bytes:02x?}");
            let Ok(Received { envelope, packet, .. }) = frame::parse_unsealed(bytes) else { continue };
            if packet.opcode.service() != Service::Rc {
                continue;
            }
            let to = ends.iter_mut().position(|end| {
                let network = gid(end.gid);
                end.queue.kind == QPT_RC
                    && !end.is_here
                    && envelope.addresses.gids() == (network.own, network.peer)
            });
            let end = to.map(|at| &mut ends[at]);
            let end = end.unwrap_or_else(|| panic!("{envelope:?} is of no connection: {packet:?}"));
            assert_eq!((envelope.source_mac, envelope.dest_mac), (MAC, PEER_MAC), "{packet:?}");
            assert_eq!(envelope.vlan, gid(end.gid).vlan);
            self.note(end, &packet);
        }
    }

    fn note(self, end: &mut End, packet: &Packet) {
        if !packet.opcode.is_response() {
            end.requests.push_back(*packet);
            if end.requests.len() > REQUESTS {
                end.requests.pop_front();
            }
            return;
        }
        match (packet.opcode.operation(), packet.aeth.syndrome) {
            (Operation::Acknowledge, Syndrome::Nak(nak)) => {
                let is_again = nak == Nak::Sequence && end.nak.replace(packet.psn) == Some(packet.psn);
                assert!(!is_again || self.resumes, "two NAKs for {:?}", packet.psn);
                end.expected = packet.psn;
            }
            (Operation::Acknowledge, Syndrome::Ack(_)) => end.expected = packet.psn.after(1),
            (Operation::Acknowledge, _) => end.expected = packet.psn,
            _ if packet.psn.distance_from(end.expected) >= 0 => end.expected = packet.psn.after(1),
            _ => {}
        }
    }
}
