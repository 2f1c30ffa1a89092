//! A second process.

use refault_abi::codes::{OP_RDMA_WRITE, QPS_RTS};
use refault_abi::command::{CMD_DESTROY_CQ, CMD_DESTROY_MR, CMD_DESTROY_PD, ModifyQp};
use refault_abi::queue::SqWqe;

use super::driver::{Cq, PATIENT, Qp, request, sge};
use super::{ALL_RIGHTS, Bench, LOG, Pair};

/// Its PASID.
pub(crate) const NEIGHBOUR: u32 = 0x44;

/// A process beside that of a [`Pair`], with a context, a domain and a queue pair of its own.
pub(crate) struct Neighbour {
    pub(crate) context: u32,
    pub(crate) pd: u32,
    pub(crate) cq: Cq,
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
        Self { context, pd, cq, qp, process: bench.process(pd, ALL_RIGHTS) }
    }

    /// A process whose queue pair is connected to a pair's queue pair A.
    pub(crate) fn connected(pair: &Pair, attributes: ModifyQp) -> Self {
        let neighbour = Self::new(&pair.bench, pair.eq.eqn);
        pair.a.raise(&pair.bench, neighbour.qp.qpn, QPS_RTS, attributes);
        neighbour.qp.raise(&pair.bench, pair.a.qpn, QPS_RTS, attributes);
        neighbour
    }

    /// A process whose queue pair is connected to itself.
    pub(crate) fn alone(pair: &Pair) -> Self {
        let neighbour = Self::new(&pair.bench, pair.eq.eqn);
        neighbour.qp.raise(&pair.bench, neighbour.qp.qpn, QPS_RTS, PATIENT);
        neighbour
    }

    /// Writes 8 bytes of its own memory to `remote_addr` of `rkey`, and lets the device work.
    pub(crate) fn write(&mut self, bench: &Bench, remote_addr: u64, rkey: u32) {
        const SOURCE: u64 = 0x10_0000_0000;
        let source = bench.allocate(0x1000);
        bench.iommu.map(NEIGHBOUR, SOURCE, source, false);
        bench.fill(source, b"neighbor");
        let write = request(OP_RDMA_WRITE, 1, &[sge(SOURCE, 8, self.process)]);
        self.qp.send(bench, &SqWqe { remote_addr, rkey, ..write });
        bench.settle();
    }

    /// Destroys all that is in its context, which stays.
    pub(crate) fn empty_context(&self, bench: &Bench) {
        self.qp.destroy(bench).unwrap();
        bench.id_command(CMD_DESTROY_MR, self.process).unwrap();
        bench.id_command(CMD_DESTROY_CQ, self.cq.cqn).unwrap();
        bench.id_command(CMD_DESTROY_PD, self.pd).unwrap();
    }
}
