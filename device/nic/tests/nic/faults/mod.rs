//! Missing pages of a process: requests, waiters, refusals, credits, the page request interface.

mod ahead;
mod counters;
mod credits;
mod interface;
mod quotas;
mod refusals;
mod requests;
mod waiters;

use refault_abi::codes::QPS_RTS;

use crate::support::driver::*;
use crate::support::*;

/// Where the process' memory is.
const HEAP: u64 = 0x7f00_0000_0000;

/// `count` more connected pairs of queue pairs, of the same process and on the same bench as `pair`.
fn more_pairs(pair: &Pair, count: usize) -> Vec<(Qp, Qp)> {
    let bench = &pair.bench;
    let qp = |cqn| Qp::create(bench, pair.context, &Qp::command(bench, pair.pd, [cqn; 2], pair.eq.eqn, LOG));
    let connected = |_| {
        let (a, b) = (qp(pair.cq_a.cqn), qp(pair.cq_b.cqn));
        a.raise(bench, b.qpn, QPS_RTS, PATIENT);
        b.raise(bench, a.qpn, QPS_RTS, PATIENT);
        (a, b)
    };
    (0..count).map(connected).collect()
}
