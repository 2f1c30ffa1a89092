//! What the port tells its driver, counts, and gives to software.

use super::*;

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
