//! Commands: how the kernel driver creates, changes and destroys objects.

mod context;
mod ethernet;
mod mr;
pub(crate) mod objects;
mod pages;
mod qp;
mod queues;
mod reply;
mod srq;

use std::sync::atomic::Ordering;

use refault_abi::command::{
    CAP_ATOMIC_GLOBAL, CAP_FLUSH_PERSISTENT, CAP_ODP, CAP_PASID, CMD_ARM_SRQ, CMD_CREATE_CONTEXT,
    CMD_CREATE_CQ, CMD_CREATE_EQ, CMD_CREATE_MR, CMD_CREATE_PD, CMD_CREATE_QP, CMD_CREATE_SRQ,
    CMD_DESTROY_CONTEXT, CMD_DESTROY_CQ, CMD_DESTROY_EQ, CMD_DESTROY_MR, CMD_DESTROY_PD, CMD_DESTROY_QP,
    CMD_DESTROY_SRQ, CMD_INVALIDATE_MR, CMD_MODIFY_CQ, CMD_MODIFY_QP, CMD_QUERY_COUNTERS, CMD_QUERY_DEVICE,
    CMD_QUERY_QP, CMD_QUERY_SRQ, CMD_RESUME_FAULT, CMD_REVOKE_MR, CMD_SET_GID, CMD_SET_PORT,
    CMD_STOP_CONTEXT, CommandRequest, CommandResponse, DeviceCaps, ObjectId, STATUS_OK,
};
use refault_bus::Iova;
use refault_bus::sync::lock;
use zerocopy::{FromZeros, IntoBytes};

use crate::engine::Engine;
use crate::front::Front;
use crate::front::registers::{CommandPlace, URGENT};
use crate::memory::access::AccessError;
use crate::schedule::Task;
use reply::{Refused, Reply, body, reply};

/// Commands executed before other work gets its turn.
const COMMANDS_PER_TURN: u32 = 32;

/// Version of the device model, as DeviceCaps reports it.
const DEVICE_VERSION: u64 = 1;
/// Reads and atomics in flight for each queue pair; the device does them one by one.
pub(crate) const MAX_RD_ATOMIC: u8 = 16;
/// Entries of the P_Key table.
pub(crate) const PKEYS: u16 = 1;
/// Entries of the GID table of an InfiniBand port.
pub(crate) const GIDS: u8 = 1;

impl Front {
    /// Has worker 0 look at the command lanes before anything else it does.
    pub(super) fn schedule_commands(&self) {
        self.commands_due.store(true, Ordering::SeqCst);
        if !self.commands_queued.swap(true, Ordering::SeqCst) {
            self.engine.workers.send(0, Task::Commands);
        }
    }

    /// [`Task::Commands`] was taken from worker 0's queue.
    pub(crate) fn unqueue_commands(&self) {
        self.commands_queued.store(false, Ordering::SeqCst);
    }

    /// Executes what waits in the command lanes: lane 1 first, always.
    pub(crate) fn serve_commands(&self, worker: usize) {
        let due =
            self.commands_due.load(Ordering::Relaxed) && self.commands_due.swap(false, Ordering::SeqCst);
        if due && self.serve_some(worker, &[URGENT, 0]) {
            self.schedule_commands();
        }
    }

    /// Executes what waits in lane 1, on the thread that rings it: the driver spins until it is answered, with locks
    /// held, and a worker would first have to be woken. What is left after a bounded number goes to worker 0.
    pub(super) fn serve_urgent_commands(&self) {
        if self.serve_some(self.engine.memory.front_guard(), &[URGENT]) {
            self.schedule_commands();
        }
    }

    /// Executes a bounded number of commands of the lanes, the first lane first; whether there may be more.
    fn serve_some(&self, worker: usize, lanes: &[usize]) -> bool {
        let serve_next = || lanes.iter().any(|&lane| self.serve_next(worker, lane));
        (0..COMMANDS_PER_TURN).all(|_| serve_next())
    }

    /// Executes the next command of a lane; `false` if there is none.
    fn serve_next(&self, worker: usize, lane: usize) -> bool {
        let _lane = lock(&self.lanes[lane]);
        let place = self.registers.next_command(lane).filter(|_| !self.engine.events.is_broken());
        let Some(place) = place else { return false };
        let served = self.serve(worker, place);
        if let Err(error) = &served {
            if let Some(number) = self.engine.memory.fabric.ring_warnings.admit() {
                let CommandPlace { lane, iova } = place;
                tracing::warn!(number, lane, slot = ?iova, ?error, "a command ring cannot be reached");
            }
            self.registers.set_fatal();
        }
        served.is_ok()
    }

    fn serve(&self, worker: usize, place: CommandPlace) -> Result<(), AccessError> {
        let mut request = CommandRequest::new_zeroed();
        self.engine.memory.port(worker).read(None, place.iova, request.as_mut_bytes())?;
        let result = self.execute(worker, place.lane, &request);
        let (status, body) = match result {
            Ok(body) => (STATUS_OK, body),
            Err(refused) => (refused.status(), [0; 15]),
        };
        tracing::debug!(lane = place.lane, opcode = ?request.opcode, ?status, "command");
        let response = CommandResponse { token: request.token, status, reserved: 0, body };
        let at = Iova(place.iova.0.wrapping_add(size_of::<CommandRequest>() as u64));
        let mut port = self.engine.memory.port(worker);
        port.shard().stats.commands += 1;
        let rest = Iova(at.0.wrapping_add(4));
        self.registers.command_done(place.lane);
        port.publish(rest, &response.as_bytes()[4..], at, request.token)
    }

    fn execute(&self, worker: usize, lane: usize, request: &CommandRequest) -> Reply {
        let b = &request.body;
        let id = || body::<ObjectId>(b).map(|object| object.id);
        let objects = || lock(&self.objects);
        match (lane, request.opcode) {
            (1, CMD_REVOKE_MR) => self.revoke_mr(id()?),
            (1, CMD_STOP_CONTEXT) => self.stop_context(id()?),
            (1, CMD_INVALIDATE_MR) => self.invalidate_mr(&body(b)?),
            (1, CMD_RESUME_FAULT) => self.resume_fault(&body(b)?),
            (0, CMD_QUERY_DEVICE) => reply(&self.caps()),
            (0, CMD_CREATE_EQ) => self.create_eq(worker, &mut objects(), &body(b)?),
            (0, CMD_DESTROY_EQ) => self.destroy_eq(&mut objects(), id()?),
            (0, CMD_CREATE_CONTEXT) => self.create_context(&mut objects(), &body(b)?),
            (0, CMD_DESTROY_CONTEXT) => self.destroy_context(&mut objects(), id()?),
            (0, CMD_CREATE_PD) => self.create_pd(&mut objects(), id()?),
            (0, CMD_DESTROY_PD) => self.destroy_pd(&mut objects(), id()?),
            (0, CMD_CREATE_MR) => self.create_mr(worker, &mut objects(), &body(b)?),
            (0, CMD_DESTROY_MR) => self.destroy_mr(id()?),
            (0, CMD_CREATE_CQ) => self.create_cq(worker, &mut objects(), &body(b)?),
            (0, CMD_DESTROY_CQ) => self.destroy_cq(&mut objects(), id()?),
            (0, CMD_MODIFY_CQ) => self.modify_cq(worker, &body(b)?),
            (0, CMD_CREATE_QP) => self.create_qp(worker, &mut objects(), &body(b)?),
            (0, CMD_MODIFY_QP) => self.modify_qp(&body(b)?),
            (0, CMD_QUERY_QP) => self.query_qp(id()?),
            (0, CMD_CREATE_SRQ) => self.create_srq(worker, &mut objects(), &body(b)?),
            (0, CMD_DESTROY_SRQ) => self.destroy_srq(&mut objects(), id()?),
            (0, CMD_ARM_SRQ) => self.arm_srq(worker, &body(b)?),
            (0, CMD_QUERY_SRQ) => self.query_srq(id()?),
            (0, CMD_DESTROY_QP) => self.destroy_qp(id()?),
            (0, CMD_SET_GID) => self.set_gid(&body(b)?),
            (0, CMD_SET_PORT) => self.set_port(&mut objects(), &body(b)?),
            (0, CMD_QUERY_COUNTERS) => self.query_counters(),
            _ => Err(Refused::BadOpcode),
        }
    }

    fn caps(&self) -> DeviceCaps {
        let Engine { config, memory, .. } = &self.engine;
        let controls = memory.fabric.endpoint.controls();
        let pasid = controls.ats() && controls.pri() && controls.pasid();
        let features = if pasid { CAP_PASID } else { 0 } | CAP_ATOMIC_GLOBAL | CAP_ODP;
        let persistent = if memory.fabric.memory.has_persistent() { CAP_FLUSH_PERSISTENT } else { 0 };
        DeviceCaps {
            version: DEVICE_VERSION,
            node_guid: config.node_guid,
            max_mr_size: u64::MAX,
            max_qp: config.max_qp,
            max_cq: config.max_cq,
            max_mr: config.max_mr,
            max_pd: config.max_pd,
            max_context: config.max_context,
            max_eq: refault_abi::regs::MAX_EQS,
            max_rd_atomic: u32::from(MAX_RD_ATOMIC),
            features: features | persistent | self.port_features(),
            lid: if self.engine.ethernet.is_some() { 0 } else { config.lid },
            pkeys: PKEYS,
            gids: u16::from(self.gids()),
            page_requests: config.page_request_credits,
            page_faults: config.page_fault_credits,
            max_srq: config.max_srq,
            ..self.port_caps()
        }
    }
}
