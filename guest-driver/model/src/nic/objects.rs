//! Creation and destruction of the device's objects.

use refault_abi::codes::{AccessRights, QPT_RC, QpKind};
use refault_abi::command::{
    CMD_CREATE_CONTEXT, CMD_CREATE_CQ, CMD_CREATE_EQ, CMD_CREATE_MR, CMD_CREATE_PD, CMD_CREATE_QP,
    CMD_MODIFY_CQ, CMD_REVOKE_MR, CMD_STOP_CONTEXT, CommandOpcode, CreateContext, CreateCq, CreateEq,
    CreateMr, CreateQp, MR_PASID, MR_PINNED, ModifyCq, ObjectId, PageTable,
};
use refault_abi::doorbell::Doorbell;
use refault_abi::regs::DOORBELL_PAGE_SIZE;
use refault_bus::{Iova, Pasid};

use crate::ModelError;
use crate::nic::queue_pair::RingLayout;
use crate::nic::{Buffer, CompletionQueue, Driver, EventQueue, QueuePair};
use crate::registers::RegisterWindow;

/// The doorbell page of a context, in BAR 2.
#[derive(Clone)]
pub(crate) struct DoorbellPage {
    registers: RegisterWindow,
    offset: u64,
}

impl DoorbellPage {
    /// Writes a doorbell of `kind`, `DOORBELL_*`.
    pub(crate) fn ring(&self, kind: u64, number: u32, argument: u32) {
        let [kind, ..] = kind.to_le_bytes();
        self.registers.write64(self.offset, Doorbell { kind, number, argument }.encode());
    }
}

/// A context: the objects of one process, or of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Number of the context and of its doorbell page.
    pub id: u32,
    /// PASID of the process; `None` for the kernel.
    pub pasid: Option<Pasid>,
}

/// A memory region, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The lkey, which is also the rkey.
    pub key: u32,
}

/// Arguments of [`Driver::create_queue_pair`].
#[derive(Clone, Copy, Debug)]
pub struct QueuePairSetup {
    /// Number of the protection domain.
    pub pd: u32,
    /// The context, whose doorbell page the queue pair uses.
    pub context: Context,
    /// Number of the completion queue, for sends and receives.
    pub cqn: u32,
    /// Number of the event queue for asynchronous events.
    pub eqn: u32,
    /// log2 of the send ring's entries.
    pub log_sq: u8,
    /// log2 of the receive ring's entries.
    pub log_rq: u8,
}

/// Every method that executes a command fails as [`CommandLane::execute`] does; those that allocate a ring also fail
/// with [`ModelError::OutOfMemory`].
///
/// [`CommandLane::execute`]: crate::nic::CommandLane::execute
impl Driver {
    /// Creates an event queue of `1 << log` entries on MSI-X vector `vector`.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`], or the command fails.
    pub fn create_event_queue(&self, vector: u16, log: u8) -> Result<EventQueue, ModelError> {
        let ring = self.buffer(EventQueue::ring_bytes(u32::from(log)))?;
        let body = CreateEq { ring: ring.table(), log_size: log, vector, ..CreateEq::default() };
        let eqn = self.create(CMD_CREATE_EQ, &body)?;
        Ok(EventQueue::new(eqn, self.bar0().clone(), ring, u32::from(log)))
    }

    /// Creates a context for a process with a PASID, or for the kernel.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn create_context(&self, pasid: Option<Pasid>) -> Result<Context, ModelError> {
        let body = CreateContext {
            pasid: pasid.map_or(0, Pasid::get),
            has_pasid: u32::from(pasid.is_some()),
            reserved: 0,
        };
        Ok(Context { id: self.create(CMD_CREATE_CONTEXT, &body)?, pasid })
    }

    /// Creates a protection domain and returns its number.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn create_pd(&self, context: Context) -> Result<u32, ModelError> {
        self.create(CMD_CREATE_PD, &object(context.id))
    }

    /// Registers the whole address space of the process, translated through its PASID, with all access flags.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn register_process(&self, pd: u32) -> Result<MemoryRegion, ModelError> {
        self.register_range(pd, Iova(0), u64::MAX, AccessRights::ALL)
    }

    /// Registers `length` bytes of the process' address space from `start` on, translated through its PASID.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn register_range(
        &self,
        pd: u32,
        start: Iova,
        length: u64,
        access: AccessRights,
    ) -> Result<MemoryRegion, ModelError> {
        let body = CreateMr { start: start.0, length, pd, access, mode: MR_PASID, ..CreateMr::default() };
        Ok(MemoryRegion { key: self.create(CMD_CREATE_MR, &body)? })
    }

    /// Registers the pinned pages in `table`, which requests address as `length` bytes from `start` on, with all access
    /// flags. `start` is page aligned.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn register_pinned(
        &self,
        pd: u32,
        start: Iova,
        length: u64,
        table: PageTable,
    ) -> Result<MemoryRegion, ModelError> {
        let body = CreateMr {
            start: start.0,
            length,
            table,
            pd,
            access: AccessRights::ALL,
            mode: MR_PINNED,
            ..CreateMr::default()
        };
        Ok(MemoryRegion { key: self.create(CMD_CREATE_MR, &body)? })
    }

    /// Revokes a region, in lane 1: requests to it fail from now on.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn revoke(&self, region: MemoryRegion) -> Result<(), ModelError> {
        self.lane1().execute::<[u8; 0]>(CMD_REVOKE_MR, &object(region.key)).map(drop)
    }

    /// Stops a context, in lane 1: its queue pairs start no more work.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn stop_context(&self, context: Context) -> Result<(), ModelError> {
        self.lane1().execute::<[u8; 0]>(CMD_STOP_CONTEXT, &object(context.id)).map(drop)
    }

    /// Destroys an object with `opcode`, the `CMD_DESTROY_*` of its type.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn destroy(&self, opcode: CommandOpcode, id: u32) -> Result<(), ModelError> {
        self.lane0().execute::<[u8; 0]>(opcode, &object(id)).map(drop)
    }

    /// Creates a completion queue of `1 << log` entries, with events to event queue `eqn`.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`], or the command fails.
    pub fn create_completion_queue(
        &self,
        context: Context,
        eqn: u32,
        log: u8,
    ) -> Result<CompletionQueue, ModelError> {
        let record_offset = CompletionQueue::record_offset(u32::from(log));
        let buffer = self.buffer(u64::from(record_offset) + 64)?;
        let body = CreateCq {
            buffer: buffer.table(),
            record_offset,
            context: context.id,
            eqn,
            log_size: log,
            ..CreateCq::default()
        };
        let cqn = self.create(CMD_CREATE_CQ, &body)?;
        Ok(CompletionQueue::new(cqn, self.page(context), buffer, u32::from(log)))
    }

    /// Moderates the events of a completion queue: when armed, it sends one after `count` completions, or `period_us`
    /// microseconds after the first.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn moderate(&self, queue: &CompletionQueue, count: u16, period_us: u16) -> Result<(), ModelError> {
        let body = ModifyCq { cqn: queue.number(), count, period_us, reserved: 0 };
        self.lane0().execute::<[u8; 0]>(CMD_MODIFY_CQ, &body).map(drop)
    }

    /// Creates a reliable-connected queue pair, in state RESET.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`], or the command fails.
    pub fn create_queue_pair(&self, setup: QueuePairSetup) -> Result<QueuePair, ModelError> {
        self.create_queue_pair_of(setup, QPT_RC, 0)
    }

    /// Creates a queue pair of type `kind`, `QPT_*`, in state RESET. It takes receive requests from shared receive
    /// queue `srqn` unless that is 0.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`], or the command fails.
    pub fn create_queue_pair_of(
        &self,
        setup: QueuePairSetup,
        kind: QpKind,
        srqn: u32,
    ) -> Result<QueuePair, ModelError> {
        let layout = RingLayout { log_sq: u32::from(setup.log_sq), log_rq: u32::from(setup.log_rq) };
        let buffer = self.buffer(layout.bytes())?;
        let body = CreateQp {
            buffer: buffer.table(),
            rq_offset: layout.rq_offset(),
            record_offset: layout.record_offset(),
            pd: setup.pd,
            send_cq: setup.cqn,
            recv_cq: setup.cqn,
            eqn: setup.eqn,
            log_sq: setup.log_sq,
            log_rq: setup.log_rq,
            kind,
            srqn,
            ..CreateQp::default()
        };
        let qpn = self.create(CMD_CREATE_QP, &body)?;
        Ok(QueuePair::new(qpn, self.page(setup.context), buffer, layout))
    }

    pub(super) fn create(
        &self,
        opcode: CommandOpcode,
        body: &(impl zerocopy::IntoBytes + zerocopy::Immutable),
    ) -> Result<u32, ModelError> {
        Ok(self.lane0().execute::<ObjectId>(opcode, body)?.id)
    }

    fn page(&self, context: Context) -> DoorbellPage {
        let offset = u64::from(context.id) * DOORBELL_PAGE_SIZE;
        DoorbellPage { registers: self.bar2().clone(), offset }
    }

    pub(super) fn buffer(&self, bytes: u64) -> Result<Buffer, ModelError> {
        Buffer::new(self.memory(), self.domain(), bytes)
    }
}

/// The body of a command whose only argument is an object's number.
pub(super) fn object(id: u32) -> ObjectId {
    ObjectId { id, reserved: 0 }
}
