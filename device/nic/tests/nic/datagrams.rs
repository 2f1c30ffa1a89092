//! UD queue pairs: what arrives, what is dropped, and what their errors do.

use refault_abi::codes::{
    CAUSE_KEY, CAUSE_NONE, CAUSE_PAGE_REFUSED, OP_FETCH_ADD, OP_RDMA_WRITE, OP_SEND_IMM, QPS_ERR, QPS_INIT,
    QPS_RESET, QPS_RTR, QPS_RTS, QPS_SQD, QPS_SQE, QPT_UD, QpKind, WC_LOC_LEN_ERR, WC_LOC_PROT_ERR,
    WC_LOC_QP_OP_ERR, WC_SUCCESS, WC_WR_FLUSH_ERR,
};
use refault_abi::command::{
    CMD_CREATE_QP, CreateQp, FAULT_REFUSED, FAULT_RESOLVED, ModifyQp, ObjectId, QP_ATTR_QKEY, QP_ATTR_STATE,
    STATUS_BAD_PARAMETER, STATUS_BAD_STATE,
};
use refault_abi::event::FAULT_WRITE;
use refault_abi::queue::{
    CQE_GRH, CQE_RECEIVE, CQE_SOLICITED, CQE_WITH_IMM, SqWqe, WQE_INLINE, WQE_SIGNALED, WQE_SOLICITED,
};
use refault_bus::pri::ResponseCode;
use refault_bus::probe::Stage;
use refault_nic::{DatagramFaults, NicConfig, RemoteFaults};

use crate::support::driver::*;
use crate::support::shared::*;
use crate::support::table::*;
use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;
const QKEY: u32 = 0x1234;
/// What a receive request has in front of the payload.
const GRH: usize = 40;

/// Two datagram queue pairs in place of the connected ones.
fn pair_on(config: NicConfig) -> Pair {
    let mut pair = Pair::unconnected(Bench::new(config));
    let create = |cqn: u32| {
        let command = Qp::command(&pair.bench, pair.pd, [cqn; 2], pair.eq.eqn, LOG);
        Qp::create(&pair.bench, pair.context, &CreateQp { kind: QPT_UD, ..command })
    };
    let (a, b) = (create(pair.cq_a.cqn), create(pair.cq_b.cqn));
    raise_datagram(&pair.bench, &a, QKEY);
    raise_datagram(&pair.bench, &b, QKEY);
    (pair.a, pair.b) = (a, b);
    pair
}

fn pair() -> Pair {
    pair_on(NicConfig::default())
}

/// The same, with senders that wait for the receiver's pages.
fn held() -> Pair {
    pair_on(NicConfig { datagram_faults: DatagramFaults::Hold, ..NicConfig::default() })
}

fn to_b(pair: &Pair, wr_id: u64, length: u32) -> SqWqe {
    datagram(wr_id, &[pair.source(0, length)], pair.b.qpn, QKEY)
}

fn dropped(pair: &Pair) -> u64 {
    pair.bench.nic.stats().datagrams_dropped
}

#[test]
fn a_datagram_arrives_behind_forty_bytes_that_stay_as_they_were() {
    let mut pair = pair();
    pair.bench.fill(pair.to, &[0xaa; GRH]);
    let pieces = [sge(pair.to, 100, pair.rkey), sge(pair.to + 0x1ff0, 1000, pair.rkey)];
    pair.b.receive(&pair.bench, 5, &pieces);
    let wqe = SqWqe { opcode: OP_SEND_IMM, imm: 77, ..to_b(&pair, 1, 500) };
    pair.run(&SqWqe { flags: WQE_SIGNALED | WQE_SOLICITED, ..wqe });
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 1);
    let got = pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    assert_eq!((got.wr_id, got.qpn, got.src_qpn, got.byte_len), (5, pair.b.qpn, pair.a.qpn, 540));
    assert_eq!((got.src_lid, got.sl, got.imm, got.opcode), (1, 3, 77, OP_SEND_IMM));
    assert_eq!(got.flags, CQE_RECEIVE | CQE_WITH_IMM | CQE_SOLICITED);
    assert_eq!(pair.bench.bytes(pair.to, GRH), [0xaa; GRH]);
    let arrived = [pair.bench.bytes(pair.to + 40, 60), pair.bench.bytes(pair.to + 0x1ff0, 440)].concat();
    assert_eq!(arrived, pair.bench.bytes(pair.from, 500));
    assert_eq!((pair.bench.bytes(pair.to + 0x1ff0 + 440, 1), dropped(&pair)), (vec![0], 0));
}

#[test]
fn with_a_global_route_the_header_is_in_front() {
    let mut pair = pair();
    let mut gid = [0; 16];
    gid[..2].copy_from_slice(&[0xfe, 0x80]);
    gid[8..].copy_from_slice(&NicConfig::default().node_guid.to_be_bytes());
    let half = |at: usize| u64::from_le_bytes(gid[at..at + 8].try_into().unwrap());
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 300, pair.rkey)]);
    let inline = [0x5a_u8; 13];
    let mut wqe = datagram(1, &[], pair.b.qpn, QKEY);
    (wqe.flags, wqe.inline_length) = (WQE_SIGNALED | WQE_INLINE, 13);
    zerocopy::IntoBytes::as_mut_bytes(&mut wqe.sge)[..13].copy_from_slice(&inline);
    let global = SqWqe { has_grh: 1, compare_add: half(0), swap: half(8), ..wqe };
    pair.run(&global);
    let got = pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    assert_eq!((got.byte_len, got.flags), (53, CQE_RECEIVE | CQE_GRH));
    let grh = pair.bench.bytes(pair.to, GRH);
    // BTH 12, DETH 8, payload 13 and 3 of padding, ICRC 4.
    assert_eq!(grh[..8], [0x60, 0, 0, 0, 0, 40, 0x1b, 64]);
    assert_eq!((&grh[8..24], &grh[24..]), (&gid[..], &gid[..]));
    assert_eq!(pair.bench.bytes(pair.to + 40, 14), [&inline[..], &[0]].concat());
    // Another GID is another port's.
    pair.b.receive(&pair.bench, 6, &[sge(pair.to, 300, pair.rkey)]);
    pair.run(&SqWqe { swap: !half(8), ..global });
    assert_eq!((pair.cq_b.drain(&pair.bench).len(), dropped(&pair)), (0, 1));
    assert_eq!(pair.cq_a.drain(&pair.bench).len(), 2);
}

#[test]
fn a_datagram_that_is_not_received_is_dropped_and_the_sender_succeeds() {
    let mut pair = pair();
    let good = to_b(&pair, 1, 100);
    pair.run(&good);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 139, pair.rkey)]);
    let connected = Qp::command(&pair.bench, pair.pd, [pair.cq_b.cqn; 2], pair.eq.eqn, LOG);
    let connected = Qp::create(&pair.bench, pair.context, &connected);
    connected.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    let unreachable = [
        good,
        SqWqe { dest_qpn: 0xff_fffe, ..good },
        SqWqe { dest_qpn: connected.qpn, ..good },
        SqWqe { dest_lid: 2, ..good },
        SqWqe { qkey: QKEY + 1, ..good },
    ];
    for wqe in &unreachable {
        pair.run(wqe);
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    }
    assert_eq!((dropped(&pair), pair.cq_b.drain(&pair.bench).len()), (1 + unreachable.len() as u64, 0));
    // The receive request that was too short is still there, for one that fits.
    pair.run(&to_b(&pair, 2, 99));
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).byte_len, 139);
    assert_eq!(pair.a.state(&pair.bench), QPS_RTS);
}

#[test]
fn a_key_with_the_high_bit_stands_for_the_senders_own() {
    let mut pair = pair();
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 300, pair.rkey)]);
    pair.run(&SqWqe { qkey: 1 << 31 | 999, ..to_b(&pair, 1, 8) });
    pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    let rekey = ModifyQp { mask: QP_ATTR_QKEY, qkey: 4, ..ModifyQp::default() };
    pair.a.modify(&pair.bench, &rekey).unwrap();
    pair.b.receive(&pair.bench, 6, &[sge(pair.to, 300, pair.rkey)]);
    pair.run(&SqWqe { qkey: 1 << 31, ..to_b(&pair, 2, 8) });
    assert_eq!((dropped(&pair), pair.cq_b.drain(&pair.bench).len()), (1, 0));
}

#[test]
fn a_failed_request_stops_the_send_queue_alone_and_can_be_recovered_from() {
    let mut pair = pair();
    let bad_key = datagram(1, &[sge(pair.from, 8, pair.lkey ^ 2)], pair.b.qpn, QKEY);
    pair.a.prepare(&pair.bench, &bad_key);
    pair.a.prepare(&pair.bench, &to_b(&pair, 2, 8));
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    let entries = pair.cq_a.drain(&pair.bench);
    let seen: Vec<_> = entries.iter().map(|e| (e.wr_id, e.status, e.vendor_error)).collect();
    assert_eq!(seen, [(1, WC_LOC_PROT_ERR, CAUSE_KEY), (2, WC_WR_FLUSH_ERR, CAUSE_NONE)]);
    assert_eq!(pair.a.state(&pair.bench), QPS_SQE);
    // It flushes what is sent, and still receives.
    pair.run(&to_b(&pair, 3, 8));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_WR_FLUSH_ERR).wr_id, 3);
    pair.a.receive(&pair.bench, 9, &[sge(pair.to, 300, pair.rkey)]);
    pair.b.send(&pair.bench, &datagram(4, &[pair.source(0, 8)], pair.a.qpn, QKEY));
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 9);
    pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    // There is no way to SQD, and one back to RTS.
    let to = |state| ModifyQp { mask: QP_ATTR_STATE, state, ..ModifyQp::default() };
    for state in [QPS_SQD, QPS_SQE, QPS_RTR, QPS_INIT] {
        assert_eq!(pair.a.modify(&pair.bench, &to(state)), Err(STATUS_BAD_STATE), "{state:?}");
    }
    pair.a.to(&pair.bench, QPS_RTS);
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 300, pair.rkey)]);
    pair.run(&to_b(&pair, 6, 8));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    assert!(pair.eq.drain(&pair.bench).is_empty());
}

#[test]
fn requests_that_no_datagram_can_be_fail_before_anything_is_sent() {
    let mut pair = pair();
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 8192, pair.rkey)]);
    let good = to_b(&pair, 1, 8);
    let bad = [
        (to_b(&pair, 1, 4097), WC_LOC_LEN_ERR),
        (SqWqe { opcode: OP_RDMA_WRITE, ..good }, WC_LOC_QP_OP_ERR),
        (SqWqe { opcode: OP_FETCH_ADD, ..good }, WC_LOC_QP_OP_ERR),
        (SqWqe { has_grh: 2, ..good }, WC_LOC_QP_OP_ERR),
        (SqWqe { sl: 16, ..good }, WC_LOC_QP_OP_ERR),
    ];
    for (wqe, status) in bad {
        pair.run(&wqe);
        pair.cq_a.expect(&pair.bench, status);
        assert_eq!(pair.a.state(&pair.bench), QPS_SQE);
        pair.a.to(&pair.bench, QPS_RTS);
    }
    assert!(pair.cq_b.drain(&pair.bench).is_empty());
    pair.run(&to_b(&pair, 2, 4096));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).byte_len, 4136);
}

#[test]
fn transitions_of_connected_queue_pairs_are_none_of_theirs() {
    let pair = Pair::unconnected(Bench::default());
    let command = Qp::command(&pair.bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, LOG);
    let qp = Qp::create(&pair.bench, pair.context, &CreateQp { kind: QPT_UD, ..command });
    for change in pair.a.steps(pair.b.qpn, QPS_RTS, PATIENT) {
        assert_eq!(qp.modify(&pair.bench, &change), Err(STATUS_BAD_STATE), "{change:?}");
    }
    for change in datagram_steps(pair.a.qpn, QKEY) {
        assert_eq!(pair.a.modify(&pair.bench, &change), Err(STATUS_BAD_STATE), "{change:?}");
    }
    raise_datagram(&pair.bench, &qp, QKEY);
    let attributes = qp.query(&pair.bench).attributes;
    assert_eq!((attributes.state, attributes.qkey, attributes.dest_qpn), (QPS_RTS, QKEY, 0));
    let unknown = Qp::command(&pair.bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, LOG);
    let unknown = CreateQp { kind: QpKind(2), ..unknown };
    assert_eq!(pair.bench.command::<_, ObjectId>(CMD_CREATE_QP, &unknown), Err(STATUS_BAD_PARAMETER));
}

#[test]
fn a_page_that_is_missing_at_either_end_is_waited_for_on_request() {
    for remote_faults in [RemoteFaults::Stall, RemoteFaults::Rnr] {
        let datagram_faults = DatagramFaults::Hold;
        let mut pair = pair_on(NicConfig { remote_faults, datagram_faults, ..NicConfig::default() });
        pair.b.receive(&pair.bench, 5, &[sge(HEAP + 0xff0, 0x100, pair.process)]);
        pair.run(&datagram(1, &[sge(HEAP + 0x5000, 100, pair.process)], pair.b.qpn, QKEY));
        let mut pages = Vec::new();
        for (page, write) in [(HEAP + 0x5000, false), (HEAP, true), (HEAP + 0x1000, true)] {
            let requests = pair.bench.iommu.take_requests();
            assert_eq!((requests.len(), requests[0].page.0, requests[0].write), (1, page, write));
            assert!(pair.cq_a.drain(&pair.bench).is_empty());
            let gpa = pair.map_page(page, write);
            pair.bench.fill(gpa, &pair.bench.bytes(pair.from, 0x1000));
            pages.push(gpa);
            pair.bench.iommu.answer(&requests[0], ResponseCode::Success);
            pair.bench.settle();
        }
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).byte_len, 140);
        // The first 40 bytes end 24 bytes into the second page.
        assert_eq!(pair.bench.bytes(pages[2] + 24, 100), pair.bench.bytes(pages[0], 100));
        assert_eq!(pair.bench.nic.stats().rnr_waits, 0);
    }
}

#[test]
fn a_receive_request_that_a_stalled_datagram_needs_may_serve_another() {
    let mut pair = held();
    let mut region = OnDemand::new(&pair.bench, pair.pd, HEAP, 1 << 20);
    pair.b.receive(&pair.bench, 5, &[sge(HEAP, 0x100, region.key)]);
    pair.run(&to_b(&pair, 1, 100));
    let fault = region.fault(&pair.bench);
    assert_eq!((fault.address, fault.code), (HEAP, FAULT_WRITE));
    // Its page comes before the answer does; the first datagram to retry takes the request.
    let gpa = region.fill(&pair.bench, HEAP, true);
    pair.b.send(&pair.bench, &SqWqe { sl: 7, ..to_b(&pair, 2, 50) });
    pair.bench.settle();
    let entries = pair.cq_b.drain(&pair.bench);
    assert_eq!(
        entries.iter().map(|e| (e.wr_id, e.status, e.byte_len)).collect::<Vec<_>>(),
        [(5, WC_SUCCESS, 90), (2, WC_SUCCESS, 0)]
    );
    assert_eq!(pair.bench.bytes(gpa + 40, 50), pair.bench.bytes(pair.from, 50));
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.bench.settle();
    // The first one finds no receive request any more, and is dropped, as datagrams may be.
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(dropped(&pair), 1);
}

#[test]
fn a_page_that_is_refused_to_the_receiver_is_its_error_not_the_senders() {
    let mut pair = held();
    pair.b.receive(&pair.bench, 5, &[sge(HEAP, 0x100, pair.process)]);
    pair.run(&to_b(&pair, 1, 100));
    let request = pair.bench.iommu.take_requests()[0];
    pair.bench.iommu.answer(&request, ResponseCode::InvalidRequest);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let entry = pair.cq_b.expect(&pair.bench, WC_LOC_PROT_ERR);
    assert_eq!((entry.wr_id, entry.vendor_error), (5, CAUSE_PAGE_REFUSED));
    assert_eq!((pair.a.state(&pair.bench), pair.b.state(&pair.bench)), (QPS_RTS, QPS_ERR));
    let stages = pair.bench.probe.stages();
    assert!(stages.contains(&Stage::Failed) && !stages.contains(&Stage::Copied), "{stages:?}");
}

#[test]
fn a_late_refusal_does_not_fail_a_newer_receive_request() {
    let mut pair = held();
    pair.b.receive(&pair.bench, 5, &[sge(HEAP, 0x100, pair.process)]);
    pair.run(&to_b(&pair, 1, 100));
    let late = pair.bench.iommu.take_requests()[0];
    pair.b.to(&pair.bench, QPS_RESET);
    pair.b.received = 0;
    refault_bus::dma::DmaMemory::store_u32(&pair.bench.ram, refault_bus::Gpa(pair.b.record + 64), 0).unwrap();
    raise_datagram(&pair.bench, &pair.b, QKEY);
    // A short one makes the receiver take its request, which has the same index as the one before.
    pair.b.receive(&pair.bench, 6, &[sge(pair.to, 60, pair.rkey)]);
    pair.b.send(&pair.bench, &to_b(&pair, 2, 30));
    pair.bench.settle();
    pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    pair.bench.iommu.answer(&late, ResponseCode::InvalidRequest);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.b.state(&pair.bench), QPS_RTS);
    pair.b.send(&pair.bench, &to_b(&pair, 3, 20));
    pair.bench.settle();
    let ids: Vec<_> = pair.cq_b.drain(&pair.bench).iter().map(|entry| entry.wr_id).collect();
    assert_eq!(ids, [6, 3]);
}

#[test]
fn a_receiver_whose_request_is_nonsense_fails_and_the_datagram_is_dropped() {
    let mut pair = pair();
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 300, pair.rkey ^ 2)]);
    pair.b.receive(&pair.bench, 6, &[]);
    pair.run(&to_b(&pair, 1, 8));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let entries = pair.cq_b.drain(&pair.bench);
    let seen: Vec<_> = entries.iter().map(|e| (e.wr_id, e.status, e.vendor_error)).collect();
    assert_eq!(seen, [(5, WC_LOC_PROT_ERR, CAUSE_KEY), (6, WC_WR_FLUSH_ERR, CAUSE_NONE)]);
    assert_eq!(pair.b.state(&pair.bench), QPS_ERR);
}

#[test]
fn a_datagram_whose_receiver_misses_a_page_is_dropped_and_a_later_one_arrives() {
    for on_demand in [false, true] {
        let mut pair = pair();
        let mut region = OnDemand::new(&pair.bench, pair.pd, HEAP, 1 << 20);
        let key = if on_demand { region.key } else { pair.process };
        pair.b.receive(&pair.bench, 5, &[sge(HEAP, 0x100, key)]);
        // The page is asked for once, however many datagrams miss it.
        for id in 1..4 {
            pair.run(&to_b(&pair, id, 100));
            assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, id);
        }
        let stats = pair.bench.nic.stats();
        assert_eq!((stats.datagrams_dropped, stats.datagrams_dropped_on_fault), (3, 3));
        assert_eq!(stats.page_requests + stats.page_faults, 1);
        let gpa = if on_demand {
            let fault = region.fault(&pair.bench);
            assert_eq!((fault.address, fault.code), (HEAP, FAULT_WRITE));
            let gpa = region.fill(&pair.bench, HEAP, true);
            resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
            gpa
        } else {
            let asked = pair.bench.iommu.take_requests()[0];
            assert!(asked.write);
            let gpa = pair.map_page(HEAP, true);
            pair.bench.iommu.answer(&asked, ResponseCode::Success);
            gpa
        };
        pair.bench.settle();
        assert!(pair.cq_b.drain(&pair.bench).is_empty(), "what was dropped stays dropped");
        pair.run(&to_b(&pair, 4, 50));
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        let got = pair.cq_b.expect(&pair.bench, WC_SUCCESS);
        assert_eq!((got.wr_id, got.byte_len), (5, 90));
        assert_eq!(pair.bench.bytes(gpa + 40, 50), pair.bench.bytes(pair.from, 50));
        // Every fault that was recorded has an end.
        let stages = pair.bench.probe.stages();
        let count = |stage| stages.iter().filter(|&&other| other == stage).count();
        assert_eq!((count(Stage::Miss), count(Stage::Failed), count(Stage::Copied)), (1, 1, 0));
    }
}

#[test]
fn a_receiver_that_misses_pages_holds_up_no_one_else_of_its_sender_s() {
    let mut pair = pair();
    let command = Qp::command(&pair.bench, pair.pd, [pair.cq_b.cqn; 2], pair.eq.eqn, LOG);
    let mut other = Qp::create(&pair.bench, pair.context, &CreateQp { kind: QPT_UD, ..command });
    raise_datagram(&pair.bench, &other, QKEY);
    pair.b.receive(&pair.bench, 5, &[sge(HEAP, 0x100, pair.process)]);
    other.receive(&pair.bench, 6, &[sge(pair.to, 0x100, pair.rkey)]);
    pair.a.prepare(&pair.bench, &to_b(&pair, 1, 100));
    pair.a.prepare(&pair.bench, &datagram(2, &[pair.source(0, 100)], other.qpn, QKEY));
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).wr_id, 6);
    assert_eq!(pair.cq_a.drain(&pair.bench).len(), 2);
}

#[test]
fn a_page_that_is_refused_after_the_datagram_was_dropped_is_the_receiver_s_error() {
    for on_demand in [false, true] {
        let mut pair = pair();
        let mut region = OnDemand::new(&pair.bench, pair.pd, HEAP, 1 << 20);
        let key = if on_demand { region.key } else { pair.process };
        pair.b.receive(&pair.bench, 5, &[sge(HEAP, 0x100, key)]);
        pair.run(&to_b(&pair, 1, 100));
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        if on_demand {
            resume(&pair.bench, region.fault(&pair.bench).token, FAULT_REFUSED).unwrap();
        } else {
            let asked = pair.bench.iommu.take_requests()[0];
            pair.bench.iommu.answer(&asked, ResponseCode::InvalidRequest);
        }
        pair.bench.settle();
        let entry = pair.cq_b.expect(&pair.bench, WC_LOC_PROT_ERR);
        assert_eq!((entry.wr_id, entry.vendor_error), (5, CAUSE_PAGE_REFUSED));
        assert_eq!((pair.a.state(&pair.bench), pair.b.state(&pair.bench)), (QPS_RTS, QPS_ERR));
    }
}

#[test]
fn a_late_refusal_of_a_dropped_datagram_s_page_does_not_fail_a_newer_receive_request() {
    let mut pair = pair();
    pair.b.receive(&pair.bench, 5, &[sge(HEAP, 0x100, pair.process)]);
    pair.run(&to_b(&pair, 1, 100));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let late = pair.bench.iommu.take_requests()[0];
    // The page came by another way, and the request is used up.
    pair.map_page(HEAP, true);
    pair.run(&to_b(&pair, 2, 100));
    pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    pair.b.receive(&pair.bench, 6, &[sge(pair.to, 60, pair.rkey)]);
    // Too long: the receiver takes its request, and keeps it.
    pair.run(&to_b(&pair, 3, 30));
    assert!(pair.cq_b.drain(&pair.bench).is_empty());
    pair.bench.iommu.answer(&late, ResponseCode::InvalidRequest);
    pair.bench.settle();
    assert_eq!(pair.b.state(&pair.bench), QPS_RTS);
    pair.run(&to_b(&pair, 4, 20));
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).wr_id, 6);
}

/// A queue pair that waits for a page of its own, and whose receive request needs the same one.
#[test]
fn both_halves_of_a_queue_pair_may_want_the_same_page() {
    let mut pair = pair();
    pair.b.receive(&pair.bench, 5, &[sge(HEAP, 0x100, pair.process)]);
    pair.run(&to_b(&pair, 1, 100));
    let asked = pair.bench.iommu.take_requests()[0];
    // B misses for reading what its receive request misses for writing.
    pair.b.send(&pair.bench, &datagram(2, &[sge(HEAP, 8, pair.process)], pair.a.qpn, QKEY));
    pair.bench.settle();
    let own = pair.bench.iommu.take_requests()[0];
    pair.map_page(HEAP, true);
    for request in [own, asked] {
        pair.bench.iommu.answer(&request, ResponseCode::Success);
        pair.bench.settle();
    }
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).wr_id, 2);
}
