//! The transfer engine: workers take turns with queue pairs that have something to do.
//!
//! A turn drains a bounded burst of one queue pair's send requests, in order. It ends when there is nothing left to
//! do, when the burst is over (then the queue pair goes to the end of its worker's queue), or when the request must
//! wait: for a page, for the peer, for a deadline. A waiting queue pair is parked; it occupies no worker, no guard and
//! no lock.
//!
//! `requester` runs the turn, `handover` leads to the `responder`, whose [`outcome`]s come back.

mod atomic;
mod datagram;
mod ethernet;
mod flush;
mod handover;
mod outcome;
mod packets;
mod persist;
mod receive;
mod regions;
mod requester;
mod responder;
mod sample;
mod turn;
mod waiting;

use std::sync::Arc;

use refault_abi::event::QpEvent;
use refault_bus::Pasid;
use refault_bus::pri::{PageGroupResponse, ResponseCode};
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::sync::lock;

use crate::chance::Chance;
use crate::config::NicConfig;
use crate::ethernet::EthernetPort;
use crate::fabric::Fabric;
use crate::fault::{Closed, Faults, ask};
use crate::ids::slot_of_token;
use crate::memory::Memory;
use crate::memory::port::Port;
use crate::qp::answer::PageAnswer;
use crate::qp::frames::FrameMemory;
use crate::qp::requester::Requester;
use crate::qp::responder::Responder;
use crate::qp::setup::Setup;
use crate::qp::{Qp, QueuePairs};
use crate::queue::completion::CompletionQueues;
use crate::queue::event::EventQueues;
use crate::queue::layout::RingLayout;
use crate::queue::shared::SharedQueues;
use crate::schedule::Workers;
use crate::verbs::Event;

/// The data path: all queues and queue pairs, and what serves them.
pub(crate) struct Engine {
    pub(crate) config: NicConfig,
    pub(crate) memory: Memory,
    pub(crate) workers: Workers,
    pub(crate) qps: QueuePairs,
    pub(crate) cqs: CompletionQueues,
    pub(crate) srqs: SharedQueues,
    pub(crate) events: EventQueues,
    pub(crate) faults: Faults,
    /// Decides which packets are lost.
    loss: Chance,
    frames: Arc<FrameMemory>,
    /// The port, if it is an Ethernet port.
    pub(crate) ethernet: Option<EthernetPort>,
    /// Layout of the queue pairs' own rings.
    layout: &'static dyn RingLayout,
}

impl Engine {
    /// An engine without queues, for rings of one layout.
    pub(crate) fn new(config: NicConfig, fabric: Fabric, layout: &'static dyn RingLayout) -> Self {
        Self {
            memory: Memory::new(&config, fabric),
            workers: Workers::new(config.workers),
            qps: QueuePairs::new(config.max_qp),
            cqs: CompletionQueues::new(config.max_cq, layout),
            srqs: SharedQueues::new(config.max_srq, layout),
            events: EventQueues::new(layout),
            faults: Faults::new(&config),
            loss: Chance::new(config.packets.seed),
            frames: Arc::new(FrameMemory::new(config.max_context)),
            ethernet: EthernetPort::new(config.link),
            layout,
            config,
        }
    }

    /// Most bytes that were kept for pages of responders at one time.
    pub(crate) fn held_bytes_peak(&self) -> u64 {
        self.frames.held_peak() as u64
    }

    /// Starts the timer of a completion queue.
    pub(crate) fn start_moderation(&self, worker: usize, cqn: u32) {
        if let Some(deadline_ns) = self.cqs.watched(cqn) {
            self.workers.timers(worker, |timers| timers.cqs.set(cqn, deadline_ns));
        }
    }

    /// Takes a queue pair to ERR, and queues a turn in which it is flushed. If it is `fatal`, an event is sent.
    pub(crate) fn fail_qp(&self, qp: &Qp, fatal: bool) {
        if qp.fail() {
            if fatal {
                qp.mark_fatal();
            }
            self.workers.schedule(qp);
        }
    }

    /// Sends an event about a queue pair.
    fn raise_qp_event(&self, port: &mut Port<'_>, setup: &Setup, code: QpEvent) {
        self.events.raise(port, setup.eqn, Event::QueuePair { qpn: setup.qpn, code });
    }

    /// Leaves a queue pair's slot empty.
    pub(crate) fn empty_qp(&self, qp: &Qp) {
        qp.slot.requester.interrupt(|requester| {
            if let Some(ethernet) = &self.ethernet {
                ethernet.leave_role(qp.qpn());
            }
            let mut responder = lock(&qp.responder);
            self.reset_qp(qp, requester, &mut responder);
            requester.setup = Setup::default();
            responder.setup = Setup::default();
            qp.occupy(&Setup::default());
        });
    }

    /// Both halves as after creation, in RESET.
    pub(crate) fn reset_qp(&self, qp: &Qp, requester: &mut Requester, responder: &mut Responder) {
        self.end_wait(&mut requester.stall, requester.setup.qpn);
        if let Some(connection) = &mut requester.connection {
            self.end_wait(&mut connection.stall, requester.setup.qpn);
            ask::settle(&self.memory.fabric, &mut connection.stall, requester.setup.qpn, false);
        }
        ask::settle(&self.memory.fabric, &mut requester.stall, requester.setup.qpn, false);
        let setup = requester.setup;
        *requester = Requester { setup, ..Default::default() };
        *responder = Responder { setup, ..Default::default() };
        qp.occupy(&setup);
    }

    /// Serves a page group response.
    pub(crate) fn answer_request(&self, response: &PageGroupResponse) {
        let endpoint = &self.memory.fabric.endpoint;
        let Some(closed) = self.faults.answer_request(endpoint, response) else {
            endpoint.set_pri_unexpected_group();
            return;
        };
        if response.code == ResponseCode::ResponseFailure {
            endpoint.set_pri_response_failure();
        }
        self.close(closed);
    }

    /// Serves the driver's answer to a page fault; `false` if the token names none.
    pub(crate) fn answer_fault(&self, token: u32, answer: PageAnswer) -> bool {
        let Some(closed) = self.faults.answer_event(token, answer) else { return false };
        let event = ProbeEvent::new(Stage::Response, closed.miss.space, closed.miss.page);
        self.memory.fabric.record(ProbeEvent { group: Some(slot_of_token(token)), ..event });
        self.close(closed);
        true
    }

    /// Wakes the waiters of a page that was answered.
    fn close(&self, closed: Closed) {
        let Closed { group, miss, wakeups } = closed;
        let event = ProbeEvent::new(Stage::Matched, miss.space, miss.page);
        self.memory.fabric.record(ProbeEvent { group: Some(group), write: miss.write, ..event });
        self.workers.wake(&self.qps, wakeups);
    }

    /// Forgets the page faults of a region that is gone or revoked: the waiters retry, and fail.
    pub(crate) fn forget_faults(&self, key: u32, eqn: u32) {
        self.workers.wake(&self.qps, self.faults.forget_region(key));
        self.events.forget(eqn, |event| matches!(event, Event::PageFault(fault) if fault.key == key));
    }

    /// Calls off what is about to be asked for of a context's pages, and of its process'; the waiters retry.
    pub(crate) fn call_off_faults(&self, context: u32, pasid: Option<Pasid>) {
        let wakeups = self.faults.call_off(&self.memory.fabric.endpoint, context, pasid);
        self.workers.wake(&self.qps, wakeups);
    }

    /// Calls off all page requests that are about to be sent; the waiters retry.
    pub(crate) fn call_off_page_requests(&self) {
        let wakeups = self.faults.call_off_requests(&self.memory.fabric.endpoint);
        self.workers.wake(&self.qps, wakeups);
    }

    /// Forgets all page requests; their waiters retry.
    pub(crate) fn reset_page_requests(&self) {
        self.workers.wake(&self.qps, self.faults.reset_requests());
    }

    /// Serves a worker's timers that are due.
    pub(crate) fn expire(&self, worker: usize) {
        let Some(next) = self.workers.next_deadline_ns(worker) else { return };
        let now = self.memory.fabric.now_ns();
        if next > now {
            return;
        }
        let due = || self.workers.timers(worker, |timers| timers.qps.pop(now));
        while let Some(qpn) = due() {
            if let Some(qp) = self.qps.find(qpn) {
                self.workers.schedule(qp);
            }
        }
        let due = || self.workers.timers(worker, |timers| timers.cqs.pop(now));
        while let Some(cqn) = due() {
            self.cqs.expire(&mut self.memory.port(worker), &self.events, cqn);
        }
        let overdue =
            self.workers.timers(worker, |timers| timers.page_requests_ns.is_some_and(|at| at <= now));
        if overdue {
            let (closed, next) = self.faults.expire(now);
            self.workers.timers(worker, |timers| timers.page_requests_ns = next);
            for closed in closed {
                tracing::debug!(group = ?closed.group, page = ?closed.miss, "page request or fault timed out");
                self.workers.wake(&self.qps, closed.wakeups);
            }
        }
    }
}
