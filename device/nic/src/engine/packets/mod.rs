//! Reliable connections in packets: [`refault_transport`] says what is sent and executed, and here it is.
//!
//! A turn takes what has arrived, replies, and sends, one packet in each step. Both ends may be stalled by a missing page, each
//! by its own; the other one goes on. A requester that is stalled sends nothing; a responder keeps the requests that arrive.

mod arrive;
mod execute;
mod frames;
mod perform;
mod policy;
mod reply;
mod send;

use std::ops::ControlFlow;

use refault_abi::codes::{QPS_RTR, QPS_RTS, QPS_SQD, QpState, WC_LOC_PROT_ERR};
use refault_bus::sync::lock;

use super::outcome::{Leave, TurnEnd, UNSUPPORTED};
use super::turn::Turn;
use super::waiting::Waited;
use crate::cause::Cause;
use crate::config::Loopback;
use crate::fault::ahead::asked;
use crate::fault::ask::{Ask, Asker, note_progress, settle};
use crate::memory::access::{AccessError, PageMiss, Stopped};
use crate::memory::list::List;
use crate::memory::resolve::{Ahead, Window};
use crate::observe::Sampling;
use crate::qp::answer::Half;
use crate::qp::connection::Connection;
use crate::qp::requester::Requester;
use crate::qp::stall::{Stall, Wait};
use crate::verbs::End;

/// Did something, so that the turn may go on with another step; or there was nothing to do.
type Did = ControlFlow<Leave, bool>;

const DONE: Did = ControlFlow::Continue(true);
const NOTHING: Did = ControlFlow::Continue(false);
const AGAIN: ControlFlow<Leave> = ControlFlow::Break(Leave::End(TurnEnd::Again));

impl Turn<'_, '_> {
    /// Whether the queue pair's packets are to be served in this state.
    pub(super) fn is_in_packets(&self, state: QpState) -> bool {
        let Requester { setup, attributes, .. } = &*self.requester;
        let leaves = self.engine.ethernet.is_some() && !attributes.is_here;
        let in_packets = leaves || matches!(self.engine.config.loopback, Loopback::Packets { .. });
        in_packets && setup.is_connected() && matches!(state, QPS_RTR | QPS_RTS | QPS_SQD)
    }

    /// One step.
    pub(super) fn step_packets(&mut self, state: QpState) -> ControlFlow<Leave> {
        if self.budget.is_spent() {
            return AGAIN;
        }
        let Requester { attributes, connection, .. } = &mut *self.requester;
        let connection = connection.get_or_insert_with(|| Box::new(Connection::new(attributes)));
        if state != QPS_RTR {
            connection.start_requester(attributes, &self.engine.config);
        }
        self.announce_page();
        let may_respond = self.responder_may_go_on();
        let is_reading = self.connection().is_some_and(|connection| connection.responder.is_reading());
        if self.take_arrival(may_respond && !is_reading)? || may_respond && self.reply()? {
            return ControlFlow::Continue(());
        }
        let may_send = state != QPS_RTR && self.requester_may_go_on();
        if may_send && self.send_request(state)? {
            return ControlFlow::Continue(());
        }
        self.set_timer(may_send);
        ControlFlow::Break(Leave::End(TurnEnd::Idle))
    }

    /// The connection, which is there in all states that packets are served in.
    fn connection(&mut self) -> Option<&mut Connection> {
        self.requester.connection.as_deref_mut()
    }

    /// Whether the responder is not stalled, or not any more.
    fn responder_may_go_on(&mut self) -> bool {
        let (engine, qp) = (self.engine, self.qp);
        let Some(connection) = self.connection() else { return false };
        let before = connection.stall.wait;
        match engine.waited(qp, Half::Responder, &mut connection.stall) {
            Waited::Over => {
                if let (Wait::Persistence { .. }, Some(flush)) = (before, &mut connection.flush) {
                    flush.unwritten = None;
                }
                true
            }
            Waited::NotYet | Waited::NotReady => false,
            Waited::Failed(cause) => {
                self.fail_half(Half::Responder, cause);
                true
            }
        }
    }

    /// Whether the requester is not stalled, or not any more; also serves its timers.
    pub(super) fn requester_may_go_on(&mut self) -> bool {
        match self.engine.waited(self.qp, Half::Requester, &mut self.requester.stall) {
            Waited::Over => {}
            Waited::NotYet | Waited::NotReady => return false,
            Waited::Failed(cause) => self.fail_half(Half::Requester, cause),
        }
        let fabric = self.port.fabric();
        if let Some(requester) = self.connection().and_then(|connection| connection.requester.as_mut())
            && let Some(deadline_ns) = requester.deadline_ns()
        {
            let now_ns = fabric.now_ns();
            if deadline_ns <= now_ns {
                let before = requester.counters().timeouts;
                requester.expire(now_ns);
                let retries = requester.counters().timeouts - before;
                if !requester.has_failed() {
                    self.port.shard().stats.transport_retries += retries;
                }
                self.complete_finished();
            }
        }
        true
    }

    /// A page that a half needs will not come.
    pub(super) fn fail_half(&mut self, half: Half, cause: Cause) {
        let Some(connection) = self.connection() else { return };
        match half {
            Half::Requester => {
                let id = connection.waiting_for;
                self.mark_unreachable(id, cause);
            }
            Half::Responder if connection.replying => self.refuse_reply(cause),
            Half::Responder => self.refuse_held(cause),
        }
    }

    /// The memory of a request cannot be reached: it fails, unless it has completed. That may be, if it was sent before.
    fn mark_unreachable(&mut self, id: u64, cause: Cause) {
        let Some(connection) = self.connection() else { return };
        if connection.posted(id).is_some() {
            connection.unreachable = Some((id, cause));
        }
        self.fail_unreachable();
    }

    /// What comes of memory of request `id`, of which byte `at` of `list` cannot be reached.
    fn ask_for_own(&mut self, id: u64, list: &List<'_>, stopped: (Stopped, u32)) -> ControlFlow<Leave> {
        if let Some(connection) = self.connection() {
            connection.waiting_for = id;
        }
        let cause = self.ask_or_refuse(Half::Requester, list, stopped)?;
        self.mark_unreachable(id, cause);
        ControlFlow::Continue(())
    }

    /// Fails the request whose memory cannot be reached, if it is the oldest: those before it may succeed.
    fn fail_unreachable(&mut self) {
        let Some(connection) = self.connection() else { return };
        let (Some((id, cause)), Some(requester)) = (connection.unreachable, &connection.requester) else {
            return;
        };
        if requester.oldest() == id
            && let Some(posted) = connection.posted.pop_front()
        {
            self.settle_half(Half::Requester);
            self.complete_posted(&posted, WC_LOC_PROT_ERR, Some(cause));
        }
    }

    /// What a page that is missing at byte `at` of a list leads to; an access that is refused returns its cause.
    fn ask_or_refuse(
        &mut self,
        half: Half,
        list: &List<'_>,
        (Stopped { error, .. }, at): (Stopped, u32),
    ) -> ControlFlow<Leave, Cause> {
        let miss = match error {
            AccessError::Denied(cause) => return ControlFlow::Continue(cause),
            AccessError::Miss(miss) => miss,
        };
        let pages = self.pages_ahead_in_packets(half);
        let stall = self.stall(half);
        let window = Window { at, pages, asked: stall.and_then(|stall| asked(stall, list.write)) };
        ControlFlow::Break(Leave::AskFor(half, miss, list.missing_behind(&mut self.port, window)))
    }

    fn stall(&mut self, half: Half) -> Option<&mut Stall> {
        match half {
            Half::Requester => Some(&mut self.requester.stall),
            Half::Responder => self.connection().map(|connection| &mut connection.stall),
        }
    }

    /// Claims a page for a half, and parks it. Returns what must be asked for when the guard is left.
    pub(super) fn claim_for(
        &mut self,
        worker: usize,
        half: Half,
        miss: PageMiss,
        ahead: Ahead,
    ) -> Result<Vec<Ask>, Cause> {
        let super::Engine { faults, config, workers, .. } = self.engine;
        let fabric = self.port.fabric();
        let Requester { setup, connection, stall, .. } = &mut *self.requester;
        let Some(connection) = connection.as_deref_mut() else { return Ok(Vec::new()) };
        let stall = if half == Half::Requester { stall } else { &mut connection.stall };
        let end = if half == Half::Requester { End::Local } else { End::Remote };
        let (qpn, sampling) = (setup.qpn, &mut Sampling::default());
        Asker { faults, config, fabric, workers, worker, qpn, half, done: 0, stall, sampling }
            .claim(end, miss, ahead)
    }

    /// A half has moved `done` bytes of the message that needed pages. A requester that is stalled may hear responses meanwhile;
    /// what it waits for is not theirs.
    fn note_half_progress(&mut self, half: Half, done: u32) {
        let (fabric, qpn) = (self.port.fabric(), self.qp.qpn());
        if let Some(stall) = self.stall(half).filter(|stall| stall.wait == Wait::None) {
            note_progress(fabric, stall, qpn, done);
        }
    }

    /// A half's message has failed, and the pages that it asked for are not used.
    fn settle_half(&mut self, half: Half) {
        let (fabric, qpn) = (self.port.fabric(), self.qp.qpn());
        if let Some(stall) = self.stall(half) {
            settle(fabric, stall, qpn, false);
        }
    }

    /// Queues a turn for when the requester's timers are due.
    fn set_timer(&mut self, may_send: bool) {
        let fabric = self.port.fabric();
        let transport = self
            .connection()
            .filter(|_| may_send)
            .and_then(|connection| connection.requester.as_ref())
            .and_then(refault_transport::Requester::deadline_ns);
        let stalls = [Half::Requester, Half::Responder]
            .map(|half| self.stall(half).and_then(|stall| stall.wait.deadline_ns()));
        if let Some(deadline_ns) = stalls.into_iter().chain([transport]).flatten().min() {
            let deadline_ns = deadline_ns.max(fabric.now_ns());
            self.engine.workers.wake_at(self.qp.qpn(), deadline_ns);
        }
    }

    /// The responder fails, once its replies are sent.
    fn finish_refusal(&mut self) -> bool {
        let Some(refusal) = self.connection().and_then(|connection| connection.refusal.take()) else {
            return false;
        };
        let (engine, qp) = (self.engine, self.qp);
        let mut responder = lock(&qp.responder);
        engine.fail_responder(&mut self.port, qp, &mut responder, refusal);
        true
    }

    /// Whether requests are in flight, so that the next one of the send queue must not complete yet.
    pub(super) fn is_behind_posted(&self) -> bool {
        self.requester.connection.as_ref().is_some_and(|connection| !connection.posted.is_empty())
    }
}
