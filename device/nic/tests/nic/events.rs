//! Completion and event queues: arming, interrupts, overflow.

use refault_abi::codes::{OP_SEND, QPS_ERR, QPS_RTS, WC_SUCCESS};
use refault_abi::event::EVENT_COMPLETION;
use refault_abi::queue::{SqWqe, WQE_SIGNALED, WQE_SOLICITED};

use crate::support::driver::*;
use crate::support::*;

#[test]
fn an_armed_queue_sends_one_event_and_one_interrupt() {
    let mut pair = Pair::new();
    pair.eq.doorbell(&pair.bench, true);
    pair.cq_a.arm(&pair.bench, false);
    assert!(pair.eq.drain(&pair.bench).is_empty());
    for wr_id in 0..3 {
        pair.run(&pair.write(wr_id, 8, pair.to, pair.rkey));
    }
    assert_eq!(pair.bench.interrupts.take(), [1]);
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_COMPLETION, 0, pair.cq_a.cqn)]);
    assert_eq!(pair.cq_a.drain(&pair.bench).len(), 3);
    // The event and the interrupt were sent: both must be armed again.
    pair.run(&pair.write(3, 8, pair.to, pair.rkey));
    assert!(pair.eq.drain(&pair.bench).is_empty());
    pair.eq.doorbell(&pair.bench, false);
    assert!(pair.bench.interrupts.take().is_empty());
}

#[test]
fn arming_with_an_unseen_completion_sends_an_event_at_once() {
    let mut pair = Pair::new();
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pair.cq_a.arm(&pair.bench, false);
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_COMPLETION, 0, pair.cq_a.cqn)]);
    pair.eq.doorbell(&pair.bench, true);
    assert!(pair.bench.interrupts.take().is_empty());
    // An event that is already there interrupts when the queue is armed.
    pair.cq_a.arm(&pair.bench, false);
    assert_eq!(pair.bench.interrupts.take(), [1]);
}

#[test]
fn an_event_not_consumed_interrupts_when_armed() {
    let mut pair = Pair::new();
    pair.cq_a.arm(&pair.bench, false);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    assert!(pair.bench.interrupts.take().is_empty());
    pair.eq.doorbell(&pair.bench, true);
    assert_eq!(pair.bench.interrupts.take(), [1]);
}

#[test]
fn solicited_arming_waits_for_a_solicited_or_failed_completion() {
    let mut pair = Pair::new();
    let send = request(OP_SEND, 1, &[]);
    for wr_id in 0..3 {
        pair.b.receive(&pair.bench, wr_id, &[]);
    }
    pair.cq_b.arm(&pair.bench, true);
    pair.run(&send);
    assert!(pair.eq.drain(&pair.bench).is_empty());
    pair.run(&SqWqe { flags: WQE_SIGNALED | WQE_SOLICITED, ..send });
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_COMPLETION, 0, pair.cq_b.cqn)]);
    // Behind a solicited one that was not seen: at once; behind an unsolicited one: not.
    pair.cq_b.arm(&pair.bench, true);
    assert_eq!(pair.eq.drain(&pair.bench).len(), 1);
    pair.cq_b.drain(&pair.bench);
    pair.run(&send);
    pair.cq_b.arm(&pair.bench, true);
    assert!(pair.eq.drain(&pair.bench).is_empty());
    pair.b.receive(&pair.bench, 9, &[]);
    pair.b.to(&pair.bench, QPS_ERR);
    pair.bench.settle();
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_COMPLETION, 0, pair.cq_b.cqn)]);
}

#[test]
fn arming_for_any_is_not_undone_by_arming_for_solicited() {
    let mut pair = Pair::new();
    pair.cq_a.arm(&pair.bench, false);
    pair.cq_a.arm(&pair.bench, true);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    assert_eq!(pair.eq.drain(&pair.bench).len(), 1);
}

#[test]
fn a_full_event_queue_loses_nothing() {
    let mut pair = Pair::new();
    let mut eq = Eq::new(&pair.bench, 1, 2);
    let cqs: Vec<Cq> = (0..6).map(|_| Cq::new(&pair.bench, pair.context, eq.eqn, 4)).collect();
    for cq in &cqs {
        let command = Qp::command(&pair.bench, pair.pd, [cq.cqn; 2], eq.eqn, LOG);
        let mut qp = Qp::create(&pair.bench, pair.context, &command);
        cq.arm(&pair.bench, false);
        qp.raise(&pair.bench, qp.qpn, QPS_RTS, PATIENT);
        qp.send(&pair.bench, &pair.write(1, 8, pair.to, pair.rkey));
        pair.bench.settle();
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(eq.drain(&pair.bench));
        eq.doorbell(&pair.bench, true);
        pair.bench.settle();
    }
    let numbers: Vec<u32> = seen.iter().map(|(_, _, number)| *number).collect();
    assert_eq!(numbers, cqs.iter().map(|cq| cq.cqn).collect::<Vec<_>>());
    assert_eq!(pair.bench.interrupts.take(), [2, 2]);
    pair.cq_a.drain(&pair.bench);
}

#[test]
fn events_of_objects_that_are_gone_are_not_sent() {
    let pair = Pair::new();
    let mut eq = Eq::new(&pair.bench, 0, 2);
    let keep = Cq::new(&pair.bench, pair.context, eq.eqn, 4);
    let gone = Cq::new(&pair.bench, pair.context, eq.eqn, 4);
    for cq in [&keep, &gone] {
        let command = Qp::command(&pair.bench, pair.pd, [cq.cqn; 2], eq.eqn, LOG);
        let mut qp = Qp::create(&pair.bench, pair.context, &command);
        cq.arm(&pair.bench, false);
        qp.raise(&pair.bench, qp.qpn, QPS_RTS, PATIENT);
        qp.send(&pair.bench, &pair.write(1, 8, pair.to, pair.rkey));
        pair.bench.settle();
        qp.destroy(&pair.bench).unwrap();
    }
    pair.bench.id_command(refault_abi::command::CMD_DESTROY_CQ, gone.cqn).unwrap();
    assert_eq!(eq.drain(&pair.bench), [(EVENT_COMPLETION, 0, keep.cqn)]);
    eq.doorbell(&pair.bench, true);
    assert!(eq.drain(&pair.bench).is_empty());
}

#[test]
fn a_completion_ring_wraps_with_its_phase() {
    let mut pair = Pair::unconnected(Bench::default());
    let mut small = Cq::new(&pair.bench, pair.context, pair.eq.eqn, 2);
    let command = Qp::command(&pair.bench, pair.pd, [small.cqn; 2], pair.eq.eqn, LOG);
    pair.a = Qp::create(&pair.bench, pair.context, &command);
    pair.a.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    for wr_id in 0..23 {
        pair.run(&pair.write(wr_id, 8, pair.to, pair.rkey));
        assert_eq!(small.expect(&pair.bench, WC_SUCCESS).wr_id, wr_id);
    }
}
