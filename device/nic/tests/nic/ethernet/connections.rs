//! Connections between two NICs.

use super::*;

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
