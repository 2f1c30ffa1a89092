//! A turn of one queue pair, as long as it holds its worker's guard.

use refault_abi::codes::{QPS_ERR, QPS_RTS, QPS_SQD, QPS_SQE, WC_SUCCESS, WcStatus};
use refault_abi::event::{QP_EVENT_FATAL, QpEvent};

use super::Engine;
use crate::cause::Cause;
use crate::fault::ask;
use crate::memory::copy::COPY_CHUNK;
use crate::memory::port::Port;
use crate::observe::RequestStamps;
use crate::qp::Qp;
use crate::qp::connection::Posted;
use crate::qp::requester::{Message, Requester};
use crate::qp::setup::Setup;
use crate::verbs::{Completion, SendRequest};

/// Requests of one turn.
pub(super) const REQUESTS_PER_TURN: u32 = 64;
/// Payload bytes of one turn: one chunk, so that other queue pairs and commands wait for no longer than an invalidation
/// does.
const BYTES_PER_TURN: u32 = 64 << 10;
const _: () = assert!(BYTES_PER_TURN as u64 == COPY_CHUNK);
/// What a step costs, in bytes, whatever it moves: a turn of empty messages ends too.
const STEP: u32 = BYTES_PER_TURN / REQUESTS_PER_TURN;

/// What one turn may still do.
pub(super) struct Budget {
    bytes: u32,
    /// The send queue's producer index was read.
    pub(super) looked: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: BYTES_PER_TURN, looked: false }
    }
}

impl Budget {
    /// Charges a step that moved `bytes`.
    pub(super) fn spend(&mut self, bytes: u32) {
        self.bytes = self.bytes.saturating_sub(bytes.saturating_add(STEP));
    }

    /// Most bytes that the next step may move.
    pub(super) fn room(&self) -> u32 {
        self.bytes
    }

    /// What is left does not pay for a step.
    pub(super) fn is_spent(&self) -> bool {
        self.bytes < STEP
    }
}

/// A turn, or the part of it between two times that it leaves the guard.
pub(super) struct Turn<'e, 't> {
    pub(super) engine: &'e Engine,
    pub(super) port: Port<'e>,
    pub(super) qp: &'e Qp,
    /// Locked by the caller.
    pub(super) requester: &'t mut Requester,
    pub(super) budget: &'t mut Budget,
}

impl<'e, 't> Turn<'e, 't> {
    /// Enters the guard of `worker`.
    pub(super) fn enter(
        engine: &'e Engine,
        worker: usize,
        qp: &'e Qp,
        requester: &'t mut Requester,
        budget: &'t mut Budget,
    ) -> Self {
        Self { engine, port: engine.memory.port(worker), qp, requester, budget }
    }

    /// Completes the active request, if its completion is wanted.
    pub(super) fn complete_request(&mut self, status: WcStatus, cause: Option<Cause>) {
        let requester = &mut *self.requester;
        ask::settle(self.port.fabric(), &mut requester.stall, requester.setup.qpn, status == WC_SUCCESS);
        let Some(Message { request, .. }) = requester.active.get() else { return };
        let report = status != WC_SUCCESS || requester.setup.signal_all || request.signaled;
        let ended = Ended::of(request, requester.consumer);
        requester.active.clear();
        requester.consumer = requester.consumer.wrapping_add(1);
        requester.known = requester.known.saturating_sub(1);
        requester.stall.trouble = Default::default();
        (requester.transport_retries, requester.rnr_retries) = (0, 0);
        let sampled = requester.sampling.take();
        if sampled.is_some() {
            self.port.stamps = Some(RequestStamps::begin(&self.port.shard().stats));
        }
        self.complete(report, ended, status, cause);
        if let Some(event) = sampled {
            self.report_sampled(*event, status);
        }
        if status != WC_SUCCESS {
            self.fail_sender();
        }
    }

    /// Completes a request that was in flight, if its completion is wanted.
    pub(super) fn complete_posted(&mut self, posted: &Posted, status: WcStatus, cause: Option<Cause>) {
        let report = status != WC_SUCCESS || self.requester.setup.signal_all || posted.request.signaled;
        self.complete(report, Ended::of(&posted.request, posted.index), status, cause);
        if status != WC_SUCCESS {
            self.fail_sender();
        }
    }

    /// Counts a request, and writes its completion if that is wanted.
    #[inline]
    fn complete(&mut self, report: bool, ended: Ended, status: WcStatus, cause: Option<Cause>) {
        self.port.shard().stats.requests += 1;
        if report {
            let Ended { id, index, opcode, length } = ended;
            let Setup { qpn, send_cq, .. } = self.requester.setup;
            let timestamp_ns = self.port.fabric().now_ns();
            let completion = Completion {
                id,
                index,
                qpn,
                length,
                status,
                cause,
                opcode,
                timestamp_ns,
                ..Completion::default()
            };
            self.engine.post(&mut self.port, self.qp, send_cq, &completion);
        }
    }

    /// A request failed: a connected queue pair goes to ERR, one for datagrams to SQE, where it still receives
    /// (InfiniBand 1.4, 10.3.1).
    fn fail_sender(&mut self) {
        let still_receives = self.qp.state() != QPS_ERR && self.requester.setup.is_datagram();
        if !still_receives {
            return self.engine.fail_qp(self.qp, false);
        }
        self.requester.draining = false;
        // In any other state it is there already, or was just taken to ERR.
        let _ = self.qp.change_state(QPS_RTS, QPS_SQE) || self.qp.change_state(QPS_SQD, QPS_SQE);
    }

    /// Sends an event about the queue pair.
    pub(super) fn raise(&mut self, code: QpEvent) {
        self.engine.raise_qp_event(&mut self.port, &self.requester.setup, code);
    }

    /// Sends the event of a fatal error that was noted, once in the queue pair's life between two resets.
    pub(super) fn raise_fatal(&mut self) {
        if self.qp.take_fatal() && !std::mem::replace(&mut self.requester.reported_fatal, true) {
            self.raise(QP_EVENT_FATAL);
        }
    }
}

/// What a completion says of its request.
struct Ended {
    id: u64,
    index: u32,
    opcode: u8,
    length: u32,
}

impl Ended {
    #[inline]
    fn of(request: &SendRequest, index: u32) -> Self {
        let length = if request.operation.fetches() { request.length } else { 0 };
        Self { id: request.id, index, opcode: request.opcode, length }
    }
}
