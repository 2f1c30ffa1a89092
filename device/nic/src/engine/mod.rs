//! The transfer engine: workers take turns with queue pairs that have something to do.
//!
//! A turn works off a bounded burst of one queue pair's send requests, in order. It ends when there is
//! nothing left to do, when the burst is over (then the queue pair goes to the end of its worker's queue), or
//! when the request must wait: for a page, for the peer, for a moment in time. A waiting queue pair is parked;
//! it occupies no worker, no guard and no lock.

mod datagram;
mod durable;
mod faults;
mod flush;
mod receive;
mod requester;
mod responder;
mod watch;

use std::sync::Arc;

use crossbeam::channel::Receiver;
use refault_abi::event::{EVENT_QP, QP_EVENT_FATAL};
use refault_bus::probe::{ProbeEvent, Stage};

use crate::Nic;
use crate::fault::waits::{Closed, Told};
use crate::ids::slot_of;
use crate::memory::guard::lock;
use crate::memory::port::Port;
use crate::qp::{Qp, Requester, Setup};
use crate::queue::completion::TimerNeeded;
use crate::queue::event::Event;
use durable::Persist;

/// Requests of one turn.
const REQUESTS_PER_TURN: u32 = 64;
/// Payload bytes of one turn.
const BYTES_PER_TURN: u32 = 1 << 20;

/// Something for a worker to do.
#[derive(Debug)]
pub struct Work(pub(crate) Task);

/// What it is. A queue pair is named by its slot: whoever occupies it when its turn comes has the turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// A queue pair may have something to do.
    QueuePair(u32),
    /// A command lane may have something to do.
    Commands,
    /// A completion queue waits for more completions before it tells of them, but not for ever.
    Moderate(u32),
    /// Memory is to survive the machine; a queue pair waits for it.
    Persist(Persist),
}

/// One worker: whoever owns it does the work of a share of the queue pairs; or, if there is persistent memory and
/// it is the last one, writes it out.
///
/// It has no thread of its own. Its owner waits for [`Self::receiver`] or [`Self::next_deadline_ns`], whichever
/// comes first, and calls [`Self::process`] or [`Self::expire`].
pub struct Worker {
    nic: Arc<Nic>,
    index: usize,
    receiver: Receiver<Work>,
}

impl Worker {
    pub(crate) fn new(nic: Arc<Nic>, index: usize) -> Self {
        let index = index % nic.worker_count();
        let receiver = nic.workers.get(index).map_or(&nic.persister.1, |cell| &cell.receiver).clone();
        Self { nic, index, receiver }
    }

    /// Where work arrives. Nothing else wakes a worker but its deadline.
    pub fn receiver(&self) -> &Receiver<Work> {
        &self.receiver
    }

    /// Does one piece of work. Never blocks for long: a copy is bounded, and nothing waits for a page. But the one
    /// that writes out persistent memory waits for the host's disk.
    pub fn process(&mut self, work: Work) {
        match work.0 {
            Task::QueuePair(slot) => self.nic.turn(self.index, slot),
            Task::Commands => self.nic.serve_commands(self.index),
            Task::Moderate(cqn) => self.nic.watch_moderation(self.index, cqn),
            Task::Persist(task) => self.nic.persist(task),
        }
    }

    /// Does one piece of work, if there is one: for owners of several workers on one thread.
    pub fn poll(&mut self) -> bool {
        let work = self.receiver.try_recv();
        work.map(|work| self.process(work)).is_ok()
    }

    /// When [`Self::expire`] has something to do, on the NIC's clock.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        lock(&self.nic.workers.get(self.index)?.timers).next_ns()
    }

    /// Does what is due: requests that waited for a moment in time are queued, page requests that nobody
    /// answered are given up.
    pub fn expire(&mut self) {
        if self.index < self.nic.workers.len() {
            self.nic.expire(self.index);
        }
    }
}

/// What one turn may still do.
struct Budget {
    requests: u32,
    bytes: u32,
    /// The send queue's producer index was looked at.
    looked: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self { requests: REQUESTS_PER_TURN, bytes: BYTES_PER_TURN, looked: false }
    }
}

impl Budget {
    fn spend(&mut self, requests: u32, bytes: u32) {
        self.requests = self.requests.saturating_sub(requests);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn is_spent(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }
}

impl Nic {
    /// Access to memory as worker `worker`.
    pub(crate) fn port(&self, worker: usize) -> Port<'_> {
        Port::enter(&self.fabric, &self.regions, &self.guards[worker])
    }

    /// Has a completion queue's worker watch the time, if the queue asks for it.
    pub(crate) fn moderate(&self, cqn: u32, needed: TimerNeeded) {
        if needed == TimerNeeded::Yes {
            self.send(self.worker_of(slot_of(cqn)), Task::Moderate(cqn));
        }
    }

    fn watch_moderation(&self, worker: usize, cqn: u32) {
        if let Some(deadline_ns) = self.cqs.watched(cqn) {
            lock(&self.workers[worker].timers).cqs.set(cqn, deadline_ns);
        }
    }

    /// Who works for a slot, whoever occupies it.
    fn worker_of(&self, slot: u32) -> usize {
        slot as usize % self.workers.len()
    }

    /// Queues a turn of `qp`, unless one is queued already.
    pub(crate) fn schedule(&self, qp: &Qp) {
        let slot = slot_of(qp.qpn());
        if qp.qpn() != 0 && qp.mark_scheduled() {
            self.send(self.worker_of(slot), Task::QueuePair(slot));
        }
    }

    pub(crate) fn send(&self, worker: usize, task: Task) {
        // The receiver lives as long as the NIC.
        let _ = self.workers[worker].sender.send(Work(task));
    }

    /// One turn of whoever occupies `slot`.
    fn turn(&self, worker: usize, slot: u32) {
        let Some(qp) = self.qps.occupant(slot) else { return };
        qp.unmark_scheduled();
        let mut requester = lock(&qp.requester);
        if requester.setup.qpn != 0 && self.run(worker, qp, &mut requester) == Turn::Again {
            self.schedule(qp);
        }
    }

    /// Takes a queue pair to ERR, and queues a turn in which it is flushed. `fatal` tells its driver.
    pub(crate) fn fail_qp(&self, qp: &Qp, fatal: bool) {
        if qp.fail() {
            if fatal {
                qp.mark_fatal();
            }
            self.schedule(qp);
        }
    }

    /// A completion queue failed: so do all queue pairs that use it.
    pub(crate) fn fail_users_of_cq(&self, cqn: u32) {
        self.qps.iter().filter(|qp| qp.uses_cq(cqn)).for_each(|qp| self.fail_qp(qp, true));
    }

    /// Tells the driver something about a queue pair.
    pub(crate) fn tell_qp_event(&self, port: &mut Port<'_>, setup: &Setup, code: u8) {
        self.events.raise(port, setup.eqn, Event::of(EVENT_QP, code, setup.qpn));
    }

    /// Tells the driver of a fatal error that was noted, once in the queue pair's life between two resets.
    pub(crate) fn tell_fatal(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester) {
        if qp.take_fatal() && !std::mem::replace(&mut requester.told_fatal, true) {
            self.tell_qp_event(port, &requester.setup, QP_EVENT_FATAL);
        }
    }

    /// Hands out the answer to a page request, or to a page fault.
    pub(crate) fn tell_answer(&self, closed: Closed) {
        let Closed { group, miss, told } = closed;
        let event = ProbeEvent::new(Stage::Matched, miss.space, miss.page);
        self.fabric.record(ProbeEvent { group: Some(group), write: miss.write, ..event });
        self.tell_waiters(told);
    }

    /// Tells those who wait for a page how to go on.
    pub(crate) fn tell_waiters(&self, told: Vec<Told>) {
        for (waiter, answer) in told {
            if let Some(qp) = self.qps.find(waiter.qpn) {
                qp.leave_answer(waiter.ticket, answer);
                self.schedule(qp);
            }
        }
    }

    fn expire(&self, worker: usize) {
        let now = self.fabric.now_ns();
        let due = |worker: usize| lock(&self.workers[worker].timers).qps.pop(now);
        while let Some(qpn) = due(worker) {
            if let Some(qp) = self.qps.find(qpn) {
                self.schedule(qp);
            }
        }
        let due = |worker: usize| lock(&self.workers[worker].timers).cqs.pop(now);
        while let Some(cqn) = due(worker) {
            self.cqs.expire(&mut self.port(worker), &self.events, cqn);
        }
        let overdue = lock(&self.workers[worker].timers).page_requests_ns.is_some_and(|at| at <= now);
        if overdue {
            let (mut closed, next) = self.pages.expire(now);
            let (faults, next_fault) = self.faults.expire(now);
            closed.extend(faults);
            lock(&self.workers[worker].timers).page_requests_ns = next.into_iter().chain(next_fault).min();
            for group in closed {
                tracing::debug!(group = ?group.group, page = ?group.miss, "page request or fault timed out");
                self.tell_waiters(group.told);
            }
        }
    }
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing to do until something wakes the queue pair.
    Over,
    /// There is more to do.
    Again,
}
