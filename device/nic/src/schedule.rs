//! The workers' queues and timers: which worker does what, and when.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, unbounded};
use refault_bus::dma::GpaRange;
use refault_bus::sync::lock;

use crate::ids::slot_of;
use crate::qp::answer::{Waiter, Wakeup};
use crate::qp::{Qp, QueuePairs};
use crate::storage::Storage;
use crate::timers::Timers;

/// A piece of work for a worker.
#[derive(Debug)]
pub struct Work(pub(crate) Task);

/// The kinds of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// The queue pair in this slot, whichever it is by then, may have something to do.
    QueuePair(u32),
    /// A command lane has something to do, and this wakes its worker.
    Commands,
    /// A completion queue waits for more completions, or for its deadline, before it sends an event.
    Moderate(u32),
    /// A region of persistent memory has its turn to be written out.
    Persist,
}

/// What a worker has outside its guard.
struct Cell {
    sender: Sender<Work>,
    receiver: Receiver<Work>,
    timers: Mutex<Timers>,
    /// The earliest deadline of `timers`, or [`NEVER`]: looked at before each piece of work.
    next_ns: AtomicU64,
}

/// No deadline.
const NEVER: u64 = u64::MAX;

/// All workers' queues and timers. A timer's lock is a leaf.
pub(crate) struct Workers {
    cells: Box<[Cell]>,
    /// To the worker that makes memory persistent: a task for each turn of `storage`.
    persister: (Sender<Work>, Receiver<Work>),
    pub(crate) storage: Storage,
}

impl Workers {
    /// `count` workers, and the one for persistent memory.
    pub(crate) fn new(count: usize) -> Self {
        let cell = |_| {
            let (sender, receiver) = unbounded();
            Cell { sender, receiver, timers: Mutex::default(), next_ns: AtomicU64::new(NEVER) }
        };
        Self { cells: (0..count).map(cell).collect(), persister: unbounded(), storage: Storage::default() }
    }

    /// Workers that have queue pairs.
    pub(crate) fn count(&self) -> usize {
        self.cells.len()
    }

    /// Where a worker's work arrives; beyond the last, that of the worker for persistent memory.
    pub(crate) fn receiver(&self, worker: usize) -> &Receiver<Work> {
        self.cells.get(worker).map_or(&self.persister.1, |cell| &cell.receiver)
    }

    /// Whether nothing is queued for a worker.
    pub(crate) fn is_empty(&self, worker: usize) -> bool {
        self.cells[worker].receiver.is_empty()
    }

    /// Sets or takes timers of a worker.
    pub(crate) fn timers<R>(&self, worker: usize, work: impl FnOnce(&mut Timers) -> R) -> R {
        let Cell { timers, next_ns, .. } = &self.cells[worker];
        let mut timers = lock(timers);
        let result = work(&mut timers);
        next_ns.store(timers.next_ns().unwrap_or(NEVER), Ordering::Relaxed);
        result
    }

    /// When a worker's next timer is due; `None` also for the worker for persistent memory, which has none.
    pub(crate) fn next_deadline_ns(&self, worker: usize) -> Option<u64> {
        let next_ns = self.cells.get(worker)?.next_ns.load(Ordering::Relaxed);
        (next_ns != NEVER).then_some(next_ns)
    }

    /// The worker of a slot.
    fn worker_of(&self, slot: u32) -> usize {
        slot as usize % self.cells.len()
    }

    /// Queues a task.
    pub(crate) fn send(&self, worker: usize, task: Task) {
        // The receiver lives as long as the sender.
        let _ = self.cells[worker].sender.send(Work(task));
    }

    /// Has a region of persistent memory written out for `waiter`.
    pub(crate) fn persist(&self, waiter: Waiter, region: GpaRange) {
        if self.storage.wait(waiter, region) {
            // The receiver lives as long as the sender.
            let _ = self.persister.0.send(Work(Task::Persist));
        }
    }

    /// Queues a turn of `qp`, unless one is queued already.
    pub(crate) fn schedule(&self, qp: &Qp) {
        qp.slot.schedule(|slot| self.send(self.worker_of(slot), Task::QueuePair(slot)));
    }

    /// Has a completion queue's worker start the queue's timer.
    pub(crate) fn moderate(&self, cqn: u32) {
        self.send(self.worker_of(slot_of(cqn)), Task::Moderate(cqn));
    }

    /// Queues a turn of queue pair `qpn` at `deadline_ns`.
    pub(crate) fn wake_at(&self, qpn: u32, deadline_ns: u64) {
        self.timers(self.worker_of(slot_of(qpn)), |timers| timers.qps.set(qpn, deadline_ns));
    }

    /// Gives waiters their answers, and queues their turns.
    pub(crate) fn wake(&self, qps: &QueuePairs, wakeups: impl IntoIterator<Item = Wakeup>) {
        for (waiter, answer) in wakeups {
            if let Some(qp) = qps.find(waiter.qpn) {
                qp.slot.leave_answer(waiter.half, waiter.ticket, answer);
                self.schedule(qp);
            }
        }
    }
}
