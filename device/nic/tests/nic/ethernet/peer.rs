//! A peer that the test plays, frame by frame.

use refault_abi::codes::QpState;
use refault_roce::{Aeth, AtomicEth, Envelope, Nak, Operation::*, Reth, Syndrome};

use super::*;

/// Number of the peer's queue pair.
pub(super) const PEER: u32 = 0x77_0001;
/// First packet in both directions.
pub(super) const FIRST: u32 = 9;
/// Bytes in a packet.
pub(super) const MTU: usize = 1024;
/// The ACK timeout of code 14.
pub(super) const TIMEOUT_NS: u64 = 4096 << 14;

/// A station whose queue pair A is connected to the peer.
pub(super) struct Script {
    pub(super) station: Station,
}

/// A packet of the station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) packet: Packet,
    pub(super) payload: Vec<u8>,
}

/// The path to the peer for these attributes.
fn to_peer(attributes: ModifyQp) -> ModifyQp {
    let path = path_to(2);
    ModifyQp {
        has_grh: path.has_grh,
        sgid_index: path.sgid_index,
        dest_gid: path.dest_gid,
        dmac: path.dmac,
        hop_limit: path.hop_limit,
        source_port: path.source_port,
        ..attributes
    }
}

/// More READs and atomics in flight than [`PATIENT`] has.
pub(super) const BUSY: ModifyQp = ModifyQp { max_rd_atomic: 4, max_dest_rd_atomic: 4, ..PATIENT };

impl Script {
    pub(super) fn new() -> Self {
        Self::with(config(1), BUSY, QPS_RTS)
    }

    pub(super) fn with(config: NicConfig, attributes: ModifyQp, state: QpState) -> Self {
        let station = Station::of(config, 1);
        let script = Self { station };
        script.connect(attributes, state);
        script
    }

    /// Takes queue pair A, which is in RESET, to `state`.
    pub(super) fn connect(&self, attributes: ModifyQp, state: QpState) {
        let Pair { a, bench, .. } = &self.station.pair;
        a.raise(bench, PEER, state, to_peer(attributes));
    }

    pub(super) fn bench(&self) -> &Bench {
        &self.station.pair.bench
    }

    /// Bytes of the station's target.
    pub(super) fn target(&self, offset: u64, length: usize) -> Vec<u8> {
        self.bench().bytes(self.station.pair.to + offset, length)
    }

    /// What the peer sends in.
    pub(super) fn envelope() -> Envelope {
        let addresses = Envelope::v4([10, 0, 0, 2].into(), [10, 0, 0, 1].into());
        Envelope { source_mac: mac(2), dest_mac: mac(1), ..addresses }
    }

    pub(super) fn packet(&self, operation: Operation, place: Place, psn: u32) -> Packet {
        let opcode = Opcode::new(Service::Rc, operation, place, false).unwrap();
        let mut packet = Packet::new(opcode, self.station.pair.a.qpn, Psn::new(psn));
        packet.ack_request = place.ends();
        packet
    }

    /// Part of a WRITE of `total` bytes to the start of the target.
    pub(super) fn write(&self, place: Place, psn: u32, total: u32) -> Packet {
        let mut packet = self.packet(Write, place, psn);
        if place.begins() {
            packet.reth = Reth { length: total, ..self.named(0) };
        }
        packet
    }

    /// A READ of the target.
    pub(super) fn read(&self, psn: u32, offset: u64, length: u32) -> Packet {
        Packet { reth: Reth { length, ..self.named(offset) }, ..self.packet(ReadRequest, Place::Only, psn) }
    }

    /// FETCH AND ADD of 1 to the start of the target.
    pub(super) fn fetch_add(&self, psn: u32) -> Packet {
        let Reth { address, key, .. } = self.named(0);
        let atomic = AtomicEth { address, key, swap_or_add: 1, compare: 0 };
        Packet { atomic, ..self.packet(FetchAdd, Place::Only, psn) }
    }

    /// A place in the target.
    pub(super) fn named(&self, offset: u64) -> Reth {
        let Pair { to, rkey, .. } = self.station.pair;
        Reth { address: to.wrapping_add(offset), key: rkey, length: 0 }
    }

    /// A response with that syndrome.
    pub(super) fn answer(&self, operation: Operation, place: Place, psn: u32, syndrome: Syndrome) -> Packet {
        Packet { aeth: Aeth { syndrome, msn: 0 }, ..self.packet(operation, place, psn) }
    }

    /// Leaves a frame with the station, and does not let it work.
    pub(super) fn leaves(&self, packet: &Packet, payload: &[u8]) {
        let mut bytes = Vec::new();
        let place = frame::begin(&mut bytes, &Self::envelope(), packet, payload.len()).unwrap();
        bytes[place].copy_from_slice(payload);
        frame::seal(&mut bytes, FlushIcrc::Standard).unwrap();
        self.bench().nic.receive(EthernetFrame { bytes, sealed: true });
    }

    /// Sends a frame, and lets the station work.
    pub(super) fn says(&self, packet: &Packet, payload: &[u8]) {
        self.leaves(packet, payload);
        self.bench().settle();
    }

    pub(super) fn acknowledges(&self, psn: u32) {
        self.says(&self.answer(Acknowledge, Place::Only, psn, Syndrome::ACK), &[]);
    }

    pub(super) fn refuses(&self, psn: u32, nak: Nak) {
        self.says(&self.answer(Acknowledge, Place::Only, psn, Syndrome::Nak(nak)), &[]);
    }

    /// What the station has sent since the last call.
    pub(super) fn heard(&self) -> Vec<Heard> {
        let sent = std::iter::from_fn(|| self.station.sends.take());
        sent.map(|frame| {
            let received = frame::parse_unsealed(&frame.bytes).unwrap();
            assert_eq!((received.envelope.dest_mac, received.packet.dest_qpn), (mac(2), PEER));
            Heard { packet: received.packet, payload: received.payload.to_vec() }
        })
        .collect()
    }

    /// Numbers of the requests that the station has sent.
    pub(super) fn requests(&self) -> Vec<u32> {
        let heard = self.heard();
        assert!(heard.iter().all(|heard| !heard.packet.opcode.is_response()), "{heard:?}");
        heard.iter().map(|heard| heard.packet.psn.get()).collect()
    }

    /// The acknowledgements that it has sent.
    pub(super) fn syndromes(&self) -> Vec<(u32, Syndrome)> {
        let heard = self.heard();
        assert!(heard.iter().all(|heard| heard.packet.opcode.operation() == Acknowledge), "{heard:?}");
        heard.iter().map(|heard| (heard.packet.psn.get(), heard.packet.aeth.syndrome)).collect()
    }

    /// The READ responses that it has sent: place, number, payload.
    pub(super) fn responses(&self) -> Vec<(Place, u32, Vec<u8>)> {
        let heard = self.heard();
        assert!(heard.iter().all(|heard| heard.packet.opcode.operation() == ReadResponse), "{heard:?}");
        let parts = |heard: Heard| (heard.packet.opcode.place(), heard.packet.psn.get(), heard.payload);
        heard.into_iter().map(parts).collect()
    }

    /// Whether it has sent nothing.
    pub(super) fn is_silent(&self) -> bool {
        self.heard().is_empty()
    }

    pub(super) fn posts(&mut self, request: &SqWqe) {
        self.station.pair.a.send(&self.station.pair.bench, request);
        self.station.pair.bench.settle();
    }

    /// Posts a receive request for `length` bytes of the target.
    pub(super) fn receives(&mut self, wr_id: u64, offset: u64, length: u32) {
        let Pair { a, bench, to, rkey, .. } = &mut self.station.pair;
        a.receive(bench, wr_id, &[sge(*to + offset, length, *rkey)]);
    }

    /// The station's completions: request and status.
    pub(super) fn completions(&mut self) -> Vec<(u64, refault_abi::codes::WcStatus)> {
        let Pair { cq_a, bench, .. } = &mut self.station.pair;
        cq_a.drain(bench).iter().map(|entry| (entry.wr_id, entry.status)).collect()
    }

    pub(super) fn state(&self) -> QpState {
        self.station.pair.a.state(self.bench())
    }
}

/// A payload that tells its message and place.
pub(super) fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| seed.wrapping_add(at as u8) | 1).collect()
}
