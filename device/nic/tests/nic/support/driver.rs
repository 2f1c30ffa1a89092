//! Queues as a driver keeps them.

use refault_abi::codes::{
    ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights, Opcode, QPS_INIT, QPS_RESET,
    QPS_RTR, QPS_RTS, QpState, WcStatus,
};
use refault_abi::command::{
    CMD_CREATE_CQ, CMD_CREATE_EQ, CMD_CREATE_QP, CMD_DESTROY_QP, CMD_MODIFY_QP, CMD_QUERY_QP, CommandStatus,
    CreateCq, CreateEq, CreateQp, ModifyQp, ObjectId, QP_ATTR_ACCESS, QP_ATTR_AV, QP_ATTR_DEST_QPN,
    QP_ATTR_MAX_DEST_RD_ATOMIC, QP_ATTR_MAX_RD_ATOMIC, QP_ATTR_MIN_RNR_TIMER, QP_ATTR_PATH_MTU, QP_ATTR_PKEY,
    QP_ATTR_PORT, QP_ATTR_RETRY, QP_ATTR_RNR_RETRY, QP_ATTR_RQ_PSN, QP_ATTR_SQ_PSN, QP_ATTR_STATE,
    QP_ATTR_TIMEOUT, QpSnapshot,
};
use refault_abi::doorbell::{DOORBELL_CQ_ARM, DOORBELL_CQ_ARM_SOLICITED, DOORBELL_SQ};
use refault_abi::event::{EQE_SIZE, Eqe, EventKind};
use refault_abi::queue::{CQE_SIZE, Cqe, OWNER_PHASE, RqWqe, SQ_WQE_SIZE, Sge, SqWqe, WQE_SIGNALED};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use zerocopy::{FromZeros, IntoBytes};

use super::Bench;

/// A completion queue.
#[derive(Debug)]
pub(crate) struct Cq {
    pub(crate) cqn: u32,
    pub(crate) gpa: u64,
    pub(crate) log: u8,
    pub(crate) context: u32,
    pub(crate) record: u64,
    pub(crate) consumer: u32,
}

impl Cq {
    pub(crate) fn command(bench: &Bench, context: u32, eqn: u32, log: u8) -> CreateCq {
        let ring = u64::from(CQE_SIZE) << log;
        let gpa = bench.allocate(ring + 64);
        CreateCq {
            buffer: bench.table(gpa, ring + 64, 0),
            record_offset: ring as u32,
            context,
            eqn,
            log_size: log,
            ..CreateCq::default()
        }
    }

    pub(crate) fn new(bench: &Bench, context: u32, eqn: u32, log: u8) -> Self {
        let command = Self::command(bench, context, eqn, log);
        let id: ObjectId = bench.command(CMD_CREATE_CQ, &command).unwrap();
        let gpa = command.buffer.root;
        Self { cqn: id.id, gpa, log, context, record: gpa + u64::from(command.record_offset), consumer: 0 }
    }

    /// The next completion, with the consumer index published.
    pub(crate) fn poll(&mut self, bench: &Bench) -> Option<Cqe> {
        let slot = u64::from(self.consumer & ((1 << self.log) - 1));
        let at = self.gpa + slot * u64::from(CQE_SIZE);
        let owner = bench.ram.load_u32(Gpa(at + 60)).unwrap();
        let phase = !(self.consumer >> self.log) & 1;
        if owner & OWNER_PHASE != phase || owner >> 1 != 0 {
            return None;
        }
        let mut entry = Cqe::new_zeroed();
        bench.ram.read(Gpa(at), entry.as_mut_bytes()).unwrap();
        self.consumer = self.consumer.wrapping_add(1);
        bench.ram.store_u32(Gpa(self.record), self.consumer).unwrap();
        Some(entry)
    }

    pub(crate) fn drain(&mut self, bench: &Bench) -> Vec<Cqe> {
        std::iter::from_fn(|| self.poll(bench)).collect()
    }

    /// Exactly one completion, which must have this status.
    pub(crate) fn expect(&mut self, bench: &Bench, status: WcStatus) -> Cqe {
        let entries = self.drain(bench);
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0].status, status, "{:?}", entries[0]);
        entries[0]
    }

    pub(crate) fn arm(&self, bench: &Bench, solicited: bool) {
        let kind = if solicited { DOORBELL_CQ_ARM_SOLICITED } else { DOORBELL_CQ_ARM };
        bench.doorbell(self.context, kind, self.cqn, self.consumer);
    }
}

/// An event queue.
#[derive(Debug)]
pub(crate) struct Eq {
    pub(crate) eqn: u32,
    pub(crate) gpa: u64,
    pub(crate) log: u8,
    pub(crate) consumer: u32,
}

impl Eq {
    pub(crate) fn new(bench: &Bench, log: u8, vector: u16) -> Self {
        let bytes = u64::from(EQE_SIZE) << log;
        let gpa = bench.allocate(bytes);
        let command =
            CreateEq { ring: bench.table(gpa, bytes, 0), log_size: log, vector, ..CreateEq::default() };
        let id: ObjectId = bench.command(CMD_CREATE_EQ, &command).unwrap();
        Self { eqn: id.id, gpa, log, consumer: 0 }
    }

    pub(crate) fn poll(&mut self, bench: &Bench) -> Option<Eqe> {
        let slot = u64::from(self.consumer & ((1 << self.log) - 1));
        let at = self.gpa + slot * u64::from(EQE_SIZE);
        let phase = !(self.consumer >> self.log) & 1;
        let mut entry = Eqe::new_zeroed();
        bench.ram.read(Gpa(at), entry.as_mut_bytes()).unwrap();
        if entry.owner != phase {
            return None;
        }
        self.consumer = self.consumer.wrapping_add(1);
        Some(entry)
    }

    pub(crate) fn drain(&mut self, bench: &Bench) -> Vec<(EventKind, u8, u32)> {
        std::iter::from_fn(|| self.poll(bench)).map(|e| (e.kind, e.code, e.number)).collect()
    }

    pub(crate) fn doorbell(&self, bench: &Bench, arm: bool) {
        let value = self.consumer & !(1 << 31) | u32::from(arm) << 31;
        bench.write32(refault_abi::regs::REG_EQ_DOORBELL + 4 * u64::from(self.eqn), value);
    }
}

/// A queue pair.
#[derive(Debug)]
pub(crate) struct Qp {
    pub(crate) qpn: u32,
    pub(crate) gpa: u64,
    pub(crate) context: u32,
    pub(crate) log: u8,
    pub(crate) rq_offset: u64,
    pub(crate) record: u64,
    pub(crate) sent: u32,
    pub(crate) received: u32,
}

impl Qp {
    pub(crate) fn command(bench: &Bench, pd: u32, cqs: [u32; 2], eqn: u32, log: u8) -> CreateQp {
        let ring = u64::from(SQ_WQE_SIZE) << log;
        let bytes = 2 * ring + 128;
        let gpa = bench.allocate(bytes);
        CreateQp {
            buffer: bench.table(gpa, bytes, 1),
            rq_offset: ring as u32,
            record_offset: 2 * ring as u32,
            pd,
            send_cq: cqs[0],
            recv_cq: cqs[1],
            eqn,
            log_sq: log,
            log_rq: log,
            ..CreateQp::default()
        }
    }

    pub(crate) fn create(bench: &Bench, context: u32, command: &CreateQp) -> Self {
        let id: ObjectId = bench.command(CMD_CREATE_QP, command).unwrap();
        let gpa = bench.ram.load_u64(Gpa(command.buffer.root)).unwrap();
        Self {
            qpn: id.id,
            gpa,
            context,
            log: command.log_sq,
            rq_offset: u64::from(command.rq_offset),
            record: gpa + u64::from(command.record_offset),
            sent: 0,
            received: 0,
        }
    }

    fn slot(&self, index: u32) -> u64 {
        u64::from(index & ((1 << self.log) - 1)) * u64::from(SQ_WQE_SIZE)
    }

    /// Writes a send request without a doorbell.
    pub(crate) fn prepare(&mut self, bench: &Bench, wqe: &SqWqe) {
        bench.ram.write(Gpa(self.gpa + self.slot(self.sent)), wqe.as_bytes()).unwrap();
        self.sent = self.sent.wrapping_add(1);
        bench.ram.store_u32(Gpa(self.record), self.sent).unwrap();
    }

    pub(crate) fn ring(&self, bench: &Bench) {
        bench.doorbell(self.context, DOORBELL_SQ, self.qpn, 0);
    }

    pub(crate) fn send(&mut self, bench: &Bench, wqe: &SqWqe) {
        self.prepare(bench, wqe);
        self.ring(bench);
    }

    pub(crate) fn receive(&mut self, bench: &Bench, wr_id: u64, sges: &[Sge]) {
        let mut wqe = RqWqe { wr_id, num_sge: sges.len() as u32, ..RqWqe::default() };
        for (slot, sge) in wqe.sge.iter_mut().zip(sges) {
            *slot = *sge;
        }
        let at = self.gpa + self.rq_offset + self.slot(self.received);
        bench.ram.write(Gpa(at), wqe.as_bytes()).unwrap();
        self.received = self.received.wrapping_add(1);
        bench.ram.store_u32(Gpa(self.record + 64), self.received).unwrap();
    }

    pub(crate) fn modify(&self, bench: &Bench, change: &ModifyQp) -> Result<(), CommandStatus> {
        bench.command::<_, ObjectId>(CMD_MODIFY_QP, &ModifyQp { qpn: self.qpn, ..*change }).map(|_| ())
    }

    pub(crate) fn to(&self, bench: &Bench, state: QpState) {
        self.modify(bench, &ModifyQp { mask: QP_ATTR_STATE, state, ..ModifyQp::default() }).unwrap();
    }

    /// From RESET as far as `state`, connected to `peer`.
    pub(crate) fn raise(&self, bench: &Bench, peer: u32, state: QpState, with: ModifyQp) {
        for change in self.steps(peer, state, with) {
            self.modify(bench, &change).unwrap();
        }
    }

    /// The changes that lead from RESET to `state`.
    pub(crate) fn steps(&self, peer: u32, state: QpState, with: ModifyQp) -> Vec<ModifyQp> {
        const ALL: AccessRights = ACCESS_REMOTE_WRITE.union(ACCESS_REMOTE_READ).union(ACCESS_REMOTE_ATOMIC);
        const INIT: u32 = QP_ATTR_ACCESS | QP_ATTR_PKEY | QP_ATTR_PORT;
        const RTR: u32 = QP_ATTR_PATH_MTU
            | QP_ATTR_AV
            | QP_ATTR_DEST_QPN
            | QP_ATTR_RQ_PSN
            | QP_ATTR_MAX_DEST_RD_ATOMIC
            | QP_ATTR_MIN_RNR_TIMER;
        const RTS: u32 =
            QP_ATTR_SQ_PSN | QP_ATTR_TIMEOUT | QP_ATTR_RETRY | QP_ATTR_RNR_RETRY | QP_ATTR_MAX_RD_ATOMIC;
        let steps = [(QPS_INIT, INIT), (QPS_RTR, RTR), (QPS_RTS, RTS)];
        let change = |(next, mask)| ModifyQp {
            qpn: self.qpn,
            mask: mask | QP_ATTR_STATE,
            state: next,
            access: if with.access != AccessRights::NONE { with.access } else { ALL },
            port: 1,
            path_mtu: if with.path_mtu == 0 { 3 } else { with.path_mtu },
            dest_qpn: peer,
            dest_lid: if with.dest_lid != 0 { with.dest_lid } else { 1 },
            ..with
        };
        steps.into_iter().filter(|(next, _)| *next <= state).map(change).collect()
    }

    pub(crate) fn query(&self, bench: &Bench) -> QpSnapshot {
        bench.command(CMD_QUERY_QP, &ObjectId { id: self.qpn, reserved: 0 }).unwrap()
    }

    pub(crate) fn state(&self, bench: &Bench) -> QpState {
        self.query(bench).attributes.state
    }

    pub(crate) fn destroy(&self, bench: &Bench) -> Result<(), CommandStatus> {
        bench.id_command(CMD_DESTROY_QP, self.qpn)
    }
}

/// Attributes of the queue pairs of most tests: 7 retries, and RNR retries without end.
pub(crate) const PATIENT: ModifyQp = ModifyQp {
    qpn: 0,
    mask: 0,
    state: QPS_RESET,
    path_mtu: 0,
    timeout: 14,
    retry_count: 7,
    rnr_retry: 7,
    min_rnr_timer: 12,
    max_rd_atomic: 1,
    max_dest_rd_atomic: 1,
    access: AccessRights::NONE,
    dest_qpn: 0,
    rq_psn: 9,
    sq_psn: 9,
    dest_lid: 0,
    pkey_index: 0,
    port: 0,
    sl: 0,
    has_grh: 0,
    sgid_index: 0,
    dest_gid: [0; 16],
    qkey: 0,
    flow_label: 0,
    dmac: [0; 6],
    hop_limit: 0,
    traffic_class: 0,
    source_port: 0,
    reserved0: [0; 6],
};

/// A send request of `opcode` with a scatter/gather list.
pub(crate) fn request(opcode: Opcode, wr_id: u64, sges: &[Sge]) -> SqWqe {
    let mut wqe = SqWqe { opcode, wr_id, flags: WQE_SIGNALED, num_sge: sges.len() as u8, ..SqWqe::default() };
    for (slot, sge) in wqe.sge.iter_mut().zip(sges) {
        *slot = *sge;
    }
    wqe
}

pub(crate) fn sge(addr: u64, length: u32, lkey: u32) -> Sge {
    Sge { addr, length, lkey }
}
