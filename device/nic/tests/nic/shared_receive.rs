//! Shared receive queues: the order of requests, limits, errors, and queue pairs that are destroyed with a request.

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, CAUSE_KEY, OP_SEND, QPS_ERR, QPS_RESET, QPS_RTS, QPT_UD, WC_LOC_PROT_ERR,
    WC_REM_OP_ERR, WC_SUCCESS, WC_WR_FLUSH_ERR,
};
use refault_abi::command::{
    CMD_CREATE_QP, CMD_CREATE_SRQ, CMD_DESTROY_PD, CMD_QUERY_SRQ, CreateQp, CreateSrq, ModifyQp, ObjectId,
    STATUS_BAD_PARAMETER, STATUS_BUSY, STATUS_NO_OBJECT, SrqState,
};
use refault_abi::event::{
    EVENT_QP, EVENT_SRQ, QP_EVENT_FATAL, QP_EVENT_LAST_WQE_REACHED, SRQ_EVENT_ERROR, SRQ_EVENT_LIMIT_REACHED,
};
use refault_abi::queue::{Cqe, SqWqe};
use refault_bus::pri::ResponseCode;

use crate::support::driver::*;
use crate::support::shared::*;
use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;

/// A pair of connected queue pairs that take from one shared queue; it is of a domain of its own.
fn pair() -> (Pair, Srq) {
    let mut pair = Pair::unconnected(Bench::default());
    let srq = Srq::new(&pair.bench, pair.pd, pair.eq.eqn, 3);
    let create = |cqn: u32| {
        let command = Qp::command(&pair.bench, pair.pd, [cqn; 2], pair.eq.eqn, LOG);
        Qp::create(&pair.bench, pair.context, &CreateQp { srqn: srq.srqn, ..command })
    };
    let (a, b) = (create(pair.cq_a.cqn), create(pair.cq_b.cqn));
    let patient = ModifyQp { min_rnr_timer: 1, ..PATIENT };
    a.raise(&pair.bench, b.qpn, QPS_RTS, patient);
    b.raise(&pair.bench, a.qpn, QPS_RTS, patient);
    (pair.a, pair.b) = (a, b);
    (pair, srq)
}

fn send(pair: &Pair, wr_id: u64, length: u32) -> SqWqe {
    request(OP_SEND, wr_id, &[pair.source(0, length)])
}

#[test]
fn both_ends_take_from_one_queue_in_its_order() {
    let (mut pair, mut srq) = pair();
    for index in 0..4 {
        srq.post(&pair.bench, 10 + index, &[sge(pair.to + 0x1000 * index, 0x1000, pair.rkey)]);
    }
    pair.run(&send(&pair, 1, 700));
    pair.b.send(&pair.bench, &send(&pair, 2, 800));
    pair.bench.settle();
    let taken = |entries: Vec<Cqe>| entries.iter().map(|e| (e.wr_id, e.wqe_index)).collect::<Vec<_>>();
    assert_eq!(taken(pair.cq_b.drain(&pair.bench)), [(10, 0), (2, 0)]);
    assert_eq!(taken(pair.cq_a.drain(&pair.bench)), [(1, 0), (11, 1)]);
    assert_eq!((srq.consumer(&pair.bench), srq.state(&pair.bench).consumer), (2, 2));
    assert_eq!(pair.bench.bytes(pair.to + 0x1000, 800), pair.bench.bytes(pair.from, 800));
    // Ring entries come round: what was taken was given back.
    for index in 4..12 {
        srq.post(&pair.bench, 10 + index, &[sge(pair.to, 0x1000, pair.rkey)]);
        pair.run(&send(&pair, 1, 8));
    }
    let ids: Vec<_> = pair.cq_b.drain(&pair.bench).iter().map(|entry| entry.wr_id).collect();
    assert_eq!(ids, (12..20).collect::<Vec<_>>());
}

#[test]
fn an_empty_queue_is_a_receiver_that_is_not_ready() {
    let (mut pair, mut srq) = pair();
    pair.run(&send(&pair, 1, 8));
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    assert_eq!(pair.bench.nic.stats().rnr_waits, 1);
    srq.post(&pair.bench, 10, &[sge(pair.to, 8, pair.rkey)]);
    pair.bench.advance(10_000);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).wr_id, 10);
}

#[test]
fn each_arming_of_the_limit_sends_one_event() {
    let (mut pair, mut srq) = pair();
    let reached = [(EVENT_SRQ, SRQ_EVENT_LIMIT_REACHED.0, srq.srqn)];
    for index in 0..8 {
        srq.post(&pair.bench, index, &[sge(pair.to, 8, pair.rkey)]);
    }
    srq.arm(&pair.bench, 7).unwrap();
    assert_eq!(srq.state(&pair.bench).limit, 7);
    pair.run(&send(&pair, 1, 8));
    assert!(pair.eq.drain(&pair.bench).is_empty(), "seven are left");
    pair.run(&send(&pair, 2, 8));
    assert_eq!(pair.eq.drain(&pair.bench), reached);
    assert_eq!(srq.state(&pair.bench).limit, 0);
    pair.run(&send(&pair, 3, 8));
    assert!(pair.eq.drain(&pair.bench).is_empty());
    // Five are left: fewer than six, reported at once; and not fewer than five.
    srq.arm(&pair.bench, 5).unwrap();
    assert!(pair.eq.drain(&pair.bench).is_empty());
    srq.arm(&pair.bench, 6).unwrap();
    assert_eq!(pair.eq.drain(&pair.bench), reached);
    // What was posted since the device looked last counts.
    srq.post(&pair.bench, 9, &[sge(pair.to, 8, pair.rkey)]);
    srq.arm(&pair.bench, 5).unwrap();
    pair.run(&send(&pair, 4, 8));
    assert!(pair.eq.drain(&pair.bench).is_empty());
    srq.arm(&pair.bench, 0).unwrap();
    pair.run(&send(&pair, 5, 8));
    assert!(pair.eq.drain(&pair.bench).is_empty(), "disarmed");
    assert_eq!(srq.arm(&pair.bench, 9), Err(STATUS_BAD_PARAMETER), "more than the ring holds");
    srq.arm(&pair.bench, 8).unwrap();
}

#[test]
fn an_index_out_of_range_loses_the_queue_and_the_queue_pairs_that_take_from_it() {
    let (mut pair, mut srq) = pair();
    srq.publish(&pair.bench, 9);
    pair.run(&send(&pair, 1, 8));
    let events = pair.eq.drain(&pair.bench);
    assert!(events.contains(&(EVENT_SRQ, SRQ_EVENT_ERROR.0, srq.srqn)), "{events:?}");
    assert!(events.contains(&(EVENT_QP, QP_EVENT_FATAL.0, pair.b.qpn)), "{events:?}");
    assert!(events.contains(&(EVENT_QP, QP_EVENT_LAST_WQE_REACHED.0, pair.b.qpn)), "{events:?}");
    pair.cq_a.expect(&pair.bench, WC_REM_OP_ERR);
    assert_eq!((pair.a.state(&pair.bench), pair.b.state(&pair.bench)), (QPS_ERR, QPS_ERR));
    // It stays lost, and says so once.
    srq.publish(&pair.bench, 1);
    srq.arm(&pair.bench, 3).unwrap();
    let events = pair.eq.drain(&pair.bench);
    assert!(events.iter().all(|event| event.0 != EVENT_SRQ), "{events:?}");
}

#[test]
fn memory_that_is_gone_loses_the_queue_too() {
    let (mut pair, mut srq) = pair();
    srq.post(&pair.bench, 1, &[sge(pair.to, 8, pair.rkey)]);
    let at = pair.bench.command::<_, SrqState>(CMD_QUERY_SRQ, &ObjectId { id: srq.srqn, reserved: 0 });
    assert_eq!(at.unwrap().consumer, 0);
    pair.bench.iommu.block(srq.address());
    pair.bench.iommu.invalidate(None, srq.address() & !0xfff, 12);
    pair.run(&send(&pair, 1, 8));
    pair.cq_a.expect(&pair.bench, WC_REM_OP_ERR);
    assert!(pair.eq.drain(&pair.bench).contains(&(EVENT_SRQ, SRQ_EVENT_ERROR.0, srq.srqn)));
    pair.bench.iommu.unblock_all();
}

#[test]
fn in_error_a_queue_pair_flushes_only_what_it_holds() {
    let (mut pair, mut srq) = pair();
    srq.post(&pair.bench, 10, &[sge(HEAP, 8, pair.process)]);
    srq.post(&pair.bench, 11, &[sge(pair.to, 8, pair.rkey)]);
    pair.run(&send(&pair, 1, 8));
    let late = pair.bench.iommu.take_requests()[0];
    pair.b.to(&pair.bench, QPS_ERR);
    pair.bench.settle();
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_WR_FLUSH_ERR).wr_id, 10);
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_LAST_WQE_REACHED.0, pair.b.qpn)]);
    pair.b.ring(&pair.bench);
    pair.bench.settle();
    assert!(pair.eq.drain(&pair.bench).is_empty() && pair.cq_b.drain(&pair.bench).is_empty());
    // The other one goes on with the next request.
    pair.bench.iommu.answer(&late, ResponseCode::Success);
    pair.a.to(&pair.bench, QPS_ERR);
    pair.bench.settle();
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_LAST_WQE_REACHED.0, pair.a.qpn)]);
    pair.cq_a.expect(&pair.bench, WC_WR_FLUSH_ERR);
    assert_eq!((srq.consumer(&pair.bench), pair.bench.iommu.take_requests().len()), (1, 0));
    // After RESET it can be reported again.
    pair.b.to(&pair.bench, QPS_RESET);
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    pair.b.to(&pair.bench, QPS_ERR);
    pair.bench.settle();
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_LAST_WQE_REACHED.0, pair.b.qpn)]);
}

#[test]
fn a_queue_pair_that_is_destroyed_takes_what_it_holds_with_it() {
    let (mut pair, mut srq) = pair();
    srq.post(&pair.bench, 10, &[sge(HEAP, 8, pair.process)]);
    srq.post(&pair.bench, 11, &[sge(pair.to, 8, pair.rkey)]);
    pair.run(&send(&pair, 1, 8));
    let late = pair.bench.iommu.take_requests()[0];
    assert_eq!(srq.destroy(&pair.bench), Err(STATUS_BUSY));
    pair.b.destroy(&pair.bench).unwrap();
    pair.bench.iommu.answer(&late, ResponseCode::Success);
    pair.bench.settle();
    assert!(pair.cq_b.drain(&pair.bench).is_empty());
    // The next one goes on behind it.
    let command = Qp::command(&pair.bench, pair.pd, [pair.cq_b.cqn; 2], pair.eq.eqn, LOG);
    let next = Qp::create(&pair.bench, pair.context, &CreateQp { srqn: srq.srqn, ..command });
    pair.a.to(&pair.bench, QPS_RESET);
    pair.a.sent = 0;
    refault_bus::dma::DmaMemory::store_u32(&pair.bench.ram, refault_bus::Gpa(pair.a.record), 0).unwrap();
    pair.a.raise(&pair.bench, next.qpn, QPS_RTS, PATIENT);
    next.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    pair.run(&send(&pair, 2, 8));
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).wr_id, 11);
    pair.a.destroy(&pair.bench).unwrap();
    assert_eq!(srq.destroy(&pair.bench), Err(STATUS_BUSY));
    next.destroy(&pair.bench).unwrap();
    srq.destroy(&pair.bench).unwrap();
    assert_eq!(srq.arm(&pair.bench, 1), Err(STATUS_NO_OBJECT));
    assert_eq!(srq.destroy(&pair.bench), Err(STATUS_NO_OBJECT));
}

#[test]
fn datagrams_are_received_through_it_in_its_own_domain() {
    let mut pair = Pair::unconnected(Bench::default());
    // The requests' memory belongs to the queue's domain, not to the queue pair's.
    let other = pair.bench.pd(pair.context);
    let mut srq = Srq::new(&pair.bench, other, pair.eq.eqn, 3);
    let key = pair.bench.pinned(other, pair.to, pair.to, BUFFER, ACCESS_LOCAL_WRITE);
    let create = |cqn: u32| {
        let command = Qp::command(&pair.bench, pair.pd, [cqn; 2], pair.eq.eqn, LOG);
        Qp::create(&pair.bench, pair.context, &CreateQp { srqn: srq.srqn, kind: QPT_UD, ..command })
    };
    let (a, b) = (create(pair.cq_a.cqn), create(pair.cq_b.cqn));
    (pair.a, pair.b) = (a, b);
    for qp in [&pair.a, &pair.b] {
        raise_datagram(&pair.bench, qp, 9);
    }
    srq.post(&pair.bench, 10, &[sge(pair.to, 100, key)]);
    srq.post(&pair.bench, 11, &[sge(pair.to, 100, pair.rkey)]);
    let to_b = datagram(1, &[pair.source(0, 32)], pair.b.qpn, 9);
    pair.run(&to_b);
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).wr_id, 10);
    pair.run(&to_b);
    let entry = pair.cq_b.expect(&pair.bench, WC_LOC_PROT_ERR);
    assert_eq!((entry.wr_id, entry.vendor_error), (11, CAUSE_KEY));
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_LAST_WQE_REACHED.0, pair.b.qpn)]);
    assert_eq!(pair.bench.id_command(CMD_DESTROY_PD, other), Err(STATUS_BUSY));
}

#[test]
fn what_cannot_be_created_is_refused() {
    let pair = Pair::unconnected(Bench::default());
    let good = Srq::command(&pair.bench, pair.pd, pair.eq.eqn, 3);
    for (bad, status) in [
        (CreateSrq { pd: 99, ..good }, STATUS_NO_OBJECT),
        (CreateSrq { eqn: 9, ..good }, STATUS_NO_OBJECT),
        (CreateSrq { log_size: 15, ..good }, STATUS_BAD_PARAMETER),
        (CreateSrq { log_size: 4, ..good }, STATUS_BAD_PARAMETER),
        (CreateSrq { record_offset: 1024 + 64, ..good }, STATUS_BAD_PARAMETER),
        (CreateSrq { record_offset: 0x1000, ..good }, STATUS_BAD_PARAMETER),
    ] {
        assert_eq!(pair.bench.command::<_, ObjectId>(CMD_CREATE_SRQ, &bad), Err(status), "{bad:?}");
    }
    let srq = Srq::new(&pair.bench, pair.pd, pair.eq.eqn, 0);
    let qp = Qp::command(&pair.bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, LOG);
    let unknown = CreateQp { srqn: srq.srqn + 1, ..qp };
    assert_eq!(pair.bench.command::<_, ObjectId>(CMD_CREATE_QP, &unknown), Err(STATUS_NO_OBJECT));
    // A shared queue of another process is refused.
    let foreign = pair.bench.pd(pair.bench.context(None));
    let foreign = Srq::new(&pair.bench, foreign, pair.eq.eqn, 3);
    let stolen = CreateQp { srqn: foreign.srqn, ..qp };
    assert_eq!(pair.bench.command::<_, ObjectId>(CMD_CREATE_QP, &stolen), Err(STATUS_BAD_PARAMETER));
    // With a shared queue the buffer needs no room for a receive ring.
    let short = CreateQp { srqn: srq.srqn, record_offset: qp.rq_offset, ..qp };
    assert_eq!(
        pair.bench.command::<_, ObjectId>(CMD_CREATE_QP, &CreateQp { srqn: 0, ..short }),
        Err(STATUS_BAD_PARAMETER)
    );
    pair.bench.command::<_, ObjectId>(CMD_CREATE_QP, &short).unwrap();
}

#[test]
fn a_reset_takes_shared_queues_with_everything_else() {
    let (mut pair, mut srq) = pair();
    srq.post(&pair.bench, 10, &[sge(HEAP, 8, pair.process)]);
    srq.arm(&pair.bench, 1).unwrap();
    pair.run(&send(&pair, 1, 8));
    let late = pair.bench.iommu.take_requests()[0];
    pair.bench.write32(refault_abi::regs::REG_CONTROL, refault_abi::regs::CONTROL_RESET);
    pair.bench.enable();
    pair.bench.iommu.answer(&late, ResponseCode::Success);
    pair.bench.settle();
    assert_eq!(srq.destroy(&pair.bench), Err(STATUS_NO_OBJECT));
    assert!(pair.cq_b.drain(&pair.bench).is_empty());
}
