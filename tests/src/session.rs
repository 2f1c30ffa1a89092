//! A process that uses the NIC.

use std::sync::Arc;

use refault_abi::command::{
    CMD_DESTROY_CONTEXT, CMD_DESTROY_CQ, CMD_DESTROY_EQ, CMD_DESTROY_MR, CMD_DESTROY_PD, CMD_DESTROY_QP,
};
use refault_abi::queue::{Cqe, SqWqe};
use refault_bus::{Iova, Pasid};
use refault_model::Process;
use refault_model::nic::{
    CompletionQueue, Context, Driver, EventQueue, MemoryRegion, QueuePair, QueuePairSetup, work,
};

/// log2 of the entries of both rings of a queue pair.
pub const LOG_RING: u8 = 6;
/// log2 of the entries of the completion queue.
pub const LOG_COMPLETIONS: u8 = 10;

/// A process with a context, a region over all its addresses, and a pair of queue pairs connected to each
/// other: one sends, the other receives.
pub struct Session {
    /// The process.
    pub process: Arc<Process>,
    /// Its PASID.
    pub pasid: Pasid,
    /// Its context.
    pub context: Context,
    /// Its protection domain.
    pub pd: u32,
    /// All its addresses.
    pub region: MemoryRegion,
    /// The setup of its queue pairs.
    pub setup: QueuePairSetup,
    /// The event queue of its queues.
    pub events: EventQueue,
    /// Completions of both queue pairs.
    pub completions: CompletionQueue,
    /// The sender.
    pub sender: QueuePair,
    /// The receiver.
    pub receiver: QueuePair,
}

impl Session {
    /// Creates a session for a process bound to `pasid`.
    pub fn open(driver: &Driver, process: Arc<Process>, pasid: Pasid) -> Self {
        let context = driver.create_context(Some(pasid)).expect("a context");
        let pd = driver.create_pd(context).expect("a protection domain");
        let region = driver.register_process(pd).expect("a region");
        let events = driver.create_event_queue(0, 6).expect("an event queue");
        let completions = driver
            .create_completion_queue(context, events.number(), LOG_COMPLETIONS)
            .expect("a completion queue");
        let (cqn, eqn) = (completions.number(), events.number());
        let setup = QueuePairSetup { pd, context, cqn, eqn, log_sq: LOG_RING, log_rq: LOG_RING };
        let (sender, receiver) = create_pair(driver, setup);
        let session =
            Self { process, pasid, context, pd, region, setup, events, completions, sender, receiver };
        session.connect(driver);
        session
    }

    /// Two more queue pairs, connected to each other; the first is the sender.
    pub fn add_pair(&self, driver: &Driver) -> (QueuePair, QueuePair) {
        let (sender, receiver) = create_pair(driver, self.setup);
        connect(driver, &sender, &receiver);
        (sender, receiver)
    }

    /// Connects the two queue pairs, which are in RESET.
    pub fn connect(&self, driver: &Driver) {
        connect(driver, &self.sender, &self.receiver);
    }

    /// Takes both queue pairs through RESET and connects them again, as after an error.
    pub fn reconnect(&mut self, driver: &Driver) {
        driver.reset_queue_pair(&mut self.sender).expect("RESET");
        driver.reset_queue_pair(&mut self.receiver).expect("RESET");
        self.connect(driver);
    }

    /// Destroys everything but the process, as closing the device's file does.
    pub fn close(self, driver: &Driver) -> Arc<Process> {
        for (opcode, id) in [
            (CMD_DESTROY_QP, self.sender.number()),
            (CMD_DESTROY_QP, self.receiver.number()),
            (CMD_DESTROY_MR, self.region.key),
            (CMD_DESTROY_CQ, self.completions.number()),
            (CMD_DESTROY_EQ, self.events.number()),
            (CMD_DESTROY_PD, self.pd),
            (CMD_DESTROY_CONTEXT, self.context.id),
        ] {
            driver.destroy(opcode, id).expect("nothing else uses it");
        }
        self.process
    }

    /// Posts an RDMA WRITE of `length` bytes.
    pub fn write(&mut self, id: u64, from: Iova, to: Iova, length: u32) {
        let wqe = work::rdma_write(id, work::piece(from, length, self.region.key), to, self.region.key);
        self.post(&wqe);
    }

    /// Posts an RDMA READ of `length` bytes.
    pub fn read(&mut self, id: u64, into: Iova, from: Iova, length: u32) {
        let wqe = work::rdma_read(id, work::piece(into, length, self.region.key), from, self.region.key);
        self.post(&wqe);
    }

    /// Posts any request.
    pub fn post(&mut self, wqe: &SqWqe) {
        self.sender.post(wqe).expect("the ring is memory");
    }

    /// Takes the next completion, if there is one.
    pub fn poll(&mut self) -> Option<Cqe> {
        self.completions.poll().expect("the ring is memory")
    }

    /// All completions so far.
    pub fn drain(&mut self) -> Vec<Cqe> {
        std::iter::from_fn(|| self.poll()).collect()
    }
}

fn create_pair(driver: &Driver, setup: QueuePairSetup) -> (QueuePair, QueuePair) {
    let sender = driver.create_queue_pair(setup).expect("a queue pair");
    (sender, driver.create_queue_pair(setup).expect("a queue pair"))
}

fn connect(driver: &Driver, sender: &QueuePair, receiver: &QueuePair) {
    driver.connect(receiver.number(), sender.number()).expect("RTS");
    driver.connect(sender.number(), receiver.number()).expect("RTS");
}
