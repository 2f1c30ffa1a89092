//! A program's queues on the device, and its local buffers.

use std::collections::BTreeMap;
use std::sync::Arc;

use refault_abi::codes::{CAUSE_NONE, WC_SUCCESS, WC_WR_FLUSH_ERR, WcStatus};
use refault_abi::command::CMD_DESTROY_QP;
use refault_bus::bits::low_u32;
use refault_bus::{Iova, Pasid};
use refault_model::memory::FRAME;
use refault_model::nic::{
    CompletionQueue, Context, EventQueue, MemoryRegion, QueuePair, QueuePairSetup, work,
};
use refault_model::paging::{PageSize, Rights};
use refault_model::policy::Registration;
use refault_model::{ModelError, Process};

use crate::machine::ProgramObjects;

use super::contents::{PAGE, WRITTEN, written};
use super::machine::CellMachine;

/// Address of the local buffers: a page for each request in flight.
const BUFFERS: Iova = Iova(0x7f00_0000_0000);
/// Most requests in flight.
const SLOTS: u64 = 64;
/// The PASID of the only program.
pub(super) const PASID: Pasid = Pasid::truncated(1);
/// Connected queue pairs; requests on different ones do not wait for each other.
pub(super) const CHANNELS: usize = 4;

/// The access of a request to a page of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageAccess {
    /// Writes [`WRITTEN`] of it in this version.
    Write(u32),
    /// Reads all of it.
    Read,
}

/// A completed request.
#[derive(Clone, Debug)]
pub(super) struct CompletedRequest {
    /// The kind of access.
    pub(super) access: PageAccess,
    /// The page of the file.
    pub(super) page: u64,
    /// `WC_*` code.
    pub(super) status: WcStatus,
    /// `CAUSE_*` code.
    pub(super) cause: u32,
    /// The data of a successful read.
    pub(super) data: Vec<u8>,
}

impl CompletedRequest {
    pub(super) fn succeeded(&self) -> bool {
        self.status == WC_SUCCESS
    }
}

struct Posted {
    access: PageAccess,
    page: u64,
    slot: u64,
}

struct Channel {
    sender: QueuePair,
    receiver: QueuePair,
    failed: bool,
}

/// The queues and local buffers of a program.
pub(super) struct QueueSet {
    pub(super) process: Arc<Process>,
    pub(super) context: Context,
    /// Number of the protection domain.
    pub(super) pd: u32,
    /// A memory region over the whole address space, for the local buffers.
    local: MemoryRegion,
    events: EventQueue,
    completions: CompletionQueue,
    channels: Vec<Channel>,
    outstanding: BTreeMap<u64, Posted>,
    next_id: u64,
}

impl QueueSet {
    /// Creates queues and buffers for `process`, which is bound to [`PASID`].
    pub(super) fn open(machine: &CellMachine, process: Arc<Process>) -> Result<Self, ModelError> {
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
        let channel = |_| {
            let (sender, receiver) = (driver.create_queue_pair(setup)?, driver.create_queue_pair(setup)?);
            connect(machine, &sender, &receiver)?;
            Ok(Channel { sender, receiver, failed: false })
        };
        let channels = (0..CHANNELS).map(channel).collect::<Result<_, ModelError>>()?;
        let (outstanding, next_id) = (BTreeMap::new(), 0);
        Ok(Self { process, context, pd, local, events, completions, channels, outstanding, next_id })
    }

    /// Posts a request for a page of the file on a channel.
    pub(super) fn post(
        &mut self,
        channel: usize,
        access: PageAccess,
        page: u64,
        registration: &dyn Registration,
    ) -> Result<(), ModelError> {
        let (id, slot) = (self.next_id, self.next_id % SLOTS);
        self.next_id += 1;
        let buffer = Iova(BUFFERS.0 + slot * FRAME);
        // The region may start anywhere in the file; `base` is the address of page 0.
        let target = Iova(registration.base().0 + page * FRAME);
        let rkey = registration.key();
        let wqe = match access {
            PageAccess::Write(version) => {
                let bytes = written(version, page);
                self.process.write(buffer, &bytes)?;
                let piece = work::piece(buffer, low_u32(bytes.len() as u64), self.local.key);
                work::rdma_write(id, piece, Iova(target.0 + WRITTEN.start as u64), rkey)
            }
            PageAccess::Read => {
                let piece = work::piece(buffer, low_u32(PAGE as u64), self.local.key);
                work::rdma_read(id, piece, target, rkey)
            }
        };
        self.outstanding.insert(id, Posted { access, page, slot });
        self.channels[channel % CHANNELS].sender.post(&wqe).map(drop)
    }

    /// Takes the requests that have completed.
    pub(super) fn drain(&mut self) -> Result<Vec<CompletedRequest>, ModelError> {
        let mut all = Vec::new();
        while let Some(completion) = self.completions.poll()? {
            let (status, cause, qpn) = (completion.status, completion.vendor_error, completion.qpn);
            if let Some(channel) = self.channels.iter_mut().find(|channel| channel.sender.number() == qpn) {
                channel.failed |= status != WC_SUCCESS;
            }
            let Some(Posted { access, page, slot }) = self.outstanding.remove(&completion.wr_id) else {
                continue;
            };
            let mut data = Vec::new();
            if access == PageAccess::Read && status == WC_SUCCESS {
                data.resize(PAGE, 0);
                self.process.read(Iova(BUFFERS.0 + slot * FRAME), &mut data)?;
            }
            all.push(CompletedRequest { access, page, status, cause, data });
        }
        Ok(all)
    }

    /// Takes the requests that have completed, and all others as flushed.
    pub(super) fn abandon(&mut self) -> Result<Vec<CompletedRequest>, ModelError> {
        let mut all = self.drain()?;
        let flushed = |Posted { access, page, .. }| CompletedRequest {
            access,
            page,
            status: WC_WR_FLUSH_ERR,
            cause: CAUSE_NONE,
            data: Vec::new(),
        };
        all.extend(std::mem::take(&mut self.outstanding).into_values().map(flushed));
        Ok(all)
    }

    /// Resets and reconnects failed channels.
    pub(super) fn recover(&mut self, machine: &CellMachine) -> Result<(), ModelError> {
        for channel in self.channels.iter_mut().filter(|channel| channel.failed) {
            machine.driver.reset_queue_pair(&mut channel.sender)?;
            machine.driver.reset_queue_pair(&mut channel.receiver)?;
            connect(machine, &channel.sender, &channel.receiver)?;
            channel.failed = false;
        }
        Ok(())
    }

    /// Destroys the queues; returns the process.
    pub(super) fn close(self, machine: &CellMachine) -> Result<Arc<Process>, ModelError> {
        let driver = &machine.driver;
        for channel in &self.channels {
            driver.destroy(CMD_DESTROY_QP, channel.sender.number())?;
            driver.destroy(CMD_DESTROY_QP, channel.receiver.number())?;
        }
        machine.destroy(&ProgramObjects {
            mr: self.local.key,
            cq: self.completions.number(),
            eq: self.events.number(),
            pd: self.pd,
            context: self.context.id,
        })?;
        Ok(self.process)
    }
}

fn connect(machine: &CellMachine, sender: &QueuePair, receiver: &QueuePair) -> Result<(), ModelError> {
    machine.driver.connect(receiver.number(), sender.number())?;
    machine.driver.connect(sender.number(), receiver.number())
}
