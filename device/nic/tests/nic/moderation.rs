//! Completion queues that report several completions with one event.

use refault_abi::codes::QPS_ERR;
use refault_abi::command::{
    CMD_DESTROY_CQ, CMD_MODIFY_CQ, CommandStatus, ModifyCq, ObjectId, STATUS_NO_OBJECT,
};
use refault_abi::event::{EVENT_COMPLETION, EVENT_CQ_ERROR, EVENT_QP};

use crate::support::driver::*;
use crate::support::*;

/// A pair whose first completion queue follows a rule.
fn pair(count: u16, period_us: u16) -> Pair {
    let pair = Pair::new();
    modify(&pair, count, period_us).unwrap();
    pair
}

fn modify(pair: &Pair, count: u16, period_us: u16) -> Result<(), CommandStatus> {
    let command = ModifyCq { cqn: pair.cq_a.cqn, count, period_us, reserved: 0 };
    pair.bench.command::<_, ObjectId>(CMD_MODIFY_CQ, &command).map(|_| ())
}

fn complete(pair: &mut Pair, count: usize) {
    for _ in 0..count {
        pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    }
}

/// Events so far.
fn events(pair: &mut Pair) -> usize {
    let events = pair.eq.drain(&pair.bench);
    assert!(events.iter().all(|event| *event == (EVENT_COMPLETION, 0, pair.cq_a.cqn)), "{events:?}");
    events.len()
}

#[test]
fn the_event_comes_with_the_last_of_the_count() {
    let mut pair = pair(4, 1000);
    pair.cq_a.arm(&pair.bench, false);
    complete(&mut pair, 3);
    assert_eq!(events(&mut pair), 0);
    complete(&mut pair, 1);
    assert_eq!(events(&mut pair), 1);
    complete(&mut pair, 4);
    assert_eq!(events(&mut pair), 0, "each arming sends one event");
    pair.bench.advance(10_000_000);
    assert_eq!(events(&mut pair), 0);
}

#[test]
fn an_event_is_sent_when_the_first_completion_has_waited_long_enough() {
    let mut pair = pair(4, 1000);
    pair.cq_a.arm(&pair.bench, false);
    pair.bench.advance(5_000_000);
    complete(&mut pair, 1);
    let begun = pair.bench.next_deadline_ns();
    pair.bench.advance(600_000);
    complete(&mut pair, 1);
    assert_eq!(pair.bench.next_deadline_ns(), begun, "the first one counts");
    pair.bench.advance(399_999);
    assert_eq!(events(&mut pair), 0);
    pair.bench.advance(1);
    assert_eq!(events(&mut pair), 1);
    assert_eq!(pair.bench.next_deadline_ns(), None);
}

#[test]
fn what_was_there_before_arming_counts_and_wakes_the_worker() {
    let mut pair = pair(4, 1000);
    complete(&mut pair, 3);
    pair.cq_a.arm(&pair.bench, false);
    pair.bench.settle();
    assert_eq!(events(&mut pair), 0);
    complete(&mut pair, 1);
    assert_eq!(events(&mut pair), 1);
    pair.cq_a.arm(&pair.bench, false);
    assert_eq!(events(&mut pair), 1, "four unseen are enough");
    pair.cq_a.drain(&pair.bench);
    complete(&mut pair, 1);
    // Only the doorbell can start the worker's timer.
    pair.cq_a.arm(&pair.bench, false);
    pair.bench.settle();
    pair.bench.advance(1_000_000);
    assert_eq!(events(&mut pair), 1);
}

#[test]
fn arming_again_after_seeing_all_starts_the_time_anew() {
    let mut pair = pair(0, 1000);
    pair.cq_a.arm(&pair.bench, false);
    complete(&mut pair, 1);
    pair.bench.advance(900_000);
    pair.cq_a.drain(&pair.bench);
    pair.cq_a.arm(&pair.bench, false);
    pair.bench.advance(500_000);
    assert_eq!(events(&mut pair), 0, "there is nothing to report");
    complete(&mut pair, 50);
    pair.cq_a.drain(&pair.bench);
    pair.bench.advance(999_999);
    assert_eq!(events(&mut pair), 0);
    pair.bench.advance(1);
    assert_eq!(events(&mut pair), 1);
}

#[test]
fn only_solicited_and_failed_ones_count_if_asked_so() {
    let mut pair = pair(2, 1000);
    pair.cq_a.arm(&pair.bench, true);
    complete(&mut pair, 5);
    pair.bench.advance(2_000_000);
    assert_eq!(events(&mut pair), 0);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey ^ 2));
    pair.cq_a.drain(&pair.bench);
    pair.bench.advance(999_999);
    assert!(pair.eq.drain(&pair.bench).iter().all(|event| event.0 == EVENT_QP));
    pair.bench.advance(1);
    assert_eq!(events(&mut pair), 1);
}

#[test]
fn changing_the_rule_reports_completions_held_back() {
    let mut pair = pair(4, 1000);
    pair.cq_a.arm(&pair.bench, false);
    complete(&mut pair, 1);
    modify(&pair, 0, 0).unwrap();
    assert_eq!(events(&mut pair), 1);
    pair.bench.advance(2_000_000);
    assert_eq!(events(&mut pair), 0);
    pair.cq_a.drain(&pair.bench);
    pair.cq_a.arm(&pair.bench, false);
    modify(&pair, 9, 0).unwrap();
    assert_eq!(events(&mut pair), 0);
    complete(&mut pair, 1);
    assert_eq!(events(&mut pair), 1, "without a period nothing waits");
}

#[test]
fn the_timer_of_a_destroyed_queue_has_no_effect() {
    let mut pair = pair(4, 1000);
    pair.cq_a.arm(&pair.bench, false);
    complete(&mut pair, 1);
    let old = pair.cq_a.cqn;
    pair.a.destroy(&pair.bench).unwrap();
    pair.bench.id_command(CMD_DESTROY_CQ, old).unwrap();
    assert_eq!(modify(&pair, 1, 1), Err(STATUS_NO_OBJECT));
    // Another one, in the same slot if possible, with nothing to report.
    let next = Cq::new(&pair.bench, pair.context, pair.eq.eqn, 6);
    next.arm(&pair.bench, false);
    pair.bench.advance(2_000_000);
    assert_eq!(pair.eq.drain(&pair.bench), []);
    assert_eq!(pair.bench.next_deadline_ns(), None);
}

#[test]
fn a_reset_forgets_rule_and_time() {
    let mut pair = pair(4, 1000);
    pair.cq_a.arm(&pair.bench, false);
    complete(&mut pair, 1);
    pair.bench.write32(refault_abi::regs::REG_CONTROL, refault_abi::regs::CONTROL_RESET);
    pair.bench.enable();
    pair.bench.advance(2_000_000);
    assert_eq!(pair.eq.drain(&pair.bench), []);
    assert_eq!(modify(&pair, 1, 1), Err(STATUS_NO_OBJECT));
}

#[test]
fn a_queue_that_overruns_while_it_waits_raises_a_queue_error() {
    let mut pair = pair(60_000, 60_000);
    pair.cq_a.arm(&pair.bench, false);
    complete(&mut pair, 65);
    let kinds: Vec<_> = pair.eq.drain(&pair.bench).iter().map(|event| event.0).collect();
    assert!(kinds.contains(&EVENT_CQ_ERROR), "{kinds:?}");
    assert_eq!(pair.a.state(&pair.bench), QPS_ERR);
}
