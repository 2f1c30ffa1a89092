//! What a program has of the device: queues, and buffers that requests come from and go to.

use std::collections::BTreeMap;
use std::sync::Arc;

use refault_abi::codes::{CAUSE_NONE, WC_SUCCESS, WC_WR_FLUSH_ERR};
use refault_abi::command::*;
use refault_bus::{Iova, Pasid};
use refault_model::memory::FRAME;
use refault_model::nic::{
    CompletionQueue, Context, EventQueue, MemoryRegion, QueuePair, QueuePairSetup, work,
};
use refault_model::paging::{PageSize, Rights};
use refault_model::policy::Registration;
use refault_model::{ModelError, Process};

use super::contents::{PAGE, WRITTEN, written};
use super::machine::Machine;

/// Where the bytes come from and go to: a page for each request that may be under way.
const BUFFERS: Iova = Iova(0x7f00_0000_0000);
/// Requests that may be under way.
const SLOTS: u64 = 64;
/// The one program's.
pub(super) const PASID: Pasid = Pasid::truncated(1);
/// Pairs of queue pairs: requests on different ones do not wait for each other.
pub(super) const LANES: usize = 4;

/// What a request does to a page of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It writes [`WRITTEN`] of it, in this version.
    Write(u32),
    /// It reads it.
    Read,
}

/// A request that is over.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// What it was to do.
    pub(super) access: Access,
    /// The page of the file.
    pub(super) page: u64,
    /// WC_*.
    pub(super) status: u8,
    /// CAUSE_*.
    pub(super) cause: u32,
    /// What was read, if it succeeded.
    pub(super) data: Vec<u8>,
}

impl Done {
    pub(super) fn succeeded(&self) -> bool {
        self.status == WC_SUCCESS
    }
}

struct Posted {
    access: Access,
    page: u64,
    slot: u64,
}

struct Lane {
    sender: QueuePair,
    receiver: QueuePair,
    failed: bool,
}

/// Queues of a program, and its memory: what ends with it.
pub(super) struct Session {
    pub(super) process: Arc<Process>,
    pub(super) context: Context,
    /// Its protection domain.
    pub(super) pd: u32,
    /// Over all its addresses: for its buffers.
    local: MemoryRegion,
    events: EventQueue,
    completions: CompletionQueue,
    lanes: Vec<Lane>,
    outstanding: BTreeMap<u64, Posted>,
    next_id: u64,
}

impl Session {
    /// Makes the queues for `process`, which is bound to [`PASID`], and the buffers in it.
    pub(super) fn open(machine: &Machine, process: Arc<Process>) -> Result<Self, ModelError> {
        process.map_area(BUFFERS, SLOTS * FRAME, Rights::Write, PageSize::Small);
        process.populate(BUFFERS, SLOTS * FRAME)?;
        let driver = &machine.driver;
        let context = driver.create_context(Some(PASID))?;
        let pd = driver.create_pd(context)?;
        let local = driver.register_process(pd)?;
        let events = driver.create_event_queue(0, 6)?;
        let completions = driver.create_completion_queue(context, events.number(), 10)?;
        let (cqn, eqn) = (completions.number(), events.number());
        let setup = QueuePairSetup { pd, context, cqn, eqn, log_sq: 6, log_rq: 1 };
        let lane = |_| {
            let (sender, receiver) = (driver.create_queue_pair(setup)?, driver.create_queue_pair(setup)?);
            connect(machine, &sender, &receiver)?;
            Ok(Lane { sender, receiver, failed: false })
        };
        let lanes = (0..LANES).map(lane).collect::<Result<_, ModelError>>()?;
        let (outstanding, next_id) = (BTreeMap::new(), 0);
        Ok(Self { process, context, pd, local, events, completions, lanes, outstanding, next_id })
    }

    /// Posts a request for a page of the file on a lane.
    pub(super) fn post(
        &mut self,
        lane: usize,
        access: Access,
        page: u64,
        registration: &dyn Registration,
    ) -> Result<(), ModelError> {
        let (id, slot) = (self.next_id, self.next_id % SLOTS);
        self.next_id += 1;
        let buffer = Iova(BUFFERS.0 + slot * FRAME);
        // The region may begin anywhere in the file, but it begins with a page that has its place by number.
        let target = Iova(registration.base().0 + page * FRAME);
        let rkey = registration.key();
        let wqe = match access {
            Access::Write(version) => {
                let bytes = written(version, page);
                self.process.write(buffer, &bytes)?;
                let piece = work::piece(buffer, bytes.len() as u32, self.local.key);
                work::rdma_write(id, piece, Iova(target.0 + WRITTEN.start as u64), rkey)
            }
            Access::Read => {
                let piece = work::piece(buffer, PAGE as u32, self.local.key);
                work::rdma_read(id, piece, target, rkey)
            }
        };
        self.outstanding.insert(id, Posted { access, page, slot });
        self.lanes[lane % LANES].sender.post(&wqe).map(drop)
    }

    /// What is over of what was posted.
    pub(super) fn drain(&mut self) -> Result<Vec<Done>, ModelError> {
        let mut all = Vec::new();
        while let Some(completion) = self.completions.poll()? {
            let (status, cause, qpn) = (completion.status, completion.vendor_error, completion.qpn);
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.sender.number() == qpn) {
                lane.failed |= status != WC_SUCCESS;
            }
            let Some(Posted { access, page, slot }) = self.outstanding.remove(&completion.wr_id) else {
                continue;
            };
            let mut data = Vec::new();
            if access == Access::Read && status == WC_SUCCESS {
                data.resize(PAGE, 0);
                self.process.read(Iova(BUFFERS.0 + slot * FRAME), &mut data)?;
            }
            all.push(Done { access, page, status, cause, data });
        }
        Ok(all)
    }

    /// What is over, and, as flushed, what is not.
    pub(super) fn abandon(&mut self) -> Result<Vec<Done>, ModelError> {
        let mut all = self.drain()?;
        let flushed = |Posted { access, page, .. }| Done {
            access,
            page,
            status: WC_WR_FLUSH_ERR,
            cause: CAUSE_NONE,
            data: Vec::new(),
        };
        all.extend(std::mem::take(&mut self.outstanding).into_values().map(flushed));
        Ok(all)
    }

    /// Takes lanes that failed through RESET.
    pub(super) fn recover(&mut self, machine: &Machine) -> Result<(), ModelError> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.failed) {
            machine.driver.reset_queue_pair(&mut lane.sender)?;
            machine.driver.reset_queue_pair(&mut lane.receiver)?;
            connect(machine, &lane.sender, &lane.receiver)?;
            lane.failed = false;
        }
        Ok(())
    }

    /// Destroys everything but the process.
    pub(super) fn close(self, machine: &Machine) -> Result<Arc<Process>, ModelError> {
        let driver = &machine.driver;
        for lane in &self.lanes {
            driver.destroy(CMD_DESTROY_QP, lane.sender.number())?;
            driver.destroy(CMD_DESTROY_QP, lane.receiver.number())?;
        }
        for (opcode, id) in [
            (CMD_DESTROY_MR, self.local.key),
            (CMD_DESTROY_CQ, self.completions.number()),
            (CMD_DESTROY_EQ, self.events.number()),
            (CMD_DESTROY_PD, self.pd),
            (CMD_DESTROY_CONTEXT, self.context.id),
        ] {
            driver.destroy(opcode, id)?;
        }
        Ok(self.process)
    }
}

fn connect(machine: &Machine, sender: &QueuePair, receiver: &QueuePair) -> Result<(), ModelError> {
    machine.driver.connect(receiver.number(), sender.number())?;
    machine.driver.connect(sender.number(), receiver.number())
}
