//! Whose turn it is: fair shares.

use refault_abi::codes::*;
use refault_nic::{COPY_CHUNK, NicConfig};

use crate::support::driver::*;
use crate::support::*;

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

/// Pieces of work until `done`; fails if there are more than `limit`.
fn turns_until(pair: &Pair, limit: usize, mut done: impl FnMut() -> bool) -> usize {
    (0..=limit)
        .find(|_| {
            let over = done();
            over || !pair.bench.poll(0) && panic!("nothing to do, and not done")
        })
        .unwrap_or_else(|| panic!("not done after {limit} turns"))
}

#[test]
fn a_turn_moves_no_more_than_a_chunk() {
    for length in [BUFFER as u32, 0x1_0000 + 8, 5000, 4096] {
        let pair = one_worker();
        let (mut qp, mut cq) = speaker(&pair);
        post_writes(&pair, &mut qp, length);
        let mut before = 0;
        while pair.bench.poll(0) {
            let copied = pair.bench.nic.stats().bytes_copied;
            assert!(copied - before <= COPY_CHUNK, "{} bytes in one turn of {length}", copied - before);
            before = copied;
        }
        assert_eq!((cq.drain(&pair.bench).len(), before), (1 << LOG, u64::from(length) << LOG));
    }
}

#[test]
fn messages_without_data_end_a_turn_too() {
    let pair = one_worker();
    let (mut first, mut first_cq) = speaker(&pair);
    let (mut second, mut second_cq) = speaker(&pair);
    let log = 1 << LOG;
    for qp in [&mut first, &mut second] {
        (0..log).for_each(|id| qp.prepare(&pair.bench, &pair.write(id, 0, pair.to, pair.rkey)));
        qp.ring(&pair.bench);
    }
    // Sixteen requests are few enough for one turn each.
    (0..2).for_each(|_| assert!(pair.bench.poll(0)));
    let done = [first_cq.drain(&pair.bench).len(), second_cq.drain(&pair.bench).len()];
    assert_eq!(done, [log as usize; 2]);
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
