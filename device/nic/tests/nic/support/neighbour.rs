//! A second process.

use refault_abi::codes::QPS_RTS;
use refault_abi::command::ModifyQp;

use super::driver::{Cq, Qp};
use super::{ALL_RIGHTS, Bench, LOG, Pair};

/// Its PASID.
pub(crate) const NEIGHBOUR: u32 = 0x44;

/// A process beside that of a [`Pair`], with a context, a domain and a queue pair of its own.
pub(crate) struct Neighbour {
    pub(crate) context: u32,
    pub(crate) qp: Qp,
    /// Its whole address space.
    pub(crate) process: u32,
}

impl Neighbour {
    pub(crate) fn new(bench: &Bench, eqn: u32) -> Self {
        let context = bench.context(Some(NEIGHBOUR));
        let pd = bench.pd(context);
        let cq = Cq::new(bench, context, eqn, 6);
        let qp = Qp::create(bench, context, &Qp::command(bench, pd, [cq.cqn; 2], eqn, LOG));
        Self { context, qp, process: bench.process(pd, ALL_RIGHTS) }
    }

    /// A process whose queue pair is connected to a pair's queue pair A.
    pub(crate) fn connected(pair: &Pair, attributes: ModifyQp) -> Self {
        let neighbour = Self::new(&pair.bench, pair.eq.eqn);
        pair.a.raise(&pair.bench, neighbour.qp.qpn, QPS_RTS, attributes);
        neighbour.qp.raise(&pair.bench, pair.a.qpn, QPS_RTS, attributes);
        neighbour
    }
}
