//! The queue pair's life: transitions, draining, reset, destruction.

use refault_abi::codes::{
    ACCESS_REMOTE_READ, OP_SEND, QPS_ERR, QPS_INIT, QPS_RESET, QPS_RTR, QPS_RTS, QPS_SQD, QPS_SQE, QpState,
    WC_RETRY_EXC_ERR, WC_SUCCESS, WC_WR_FLUSH_ERR,
};
use refault_abi::command::{
    CMD_CREATE_MR, CMD_CREATE_QP, CMD_QUERY_QP, CMD_STOP_CONTEXT, CreateMr, MR_PASID, ModifyQp, ObjectId,
    QP_ATTR_ACCESS, QP_ATTR_MAX_RD_ATOMIC, QP_ATTR_PKEY, QP_ATTR_PORT, QP_ATTR_RETRY, QP_ATTR_RNR_RETRY,
    QP_ATTR_SQ_PSN, QP_ATTR_STATE, QP_ATTR_TIMEOUT, QpSnapshot, STATUS_BAD_PARAMETER, STATUS_BAD_STATE,
    STATUS_NO_OBJECT,
};
use refault_abi::event::{EVENT_QP, QP_EVENT_SQ_DRAINED};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use refault_bus::pri::ResponseCode;

use crate::support::driver::*;
use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;

#[test]
fn attributes_come_back_as_they_were_set() {
    let pair = Pair::unconnected(Bench::default());
    assert_eq!(pair.a.query(&pair.bench).attributes, ModifyQp { qpn: pair.a.qpn, ..ModifyQp::default() });
    let gid = [7; 16];
    let with = ModifyQp { dest_gid: gid, has_grh: 1, sl: 3, access: ACCESS_REMOTE_READ, ..PATIENT };
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, with);
    let expected = ModifyQp {
        qpn: pair.a.qpn,
        state: QPS_RTS,
        port: 1,
        path_mtu: 3,
        dest_qpn: pair.b.qpn,
        dest_lid: 1,
        ..with
    };
    assert_eq!(pair.a.query(&pair.bench).attributes, expected);
}

#[test]
fn transitions_that_are_none_change_nothing() {
    let pair = Pair::unconnected(Bench::default());
    let to = |state| ModifyQp { mask: QP_ATTR_STATE, state, ..ModifyQp::default() };
    for state in [QPS_INIT, QPS_RTR, QPS_RTS, QPS_SQD, QPS_SQE, QpState(7), QpState(255)] {
        assert_eq!(pair.a.modify(&pair.bench, &to(state)), Err(STATUS_BAD_STATE), "{state:?}");
    }
    let bad_port = ModifyQp {
        mask: QP_ATTR_STATE | QP_ATTR_ACCESS | QP_ATTR_PKEY | QP_ATTR_PORT,
        state: QPS_INIT,
        port: 2,
        ..ModifyQp::default()
    };
    assert_eq!(pair.a.modify(&pair.bench, &bad_port), Err(STATUS_BAD_PARAMETER));
    assert_eq!(pair.a.state(&pair.bench), QPS_RESET);
}

#[test]
fn requests_wait_until_the_queue_pair_may_send() {
    let mut pair = Pair::unconnected(Bench::default());
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTR, PATIENT);
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    let mask = QP_ATTR_STATE
        | QP_ATTR_SQ_PSN
        | QP_ATTR_TIMEOUT
        | QP_ATTR_RETRY
        | QP_ATTR_RNR_RETRY
        | QP_ATTR_MAX_RD_ATOMIC;
    pair.a.modify(&pair.bench, &ModifyQp { mask, state: QPS_RTS, ..PATIENT }).unwrap();
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn draining_finishes_the_request_at_hand_and_holds_the_rest() {
    // All that was sent is finished.
    if IN_PACKETS {
        return;
    }
    let mut pair = Pair::new();
    pair.a.prepare(&pair.bench, &pair.write(1, 8, HEAP, pair.process));
    pair.a.prepare(&pair.bench, &pair.write(2, 8, pair.to, pair.rkey));
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    pair.a.to(&pair.bench, QPS_SQD);
    assert_eq!(pair.a.query(&pair.bench).draining, 1);
    assert!(pair.eq.drain(&pair.bench).is_empty());
    let request = pair.bench.iommu.take_requests()[0];
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 1);
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_SQ_DRAINED.0, pair.a.qpn)]);
    assert_eq!(pair.a.query(&pair.bench).draining, 0);
    // Drained: it still receives, and goes on where it stopped.
    pair.a.receive(&pair.bench, 5, &[]);
    pair.b.send(&pair.bench, &request_send());
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 5);
    pair.a.to(&pair.bench, QPS_RTS);
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 2);
}

fn request_send() -> refault_abi::queue::SqWqe {
    request(OP_SEND, 6, &[])
}

#[test]
fn error_flushes_a_request_that_waits_for_a_page_and_the_late_answer_wakes_no_waiter() {
    let mut pair = Pair::new();
    pair.b.receive(&pair.bench, 5, &[]);
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let request = pair.bench.iommu.take_requests()[0];
    pair.a.to(&pair.bench, QPS_ERR);
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_WR_FLUSH_ERR).wr_id, 1);
    pair.bench.iommu.answer(&request, ResponseCode::InvalidRequest);
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    assert_eq!(pair.bench.nic.stats().page_responses_unexpected, 0);
}

#[test]
fn reset_begins_again_at_index_zero_without_a_completion() {
    // The peer goes on in its sequence.
    if IN_PACKETS {
        return;
    }
    let mut pair = Pair::new();
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let late = pair.bench.iommu.take_requests()[0];
    pair.a.to(&pair.bench, QPS_RESET);
    let query = pair.a.query(&pair.bench);
    assert_eq!((query.sq_consumer, query.attributes.dest_qpn), (0, 0));
    pair.a.sent = 0;
    pair.bench.ram.store_u32(Gpa(pair.a.record), 0).unwrap();
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, PATIENT);
    pair.bench.iommu.answer(&late, ResponseCode::InvalidRequest);
    pair.run(&pair.write(2, 8, pair.to, pair.rkey));
    let entry = pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!((entry.wr_id, entry.wqe_index), (2, 0));
}

#[test]
fn destruction_ends_everything_and_the_number_names_no_object() {
    let mut pair = Pair::new();
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let late = pair.bench.iommu.take_requests()[0];
    pair.a.destroy(&pair.bench).unwrap();
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&late, ResponseCode::Success);
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    let id = ObjectId { id: pair.a.qpn, reserved: 0 };
    assert_eq!(pair.bench.command::<_, QpSnapshot>(CMD_QUERY_QP, &id), Err(STATUS_NO_OBJECT));
    let next = Qp::create(
        &pair.bench,
        pair.context,
        &Qp::command(&pair.bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, LOG),
    );
    assert_ne!(next.qpn, pair.a.qpn);
    assert_eq!(next.state(&pair.bench), QPS_RESET);
}

#[test]
fn a_destroyed_peer_is_a_peer_that_does_not_answer() {
    let mut pair = Pair::with(ModifyQp { timeout: 1, retry_count: 0, ..PATIENT });
    pair.b.destroy(&pair.bench).unwrap();
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pair.bench.advance(8192);
    pair.cq_a.expect(&pair.bench, WC_RETRY_EXC_ERR);
}

#[test]
fn a_stopped_context_never_touches_its_process_again() {
    let mut pair = Pair::new();
    pair.map_page(HEAP, true);
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.run(&pair.write(2, 8, HEAP + 0x1000, pair.process));
    let late = pair.bench.iommu.take_requests()[0];
    pair.bench.urgent_command(CMD_STOP_CONTEXT, pair.context).unwrap();
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_WR_FLUSH_ERR).wr_id, 2);
    assert_eq!((pair.a.state(&pair.bench), pair.b.state(&pair.bench)), (QPS_ERR, QPS_ERR));
    // Nor can it be brought back.
    pair.a.to(&pair.bench, QPS_RESET);
    let init = ModifyQp {
        mask: QP_ATTR_STATE | QP_ATTR_ACCESS | QP_ATTR_PKEY | QP_ATTR_PORT,
        state: QPS_INIT,
        port: 1,
        ..ModifyQp::default()
    };
    assert_eq!(pair.a.modify(&pair.bench, &init), Err(STATUS_BAD_STATE));
    let command = Qp::command(&pair.bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, LOG);
    assert_eq!(pair.bench.command::<_, ObjectId>(CMD_CREATE_QP, &command), Err(STATUS_BAD_STATE));
    let region = CreateMr { length: u64::MAX, pd: pair.pd, mode: MR_PASID, ..CreateMr::default() };
    assert_eq!(pair.bench.command::<_, ObjectId>(CMD_CREATE_MR, &region), Err(STATUS_BAD_STATE));
    pair.bench.iommu.answer(&late, ResponseCode::Success);
    pair.bench.settle();
    assert!(pair.bench.iommu.take_requests().is_empty());
}

#[test]
fn a_receiver_that_starts_anew_gets_the_message_from_its_beginning() {
    // Packets from before do not fit its sequence.
    if IN_PACKETS {
        return;
    }
    let mut pair = Pair::new();
    pair.map_page(HEAP, true);
    pair.b.receive(&pair.bench, 5, &[sge(HEAP, 0x2000, pair.process)]);
    pair.run(&request(OP_SEND, 1, &[pair.source(0, 0x2000)]));
    let request = pair.bench.iommu.take_requests()[0];
    pair.b.to(&pair.bench, QPS_RESET);
    pair.b.received = 0;
    pair.bench.ram.store_u32(Gpa(pair.b.record + 64), 0).unwrap();
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    pair.b.receive(&pair.bench, 6, &[sge(pair.to, 0x2000, pair.rkey)]);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).wr_id, 6);
    assert_eq!(pair.bench.bytes(pair.to, 0x2000), pair.bench.bytes(pair.from, 0x2000));
}

#[test]
fn a_queue_pair_that_goes_on_before_it_is_drained_is_not_draining() {
    let mut pair = Pair::new();
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let asked = pair.bench.iommu.take_requests()[0];
    pair.a.to(&pair.bench, QPS_SQD);
    assert_eq!(pair.a.query(&pair.bench).draining, 1);
    pair.a.to(&pair.bench, QPS_RTS);
    assert_eq!(pair.a.query(&pair.bench).draining, 0);
    pair.a.to(&pair.bench, QPS_SQD);
    // An attribute that changes meanwhile is no reason to forget the event.
    let change = ModifyQp { mask: QP_ATTR_TIMEOUT, timeout: 3, ..ModifyQp::default() };
    pair.a.modify(&pair.bench, &change).unwrap();
    assert!(pair.eq.drain(&pair.bench).is_empty());
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&asked, ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_SQ_DRAINED.0, pair.a.qpn)]);
    pair.a.to(&pair.bench, QPS_RTS);
    // Each time in SQD has an event of its own.
    pair.a.to(&pair.bench, QPS_SQD);
    pair.bench.settle();
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_SQ_DRAINED.0, pair.a.qpn)]);
}
