//! A shared receive queue as a driver keeps it, and datagram queue pairs.

use std::mem::offset_of;

use refault_abi::codes::{OP_SEND, QPS_INIT, QPS_RTR, QPS_RTS};
use refault_abi::command::{
    ArmSrq, CMD_ARM_SRQ, CMD_CREATE_SRQ, CMD_DESTROY_SRQ, CMD_QUERY_SRQ, CommandStatus, CreateSrq, ModifyQp,
    ObjectId, QP_ATTR_PKEY, QP_ATTR_PORT, QP_ATTR_QKEY, QP_ATTR_SQ_PSN, QP_ATTR_STATE, SrqState,
};
use refault_abi::queue::{RQ_WQE_SIZE, RqWqe, Sge, SqWqe, SrqDoorbellRecord};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use zerocopy::IntoBytes;

use super::Bench;
use super::driver::{Qp, request};

/// A shared receive queue.
#[derive(Debug)]
pub(crate) struct Srq {
    pub(crate) srqn: u32,
    gpa: u64,
    log: u8,
    pub(crate) posted: u32,
}

impl Srq {
    pub(crate) fn command(bench: &Bench, pd: u32, eqn: u32, log: u8) -> CreateSrq {
        let ring = u64::from(RQ_WQE_SIZE) << log;
        let gpa = bench.allocate(ring + 128);
        CreateSrq {
            buffer: bench.table(gpa, ring + 128, 0),
            record_offset: ring as u32,
            pd,
            eqn,
            log_size: log,
            ..CreateSrq::default()
        }
    }

    pub(crate) fn new(bench: &Bench, pd: u32, eqn: u32, log: u8) -> Self {
        let command = Self::command(bench, pd, eqn, log);
        let id: ObjectId = bench.command(CMD_CREATE_SRQ, &command).unwrap();
        Self { srqn: id.id, gpa: command.buffer.root, log, posted: 0 }
    }

    /// Where its ring is.
    pub(crate) fn address(&self) -> u64 {
        self.gpa
    }

    pub(crate) fn record(&self) -> u64 {
        self.gpa + (u64::from(RQ_WQE_SIZE) << self.log)
    }

    pub(crate) fn post(&mut self, bench: &Bench, wr_id: u64, sges: &[Sge]) {
        let mut wqe = RqWqe { wr_id, num_sge: sges.len() as u32, ..RqWqe::default() };
        for (slot, sge) in wqe.sge.iter_mut().zip(sges) {
            *slot = *sge;
        }
        let slot = u64::from(self.posted & ((1 << self.log) - 1)) * u64::from(RQ_WQE_SIZE);
        bench.ram.write(Gpa(self.gpa + slot), wqe.as_bytes()).unwrap();
        self.publish(bench, self.posted.wrapping_add(1));
    }

    /// Publishes a producer index, true or not.
    pub(crate) fn publish(&mut self, bench: &Bench, producer: u32) {
        self.posted = producer;
        bench.ram.store_u32(Gpa(self.record()), producer).unwrap();
    }

    /// The device's index, as it published it.
    pub(crate) fn consumer(&self, bench: &Bench) -> u32 {
        let at = self.record() + offset_of!(SrqDoorbellRecord, consumer) as u64;
        bench.ram.load_u32(Gpa(at)).unwrap()
    }

    pub(crate) fn arm(&self, bench: &Bench, limit: u32) -> Result<(), CommandStatus> {
        let command = ArmSrq { srqn: self.srqn, limit };
        bench.command::<_, ObjectId>(CMD_ARM_SRQ, &command).map(|_| ())
    }

    pub(crate) fn state(&self, bench: &Bench) -> SrqState {
        bench.command(CMD_QUERY_SRQ, &ObjectId { id: self.srqn, reserved: 0 }).unwrap()
    }

    pub(crate) fn destroy(&self, bench: &Bench) -> Result<(), CommandStatus> {
        bench.id_command(CMD_DESTROY_SRQ, self.srqn)
    }
}

/// The changes that take a datagram queue pair from RESET to RTS.
pub(crate) fn datagram_steps(qpn: u32, qkey: u32) -> [ModifyQp; 3] {
    const INIT: u32 = QP_ATTR_STATE | QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_QKEY;
    let step = |state, mask| ModifyQp { qpn, state, mask, port: 1, qkey, sq_psn: 5, ..ModifyQp::default() };
    [step(QPS_INIT, INIT), step(QPS_RTR, QP_ATTR_STATE), step(QPS_RTS, QP_ATTR_STATE | QP_ATTR_SQ_PSN)]
}

/// Takes a datagram queue pair from RESET to RTS.
pub(crate) fn raise_datagram(bench: &Bench, qp: &Qp, qkey: u32) {
    for change in datagram_steps(qp.qpn, qkey) {
        qp.modify(bench, &change).unwrap();
    }
}

/// A datagram to queue pair `qpn`.
pub(crate) fn datagram(wr_id: u64, sges: &[Sge], qpn: u32, qkey: u32) -> SqWqe {
    SqWqe { dest_qpn: qpn, qkey, dest_lid: 1, sl: 3, ..request(OP_SEND, wr_id, sges) }
}
