//! Whose turn it is: fair shares, and commands and timers that wait for no data.

use refault_abi::codes::{OP_SEND, QPS_RTS};
use refault_abi::command::{
    CMD_CREATE_PD, CMD_DESTROY_MR, CMD_DESTROY_QP, CMD_QUERY_DEVICE, CMD_QUERY_QP, ObjectId,
};
use refault_abi::queue::{SqWqe, WqeFlags};
use refault_nic::{COPY_CHUNK, NicConfig};
use zerocopy::IntoBytes;

use crate::support::driver::*;
use crate::support::*;

/// Queue pairs that keep a worker busy.
const BUSY: usize = 2000;

/// One worker, and a pair of which nothing but the buffers is used.
fn one_worker() -> Pair {
    Pair::unconnected(Bench::new(NicConfig { workers: 1, fault_window: 1, ..NicConfig::default() }))
}

/// A queue pair connected to itself, with a completion queue of its own.
fn speaker(pair: &Pair) -> (Qp, Cq) {
    let cq = Cq::new(&pair.bench, pair.context, pair.eq.eqn, 6);
    let command = Qp::command(&pair.bench, pair.pd, [cq.cqn; 2], pair.eq.eqn, LOG);
    let qp = Qp::create(&pair.bench, pair.context, &command);
    qp.raise(&pair.bench, qp.qpn, QPS_RTS, PATIENT);
    (qp, cq)
}

/// Fills the send ring with writes of `length` bytes, and rings.
fn post_writes(pair: &Pair, qp: &mut Qp, length: u32) {
    (0..1 << LOG).for_each(|id| qp.prepare(&pair.bench, &pair.write(id, length, pair.to, pair.rkey)));
    qp.ring(&pair.bench);
}

/// [`BUSY`] queue pairs, each with a full ring of large writes.
fn busy(pair: &Pair) {
    let cq = Cq::new(&pair.bench, pair.context, pair.eq.eqn, 6);
    // One buffer for all: the device only reads it.
    let command = Qp::command(&pair.bench, pair.pd, [cq.cqn; 2], pair.eq.eqn, LOG);
    let write = SqWqe { flags: WqeFlags(0), ..pair.write(1, BUFFER as u32, pair.to, pair.rkey) };
    let qps: Vec<Qp> = (0..BUSY)
        .map(|_| {
            let mut qp = Qp::create(&pair.bench, pair.context, &command);
            qp.raise(&pair.bench, qp.qpn, QPS_RTS, PATIENT);
            (0..1 << LOG).for_each(|_| qp.prepare(&pair.bench, &write));
            qp
        })
        .collect();
    qps.iter().for_each(|qp| qp.ring(&pair.bench));
}

/// Pieces of work until `done`; fails if there are more than `limit`.
fn turns_until(pair: &Pair, limit: usize, mut done: impl FnMut() -> bool) -> usize {
    (0..=limit)
        .find(|_| {
            let over = done();
            over || !pair.bench.poll(0) && panic!("nothing to do, and not done")
        })
        .unwrap_or_else(|| panic!("not done after {limit} turns"))
}

/// Most bytes that one piece of work moved, while a queue pair with a full ring of writes of `length` bytes is at work,
/// and another one rings as well if there are `neighbours`.
fn most_at_once(length: u32, neighbours: bool) -> u64 {
    let pair = one_worker();
    let (mut qp, mut cq) = speaker(&pair);
    let (other, _) = speaker(&pair);
    post_writes(&pair, &mut qp, length);
    let (mut before, mut most) = (0, 0);
    let mut completions = 0;
    while completions < 1 << LOG {
        if neighbours {
            other.ring(&pair.bench);
        }
        assert!(pair.bench.poll(0), "nothing to do, and not done");
        let copied = pair.bench.nic.stats().bytes_copied;
        most = most.max(copied - before);
        before = copied;
        completions += cq.drain(&pair.bench).len();
    }
    assert_eq!((completions, before), (1 << LOG, u64::from(length) << LOG));
    most
}

#[test]
fn a_turn_moves_no_more_than_a_chunk() {
    for length in [BUFFER as u32, 0x1_0000 + 8, 5000, 4096] {
        let most = most_at_once(length, true);
        assert!(most <= COPY_CHUNK, "{most} bytes in one turn of {length}");
    }
}

#[test]
fn a_queue_pair_alone_gets_several_turns_at_once_but_not_all() {
    let most = most_at_once(BUFFER as u32, false);
    assert!(most > COPY_CHUNK && most <= 16 * COPY_CHUNK, "{most} bytes at once");
}

#[test]
fn messages_without_data_end_a_turn_too() {
    const POSTED: u32 = 100;
    let pair = one_worker();
    let cq = Cq::new(&pair.bench, pair.context, pair.eq.eqn, 7);
    let command = Qp::command(&pair.bench, pair.pd, [cq.cqn; 2], pair.eq.eqn, 7);
    let (mut cq, mut qp) = (cq, Qp::create(&pair.bench, pair.context, &command));
    qp.raise(&pair.bench, qp.qpn, QPS_RTS, PATIENT);
    (0..POSTED.into()).for_each(|id| qp.prepare(&pair.bench, &pair.write(id, 0, pair.to, pair.rkey)));
    let (other, _) = speaker(&pair);
    qp.ring(&pair.bench);
    other.ring(&pair.bench);
    let turn = |cq: &mut Cq| pair.bench.poll(0).then(|| cq.drain(&pair.bench).len());
    // The second piece of work is the other queue pair's turn.
    let turns = [(); 4].map(|()| turn(&mut cq));
    assert_eq!(turns, [Some(64), Some(0), Some(36), None]);
}

#[test]
fn small_messages_get_their_share_beside_large_ones() {
    let pair = one_worker();
    let mut large: Vec<_> = (0..4).map(|_| speaker(&pair)).collect();
    large.iter_mut().for_each(|(qp, _)| post_writes(&pair, qp, BUFFER as u32));
    let (mut small, mut cq) = speaker(&pair);
    post_writes(&pair, &mut small, 4096);
    let mut done = 0;
    // Two turns of its own, each after one of every other queue pair.
    turns_until(&pair, 2 * 5, || {
        done += cq.drain(&pair.bench).len();
        done == 1 << LOG
    });
    // One by one: each waits for no more than a turn of every other queue pair.
    for _ in 0..3 {
        small.send(&pair.bench, &pair.write(1, 4096, pair.to, pair.rkey));
        turns_until(&pair, 5, || cq.poll(&pair.bench).is_some());
    }
}

#[test]
fn a_command_waits_for_one_turn_however_many_queue_pairs_are_busy() {
    let pair = one_worker();
    let (qp, _) = speaker(&pair);
    busy(&pair);
    let id = |id: u32| ObjectId { id, reserved: 0 };
    let verbs = [
        (CMD_QUERY_DEVICE, id(0)),
        (CMD_QUERY_QP, id(qp.qpn)),
        (CMD_CREATE_PD, id(pair.context)),
        (CMD_DESTROY_QP, id(qp.qpn)),
        (CMD_DESTROY_MR, id(pair.process)),
    ];
    for (opcode, body) in verbs {
        assert!(pair.bench.poll(0), "the queue pairs are busy");
        let token = pair.bench.post_command(0, opcode, body.as_bytes());
        turns_until(&pair, 1, || (0..4).any(|slot| pair.bench.response(0, slot).token == token));
    }
}

#[test]
fn a_timer_waits_for_one_turn_however_many_queue_pairs_are_busy() {
    let pair = one_worker();
    let (mut qp, mut cq) = speaker(&pair);
    qp.send(&pair.bench, &request(OP_SEND, 1, &[pair.source(0, 8)]));
    pair.bench.settle();
    let deadline_ns = pair.bench.next_deadline_ns().unwrap();
    busy(&pair);
    qp.receive(&pair.bench, 2, &[sge(pair.to, 8, pair.rkey)]);
    pair.bench.clock.advance(deadline_ns);
    assert!(pair.bench.poll(0));
    assert_eq!(pair.bench.next_deadline_ns(), None, "the timer was not looked at");
    // Its queue pair waits for its turn like all others.
    turns_until(&pair, BUSY + 1, || cq.drain(&pair.bench).len() == 2);
}
