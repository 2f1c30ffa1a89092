//! Two NICs on a wire: what arrives, what is dropped, and what the port tells its driver.

mod busy;
mod ends;
mod peer;
mod policies;
mod requester;
mod responder;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use refault_abi::codes::{
    FLUSH_GLOBAL, FLUSH_RANGE, OP_FLUSH, OP_RDMA_READ, OP_SEND, OP_SEND_INVALIDATE, QPS_ERR, QPS_INIT,
    QPS_RTR, QPS_RTS, QPT_ETHERNET, QPT_GSI, QPT_RC, QPT_UD, QpKind, WC_RETRY_EXC_ERR, WC_SUCCESS,
};
use refault_abi::command::{
    CAP_ETHERNET, CAP_ROCE, CMD_CREATE_QP, CMD_QUERY_COUNTERS, CMD_QUERY_DEVICE, CMD_SET_GID, CMD_SET_PORT,
    CreateQp, DeviceCaps, GID_NO_VLAN, ModifyQp, ObjectId, PORT_PROMISCUOUS, PORT_UP, PortCounters,
    QP_ATTR_PKEY, QP_ATTR_PORT, QP_ATTR_QKEY, QP_ATTR_SQ_PSN, QP_ATTR_STATE, STATUS_BAD_OPCODE,
    STATUS_BAD_PARAMETER, STATUS_BUSY, SetGid, SetPort,
};
use refault_abi::event::{EVENT_PORT, PORT_EVENT_DOWN, PORT_EVENT_UP};
use refault_abi::queue::{CQE_GRH, CQE_IPV4, CQE_RECEIVE, CQE_VLAN, SqWqe};
use refault_bus::pri::ResponseCode;
use refault_bus::sync::lock;
use refault_bus::wire::{EthernetFrame, Wire, WirePort};
use refault_nic::{FrameStats, LinkLayer, NicConfig};
use refault_roce::{FlushIcrc, Opcode, Operation, Packet, Place, Psn, Received, Service, frame};

use crate::support::driver::*;
use crate::support::shared::*;
use crate::support::*;

const QKEY: u32 = 0x1234;
const HEAP: u64 = 0x7f00_0000_0000;

/// Frames that were sent and have not been delivered.
#[derive(Default)]
struct Cable {
    frames: Mutex<VecDeque<EthernetFrame>>,
    /// The far end does not keep up.
    is_busy: AtomicBool,
}

impl Wire for Cable {
    fn send(&self, frame: EthernetFrame) {
        lock(&self.frames).push_back(frame);
    }

    fn is_ready(&self) -> bool {
        !self.is_busy.load(Ordering::Relaxed)
    }
}

impl Cable {
    fn take(&self) -> Option<EthernetFrame> {
        lock(&self.frames).pop_front()
    }
}

/// One machine, its port up and with a GID.
struct Station {
    pair: Pair,
    mac: [u8; 6],
    sends: Arc<Cable>,
}

fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

/// `::ffff:10.0.0.number`
fn gid(number: u8) -> [u8; 16] {
    let mut gid = [0; 16];
    gid[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, number]);
    gid
}

fn set_gid(index: u16, number: u8) -> SetGid {
    SetGid {
        index,
        present: 1,
        reserved0: 0,
        vlan: GID_NO_VLAN,
        mac: mac(number),
        reserved1: 0,
        gid: gid(number),
    }
}

fn config(number: u8) -> NicConfig {
    let link = LinkLayer::Ethernet { mac: mac(number), roce: true };
    NicConfig { link, fault_window: 1, ..NicConfig::default() }
}

impl Station {
    fn new(number: u8) -> Self {
        Self::of(config(number), number)
    }

    fn of(config: NicConfig, number: u8) -> Self {
        let pair = Pair::unconnected(Bench::new(config));
        let sends = Arc::new(Cable::default());
        pair.bench.nic.plug(sends.clone());
        pair.bench.nic.set_carrier(true);
        let station = Self { pair, mac: mac(number), sends };
        station.set_port(PORT_UP);
        station.set(CMD_SET_GID, &set_gid(1, number)).unwrap();
        station
    }

    fn set<Q: zerocopy::IntoBytes + zerocopy::Immutable>(
        &self,
        opcode: refault_abi::command::CommandOpcode,
        request: &Q,
    ) -> Result<(), refault_abi::command::CommandStatus> {
        self.pair.bench.command::<_, ObjectId>(opcode, request).map(|_| ())
    }

    fn set_port(&self, flags: u32) {
        let eqn = self.pair.eq.eqn;
        self.set(CMD_SET_PORT, &SetPort { mac: self.mac, reserved0: 0, flags, eqn }).unwrap();
    }

    fn counters(&self) -> PortCounters {
        self.pair.bench.command(CMD_QUERY_COUNTERS, &[0u8; 8]).unwrap()
    }

    fn frames(&self) -> FrameStats {
        self.pair.bench.nic.stats().frames
    }

    /// A queue pair of that kind in RTS, with completions on A's queue.
    fn queue_pair(&self, kind: QpKind) -> Qp {
        let Pair { bench, pd, cq_a, eq, context, .. } = &self.pair;
        let command = CreateQp { kind, ..Qp::command(bench, *pd, [cq_a.cqn; 2], eq.eqn, LOG) };
        let qp = Qp::create(bench, *context, &command);
        let to = |state, mask: u32| {
            let change =
                ModifyQp { mask: mask | QP_ATTR_STATE, state, port: 1, qkey: QKEY, ..ModifyQp::default() };
            qp.modify(bench, &change).unwrap();
        };
        let (init, send) = match kind {
            QPT_ETHERNET => (0, 0),
            QPT_GSI => (QP_ATTR_PKEY | QP_ATTR_QKEY, QP_ATTR_SQ_PSN),
            _ => (QP_ATTR_PKEY | QP_ATTR_QKEY | QP_ATTR_PORT, QP_ATTR_SQ_PSN),
        };
        to(QPS_INIT, init);
        to(QPS_RTR, 0);
        to(QPS_RTS, send);
        qp
    }
}

/// The path to a station.
fn path_to(number: u8) -> ModifyQp {
    ModifyQp {
        has_grh: 1,
        sgid_index: 1,
        dest_gid: gid(number),
        dmac: mac(number),
        hop_limit: 9,
        traffic_class: 0x28,
        source_port: 0xc0de,
        ..PATIENT
    }
}

/// The same for a datagram.
fn datagram_to(number: u8, wr_id: u64, qpn: u32, sges: &[refault_abi::queue::Sge]) -> SqWqe {
    let gid = gid(number);
    let half = |at: usize| u64::from_le_bytes(gid[at..at + 8].try_into().unwrap());
    let mut path = [0; 8];
    path[..6].copy_from_slice(&mac(number));
    (path[6], path[7]) = (1, 33);
    SqWqe {
        remote_addr: u64::from_le_bytes(path),
        has_grh: 1,
        compare_add: half(0),
        swap: half(8),
        source_port: 0xc001,
        rkey: 0x28 << 20,
        ..datagram(wr_id, sges, qpn, QKEY)
    }
}

/// Lets both work, and frames pass, until nothing moves. `pass` may keep or change a frame.
fn settle_with(stations: [&Station; 2], mut pass: impl FnMut(EthernetFrame) -> Option<EthernetFrame>) {
    for _ in 0..10_000 {
        stations.iter().for_each(|station| station.pair.bench.settle());
        let sent = [0, 1].map(|from| stations[from].sends.take());
        if sent.iter().all(Option::is_none) {
            return;
        }
        for (from, frame) in sent.into_iter().enumerate() {
            if let Some(frame) = frame.and_then(&mut pass) {
                stations[1 - from].pair.bench.nic.receive(frame);
            }
        }
    }
    panic!("the stations never come to rest");
}

fn settle(stations: [&Station; 2]) {
    settle_with(stations, Some);
}

/// Two stations whose queue pairs A are connected.
fn connected() -> (Station, Station) {
    let (one, two) = (Station::new(1), Station::new(2));
    one.pair.a.raise(&one.pair.bench, two.pair.a.qpn, QPS_RTS, path_to(2));
    two.pair.a.raise(&two.pair.bench, one.pair.a.qpn, QPS_RTS, path_to(1));
    (one, two)
}

#[test]
fn the_device_says_what_its_port_is() {
    let station = Station::new(1);
    let caps: DeviceCaps = station.pair.bench.command(CMD_QUERY_DEVICE, &[0u8; 8]).unwrap();
    assert_eq!(caps.features & (CAP_ETHERNET | CAP_ROCE), CAP_ETHERNET | CAP_ROCE);
    assert_eq!((caps.mac, caps.carrier, caps.lid), (mac(1), 1, 0));
    assert!(caps.gids > 16 && caps.max_frame > 4200);
    let class = (station.pair.bench.config16(0x0a), station.pair.bench.config16(8) >> 8);
    assert_eq!(class, (0x0200, 0));

    let plain = NicConfig { link: LinkLayer::Ethernet { mac: mac(1), roce: false }, ..config(1) };
    let bench = Bench::new(plain);
    let caps: DeviceCaps = bench.command(CMD_QUERY_DEVICE, &[0u8; 8]).unwrap();
    assert_eq!((caps.features & (CAP_ETHERNET | CAP_ROCE), caps.gids), (CAP_ETHERNET, 0));
    let set = |bench: &Bench| bench.command::<_, ObjectId>(CMD_SET_GID, &set_gid(1, 1)).map(|_| ());
    assert_eq!(set(&bench), Err(STATUS_BAD_PARAMETER), "without RoCE there are no GIDs");
    assert_eq!(set(&Bench::default()), Err(STATUS_BAD_OPCODE), "InfiniBand");
}

#[test]
fn a_write_and_a_read_cross_the_wire() {
    let (mut one, mut two) = connected();
    let length = 10_000;
    let write = one.pair.write(1, length, two.pair.to, two.pair.rkey);
    one.pair.a.send(&one.pair.bench, &write);
    let mut seen = Vec::new();
    settle_with([&one, &two], |frame| {
        let received = frame::parse_unsealed(&frame.bytes).unwrap();
        seen.push((received.envelope, received.packet.opcode.operation()));
        Some(frame)
    });
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
    assert_eq!(
        two.pair.bench.bytes(two.pair.to, length as usize),
        one.pair.bench.bytes(one.pair.from, length as usize)
    );
    let (envelope, operation) = seen[0];
    assert_eq!((envelope.source_mac, envelope.dest_mac, operation), (mac(1), mac(2), Operation::Write));
    assert_eq!((envelope.hop_limit, envelope.traffic_class, envelope.source_port), (9, 0x28, 0xc0de));

    let read = SqWqe {
        remote_addr: one.pair.from,
        rkey: one.pair.lkey,
        ..request(OP_RDMA_READ, 2, &[sge(two.pair.from, length, two.pair.lkey)])
    };
    two.pair.bench.fill(two.pair.from, &vec![0; length as usize]);
    two.pair.a.send(&two.pair.bench, &read);
    settle([&one, &two]);
    two.pair.cq_a.expect(&two.pair.bench, WC_SUCCESS);
    assert_eq!(
        two.pair.bench.bytes(two.pair.from, length as usize),
        one.pair.bench.bytes(one.pair.from, length as usize)
    );
    let (sent, received) = (one.frames().sent, two.frames().received);
    assert_eq!((sent, one.frames().received), (received, two.frames().sent));
    assert!(sent > 3 && one.frames().unexpected == 0);
}

#[test]
fn a_page_that_is_missing_at_the_far_end_is_asked_for_there() {
    let (mut one, two) = connected();
    let write = one.pair.write(1, 100, HEAP, two.pair.process);
    one.pair.a.send(&one.pair.bench, &write);
    settle([&one, &two]);
    assert!(one.pair.cq_a.poll(&one.pair.bench).is_none());
    let group = two.pair.bench.iommu.take_requests();
    assert_eq!(group.len(), 1);
    let page = two.pair.map_page(HEAP, true);
    two.pair.bench.iommu.answer(&group[0], ResponseCode::Success);
    settle([&one, &two]);
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
    assert_eq!(two.pair.bench.bytes(page, 100), one.pair.bench.bytes(one.pair.from, 100));
}

#[test]
fn a_send_may_name_a_key_to_invalidate() {
    let (mut one, two) = connected();
    let send = SqWqe { imm: 0x1234_5601, ..request(OP_SEND_INVALIDATE, 1, &[one.pair.source(0, 1500)]) };
    one.pair.a.send(&one.pair.bench, &send);
    let mut seen = Vec::new();
    settle_with([&one, &two], |frame| {
        let packet = frame::parse_unsealed(&frame.bytes).unwrap().packet;
        seen.push((packet.opcode.operation(), packet.opcode.place(), packet.invalidate));
        None
    });
    let last = (Operation::SendInvalidate, Place::Last, 0x1234_5601);
    assert_eq!(seen, [(Operation::Send, Place::First, 0), last]);
}

#[test]
fn a_flush_has_the_checksum_that_the_far_end_expects() {
    for flush_icrc in [FlushIcrc::Standard, FlushIcrc::SoftRoce] {
        let (one, two) = (Station::of(NicConfig { flush_icrc, ..config(1) }, 1), Station::new(2));
        one.pair.a.raise(&one.pair.bench, two.pair.a.qpn, QPS_RTS, path_to(2));
        two.pair.a.raise(&two.pair.bench, one.pair.a.qpn, QPS_RTS, path_to(1));
        let (mut one, write) = (one, two.pair.to);
        one.pair.a.send(&one.pair.bench, &one.pair.write(1, 100, write, two.pair.rkey));
        let flush = SqWqe {
            remote_addr: write,
            rkey: two.pair.rkey,
            imm: FLUSH_GLOBAL | FLUSH_RANGE,
            ..request(OP_FLUSH, 2, &[])
        };
        one.pair.a.send(&one.pair.bench, &flush);
        let mut ways = Vec::new();
        settle_with([&one, &two], |frame| {
            let mut bytes = frame.bytes.clone();
            if !frame.sealed {
                frame::seal(&mut bytes, FlushIcrc::Standard).unwrap();
            }
            let Received { packet, icrc, .. } = frame::parse(&bytes).unwrap();
            ways.push((packet.opcode.operation(), icrc, frame.sealed));
            Some(frame)
        });
        let sealed = flush_icrc == FlushIcrc::SoftRoce;
        assert!(ways.contains(&(Operation::Write, Some(FlushIcrc::Standard), false)), "{ways:?}");
        assert!(ways.contains(&(Operation::Flush, Some(flush_icrc), sealed)), "{ways:?}");
        assert_eq!((two.frames().bad_icrc, two.frames().unexpected), (0, 0));
        let mut answer = || one.pair.cq_a.poll(&one.pair.bench).map(|entry| entry.status);
        assert_eq!(answer(), Some(WC_SUCCESS));
        assert!(answer().is_some(), "answered, if only with a refusal");
    }
}

#[test]
fn frames_of_others_reach_no_connection() {
    let (mut one, two) = connected();
    let write = one.pair.write(1, 100, two.pair.to, two.pair.rkey);
    one.pair.a.send(&one.pair.bench, &write);
    one.pair.bench.settle();
    let good = one.sends.take().unwrap();
    let forged = |change: &dyn Fn(&mut refault_roce::Envelope, &mut Packet)| {
        let received = frame::parse_unsealed(&good.bytes).unwrap();
        let (mut envelope, mut packet) = (received.envelope, received.packet);
        change(&mut envelope, &mut packet);
        let mut bytes = Vec::new();
        let place = frame::begin(&mut bytes, &envelope, &packet, received.payload.len()).unwrap();
        bytes[place].copy_from_slice(received.payload);
        EthernetFrame { bytes, sealed: false }
    };
    let from = |address: [u8; 4], to: [u8; 4]| refault_roce::Addresses::V4 {
        source: address.into(),
        dest: to.into(),
    };
    let stats = |index: usize| {
        let FrameStats { unwanted, malformed, bad_icrc, unexpected, .. } = two.frames();
        [unwanted, malformed, bad_icrc, unexpected][index]
    };
    let mut sealed = good.clone();
    sealed.sealed = true;
    let mut short = good.clone();
    short.bytes.truncate(50);
    let cases: [(&str, EthernetFrame, usize); 9] = [
        ("another source", forged(&|envelope, _| envelope.addresses = from([10, 0, 0, 9], [10, 0, 0, 2])), 3),
        (
            "another destination",
            forged(&|envelope, _| envelope.addresses = from([10, 0, 0, 1], [10, 0, 0, 3])),
            3,
        ),
        ("another MAC address", forged(&|envelope, _| envelope.dest_mac = mac(9)), 0),
        ("another VLAN", forged(&|envelope, _| envelope.vlan = Some(5)), 3),
        ("another partition", forged(&|_, packet| packet.partition = 0x8001), 3),
        ("no such queue pair", forged(&|_, packet| packet.dest_qpn = 0x77_7777), 3),
        (
            "a datagram",
            forged(&|_, packet| {
                packet.opcode = Opcode::new(Service::Ud, Operation::Send, Place::Only, false).unwrap();
            }),
            3,
        ),
        ("without an ICRC", sealed, 2),
        ("cut", short, 1),
    ];
    for (what, frame, counter) in cases {
        let before = stats(counter);
        two.pair.bench.nic.receive(frame);
        two.pair.bench.settle();
        assert_eq!(stats(counter), before + 1, "{what}");
        assert!(two.sends.take().is_none(), "{what} is answered");
    }
    assert_eq!(two.pair.bench.bytes(two.pair.to, 100), [0; 100]);
    two.pair.bench.nic.receive(good);
    settle([&one, &two]);
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
}

#[test]
fn a_datagram_brings_the_header_it_came_with() {
    let (mut one, mut two) = (Station::new(1), Station::new(2));
    let vlan = SetGid { vlan: 7, ..set_gid(1, 2) };
    two.set(CMD_SET_GID, &vlan).unwrap();
    one.set(CMD_SET_GID, &SetGid { vlan: 7, ..set_gid(1, 1) }).unwrap();
    let (mut a, mut b) = (one.queue_pair(QPT_UD), two.queue_pair(QPT_UD));
    b.receive(&two.pair.bench, 5, &[sge(two.pair.to, 1000, two.pair.rkey)]);
    a.send(&one.pair.bench, &datagram_to(2, 1, b.qpn, &[one.pair.source(0, 100)]));
    settle([&one, &two]);
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
    let got = two.pair.cq_a.expect(&two.pair.bench, WC_SUCCESS);
    assert_eq!((got.byte_len, got.src_qpn, got.vlan, got.wr_id), (140, a.qpn, 7, 5));
    assert_eq!(got.flags, CQE_RECEIVE | CQE_GRH | CQE_IPV4 | CQE_VLAN);
    let header = two.pair.bench.bytes(two.pair.to + 20, 20);
    assert_eq!((header[0], header[1], header[8], header[9]), (0x45, 0x28, 33, 17));
    assert_eq!((&header[12..16], &header[16..]), (&[10, 0, 0, 1][..], &[10, 0, 0, 2][..]));
    assert_eq!(two.pair.bench.bytes(two.pair.to + 40, 100), one.pair.bench.bytes(one.pair.from, 100));
    // Without a receive request, with another key, from a GID that is not there: it is sent, and lost.
    let lost = datagram_to(2, 2, b.qpn, &[one.pair.source(0, 100)]);
    a.send(&one.pair.bench, &lost);
    settle([&one, &two]);
    assert_eq!((two.frames().overflow, two.pair.bench.nic.stats().datagrams_dropped), (1, 1));
    b.receive(&two.pair.bench, 6, &[sge(two.pair.to, 1000, two.pair.rkey)]);
    a.send(&one.pair.bench, &SqWqe { qkey: QKEY + 1, ..lost });
    one.set(CMD_SET_GID, &SetGid { present: 0, ..set_gid(1, 1) }).unwrap();
    settle([&one, &two]);
    a.send(&one.pair.bench, &lost);
    settle([&one, &two]);
    assert_eq!(one.pair.cq_a.drain(&one.pair.bench).len(), 3);
    assert!(two.pair.cq_a.poll(&two.pair.bench).is_none());
    assert_eq!(one.frames().unsent, 2);
}

#[test]
fn a_datagram_whose_receiver_misses_a_page_is_dropped_and_the_page_asked_for() {
    let (mut one, mut two) = (Station::new(1), Station::new(2));
    let (mut a, mut b) = (one.queue_pair(QPT_UD), two.queue_pair(QPT_UD));
    b.receive(&two.pair.bench, 5, &[sge(HEAP, 1000, two.pair.process)]);
    let send = datagram_to(2, 1, b.qpn, &[one.pair.source(0, 100)]);
    a.send(&one.pair.bench, &send);
    settle([&one, &two]);
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
    let requests = two.pair.bench.iommu.take_requests();
    assert_eq!((requests.len(), two.pair.bench.nic.stats().datagrams_dropped_on_fault), (1, 1));
    two.pair.map_page(HEAP, true);
    two.pair.bench.iommu.answer(&requests[0], ResponseCode::Success);
    a.send(&one.pair.bench, &send);
    settle([&one, &two]);
    assert_eq!(two.pair.cq_a.expect(&two.pair.bench, WC_SUCCESS).wr_id, 5);
}

#[test]
fn management_is_queue_pair_one_on_the_wire() {
    let (mut one, mut two) = (Station::new(1), Station::new(2));
    let (mut a, mut b) = (one.queue_pair(QPT_GSI), two.queue_pair(QPT_GSI));
    assert!(a.qpn != 1 && b.qpn != 1);
    let second = {
        let Pair { bench, pd, cq_a, eq, .. } = &one.pair;
        let command = CreateQp { kind: QPT_GSI, ..Qp::command(bench, *pd, [cq_a.cqn; 2], eq.eqn, LOG) };
        bench.command::<_, ObjectId>(CMD_CREATE_QP, &command)
    };
    assert_eq!(second.unwrap_err(), STATUS_BUSY, "there is one");
    b.receive(&two.pair.bench, 5, &[sge(two.pair.to, 1000, two.pair.rkey)]);
    a.send(&one.pair.bench, &datagram_to(2, 1, 1, &[one.pair.source(0, 256)]));
    settle([&one, &two]);
    let got = two.pair.cq_a.expect(&two.pair.bench, WC_SUCCESS);
    assert_eq!((got.src_qpn, got.byte_len, got.qpn), (1, 296, b.qpn));
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
    // Its own number is not known on the wire.
    b.receive(&two.pair.bench, 6, &[sge(two.pair.to, 1000, two.pair.rkey)]);
    a.send(&one.pair.bench, &datagram_to(2, 1, b.qpn, &[one.pair.source(0, 256)]));
    settle([&one, &two]);
    assert!(two.pair.cq_a.poll(&two.pair.bench).is_none());
    a.destroy(&one.pair.bench).unwrap();
    one.queue_pair(QPT_GSI);
}

#[test]
fn what_is_no_roce_goes_to_the_queue_pair_for_frames() {
    let (mut one, mut two) = (Station::new(1), Station::new(2));
    let (mut a, mut b) = (one.queue_pair(QPT_ETHERNET), two.queue_pair(QPT_ETHERNET));
    let frame = |dest: [u8; 6]| [&dest[..], &mac(1), &[0x08, 0x06], &[0x5a; 60]].concat();
    for dest in [mac(2), [0xff; 6], mac(9)] {
        one.pair.bench.fill(one.pair.from, &frame(dest));
        b.receive(&two.pair.bench, 5, &[sge(two.pair.to, 2000, two.pair.rkey)]);
        a.send(&one.pair.bench, &request(OP_SEND, 1, &[one.pair.source(0, 74)]));
        settle([&one, &two]);
        one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
        if dest == mac(9) {
            assert!(two.pair.cq_a.poll(&two.pair.bench).is_none());
            two.set_port(PORT_UP | PORT_PROMISCUOUS);
            a.send(&one.pair.bench, &request(OP_SEND, 1, &[one.pair.source(0, 74)]));
            settle([&one, &two]);
        }
        assert_eq!(two.pair.cq_a.expect(&two.pair.bench, WC_SUCCESS).byte_len, 74);
        assert_eq!(two.pair.bench.bytes(two.pair.to, 74), frame(dest));
    }
    // A port that is down neither sends nor receives.
    two.set_port(0);
    let unwanted = two.frames().unwanted;
    a.send(&one.pair.bench, &request(OP_SEND, 1, &[one.pair.source(0, 74)]));
    settle([&one, &two]);
    assert_eq!(two.frames().unwanted, unwanted + 1);
    one.set_port(0);
    a.send(&one.pair.bench, &request(OP_SEND, 1, &[one.pair.source(0, 74)]));
    settle([&one, &two]);
    assert_eq!(one.frames().unsent, 1);
}

#[test]
fn a_port_without_roce_gives_software_packets_with_their_checksum() {
    let one = Station::new(1);
    let link = LinkLayer::Ethernet { mac: mac(2), roce: false };
    let bench = Bench::new(NicConfig { link, ..config(2) });
    let eq = Eq::new(&bench, 6, 1);
    let context = bench.context(None);
    let pd = bench.pd(context);
    let mut cq = Cq::new(&bench, context, eq.eqn, 6);
    let command = |kind| CreateQp { kind, ..Qp::command(&bench, pd, [cq.cqn; 2], eq.eqn, LOG) };
    for kind in [QPT_RC, QPT_UD, QPT_GSI, QpKind(4)] {
        let refused = bench.command::<_, ObjectId>(CMD_CREATE_QP, &command(kind));
        assert_eq!(refused.unwrap_err(), STATUS_BAD_PARAMETER, "{kind:?}");
    }
    let mut raw = Qp::create(&bench, context, &command(QPT_ETHERNET));
    for state in [QPS_INIT, QPS_RTR, QPS_RTS] {
        raw.to(&bench, state);
    }
    let port = SetPort { mac: mac(2), reserved0: 0, flags: PORT_UP, eqn: eq.eqn };
    bench.command::<_, ObjectId>(CMD_SET_PORT, &port).unwrap();
    let to = bench.allocate(0x1000);
    let key = bench.pinned(pd, to, to, 0x1000, ALL_RIGHTS);
    raw.receive(&bench, 5, &[sge(to, 2000, key)]);

    let mut ud = one.queue_pair(QPT_UD);
    ud.send(&one.pair.bench, &datagram_to(2, 1, 0x11, &[one.pair.source(0, 100)]));
    one.pair.bench.settle();
    bench.nic.receive(one.sends.take().unwrap());
    bench.settle();
    let length = cq.expect(&bench, WC_SUCCESS).byte_len as usize;
    let received = bench.bytes(to, length);
    assert_eq!(frame::parse(&received).unwrap().icrc, Some(FlushIcrc::Standard));
}

#[test]
fn a_connection_to_the_port_itself_needs_no_wire() {
    let mut one = Station::new(1);
    one.pair.a.raise(&one.pair.bench, one.pair.b.qpn, QPS_RTS, path_to(1));
    one.pair.b.raise(&one.pair.bench, one.pair.a.qpn, QPS_RTS, path_to(1));
    let write = one.pair.write(1, 5000, one.pair.to, one.pair.rkey);
    one.pair.run(&write);
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
    assert_eq!((one.frames().sent, one.sends.take()), (0, None));
    // A datagram is a packet, which comes back at the port.
    let (mut a, mut b) = (one.queue_pair(QPT_UD), one.queue_pair(QPT_UD));
    b.receive(&one.pair.bench, 5, &[sge(one.pair.to, 1000, one.pair.rkey)]);
    a.send(&one.pair.bench, &datagram_to(1, 1, b.qpn, &[one.pair.source(0, 100)]));
    one.pair.bench.settle();
    let done = one.pair.cq_a.drain(&one.pair.bench);
    assert_eq!((done.len(), one.sends.take()), (2, None));
}

#[test]
fn without_an_answer_a_connection_ends_and_frames_for_it_are_dropped() {
    let (mut one, two) = connected();
    let write = one.pair.write(1, 100, two.pair.to, two.pair.rkey);
    one.pair.a.send(&one.pair.bench, &write);
    settle_with([&one, &two], |_| None);
    for _ in 0..20 {
        one.pair.bench.advance(4096 << 15);
        settle_with([&one, &two], |_| None);
    }
    one.pair.cq_a.expect(&one.pair.bench, WC_RETRY_EXC_ERR);
    assert_eq!(one.pair.a.state(&one.pair.bench), QPS_ERR);
    let packet = Packet::new(
        Opcode::new(Service::Rc, Operation::Acknowledge, Place::Only, false).unwrap(),
        one.pair.a.qpn,
        Psn::new(9),
    );
    let envelope = refault_roce::Envelope {
        dest_mac: mac(1),
        ..refault_roce::Envelope::v4([10, 0, 0, 2].into(), [10, 0, 0, 1].into())
    };
    let mut bytes = Vec::new();
    frame::begin(&mut bytes, &envelope, &packet, 0).unwrap();
    one.pair.bench.nic.receive(EthernetFrame { bytes, sealed: false });
    assert_eq!(one.frames().unexpected, 1);
    let counters = one.counters();
    assert_eq!((counters.retries_exceeded, counters.dropped), (1, 1));
    assert_eq!((counters.received_packets, counters.sent_packets), (1, one.frames().sent));
}

#[test]
fn the_port_counts_what_goes_wrong_on_the_way() {
    let (mut one, mut two) = connected();
    let write = one.pair.write(1, 3000, two.pair.to, two.pair.rkey);
    one.pair.a.send(&one.pair.bench, &write);
    // The first packet is lost, once: the next one makes a gap.
    let mut losses = 1;
    settle_with([&one, &two], |frame| {
        let lost = std::mem::take(&mut losses) > 0;
        Some(frame).filter(|_| !lost)
    });
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
    let (sender, receiver) = (one.counters(), two.counters());
    assert_eq!(sender.sequence_naks_received, 1);
    assert!(receiver.out_of_sequence >= 1, "{receiver:?}");
    assert_eq!(
        (receiver.received_packets, receiver.sent_packets),
        (sender.sent_packets - 1, sender.received_packets)
    );
    assert_eq!((receiver.received_bytes, sender.received_bytes > 0), (two.frames().received_bytes, true));
    let send = request(OP_SEND, 2, &[one.pair.source(0, 10)]);
    one.pair.a.send(&one.pair.bench, &send);
    let mut last = None;
    settle_with([&one, &two], |frame| {
        if frame.bytes[..6] == mac(2) {
            last = Some(frame.clone());
        }
        Some(frame)
    });
    // There was no receive request.
    assert_eq!((one.counters().rnr_naks_received, two.counters().rnr_naks_sent), (1, 1));
    two.pair.a.receive(&two.pair.bench, 5, &[sge(two.pair.to, 100, two.pair.rkey)]);
    one.pair.bench.advance(700_000_000);
    settle([&one, &two]);
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
    // The request comes again after it was executed, and a frame that nothing takes.
    two.pair.bench.nic.receive(last.unwrap());
    two.pair.bench.nic.receive(EthernetFrame { bytes: vec![0xff; 60], sealed: true });
    settle([&one, &two]);
    assert_eq!((two.counters().duplicate_requests, two.counters().dropped), (1, 1));
    // An InfiniBand port has none.
    let pair = Pair::new();
    let none = pair.bench.command::<_, PortCounters>(CMD_QUERY_COUNTERS, &[0u8; 8]);
    assert_eq!(none.unwrap_err(), STATUS_BAD_OPCODE);
}

#[test]
fn the_driver_hears_of_the_signal_and_a_reset_empties_the_port() {
    let mut station = Station::new(1);
    station.pair.eq.drain(&station.pair.bench);
    station.pair.bench.nic.set_carrier(false);
    station.pair.bench.nic.set_carrier(false);
    station.pair.bench.nic.set_carrier(true);
    let events = station.pair.eq.drain(&station.pair.bench);
    assert_eq!(events, [(EVENT_PORT, PORT_EVENT_DOWN.0, 1), (EVENT_PORT, PORT_EVENT_UP.0, 1)]);
    let raw = station.queue_pair(QPT_ETHERNET);
    station.pair.bench.write32(refault_abi::regs::REG_CONTROL, refault_abi::regs::CONTROL_RESET);
    station.pair.bench.nic.receive(EthernetFrame { bytes: [&mac(1)[..], &[0; 60]].concat(), sealed: true });
    assert_eq!((station.frames().unwanted, raw.qpn != 0), (1, true), "the port is down");
    station.pair.bench.nic.set_carrier(false);
}
