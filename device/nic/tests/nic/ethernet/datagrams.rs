//! Datagrams between two NICs, management among them.

use super::*;

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
