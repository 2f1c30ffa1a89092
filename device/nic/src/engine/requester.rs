//! The requester: drains a queue pair's send queue.

use std::ops::ControlFlow;

use refault_abi::codes::{
    QPS_ERR, QPS_RTS, QPS_SQD, QPS_SQE, QpState, WC_LOC_LEN_ERR, WC_LOC_PROT_ERR, WC_LOC_QP_OP_ERR,
    WC_SUCCESS,
};
use refault_abi::event::QP_EVENT_SQ_DRAINED;

use super::Engine;
use super::outcome::{Leave, Outcome, Refusal, TurnEnd};
use super::turn::{Budget, Turn};
use super::waiting::Waited;
use crate::cause::Cause;
use crate::config::{DatagramFaults, RemoteFaults};
use crate::fault::ahead;
use crate::fault::ask::{Ask, Asker, note_progress};
use crate::fault::send::Sender;
use crate::memory::access::{AccessError, PageMiss, Stopped};
use crate::memory::resolve::Ahead;
use crate::qp::Qp;
use crate::qp::answer::{Half, Waiter};
use crate::qp::attributes::Attributes;
use crate::qp::requester::{Message, Requester};
use crate::qp::setup::Setup;
use crate::qp::stall::Wait;
use crate::verbs::{End, Operation, SendRequest};

/// Turns that a queue pair gets at once if its worker has nothing else to do: queueing each of them costs a stream some
/// 5 % of its speed.
const TURNS_IN_A_ROW: u32 = 16;

/// What [`Turn::next_request`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A request is active.
    Ready,
    /// Nothing, for now.
    Nothing,
    /// A request that concerns the requester alone is active, and all before it have completed.
    Local,
    /// The state changed.
    Changed,
}

impl Engine {
    /// One turn of the queue pair in `slot`, whichever it is.
    pub(crate) fn turn(&self, worker: usize, slot: u32) {
        let Some(qp) = self.qps.occupant(slot) else { return };
        qp.slot.turn(|requester| {
            for _ in 0..TURNS_IN_A_ROW {
                if self.run_turn(worker, qp, requester) == TurnEnd::Idle {
                    return;
                }
                if qp.slot.requester.is_wanted() || !self.is_at_leisure(worker) {
                    break;
                }
            }
            self.workers.schedule(qp);
        });
    }

    /// Whether a worker has nothing else to do: then the next turn need not be queued first.
    fn is_at_leisure(&self, worker: usize) -> bool {
        let is_later = |deadline_ns| deadline_ns > self.memory.fabric.now_ns();
        self.workers.is_empty(worker) && self.workers.next_deadline_ns(worker).is_none_or(is_later)
    }

    /// One turn. The caller holds the requester, and nothing else.
    fn run_turn(&self, worker: usize, qp: &Qp, requester: &mut Requester) -> TurnEnd {
        let mut budget = Budget::default();
        loop {
            let mut turn = Turn::enter(self, worker, qp, requester, &mut budget);
            let (end, asks) = match turn.run() {
                Leave::End(end) => return end,
                Leave::StepAside => continue,
                Leave::Ask(end, miss) => match turn.claim(worker, end, miss) {
                    Ok(asks) => (end, asks),
                    Err(cause) => {
                        turn.fail_access(end, cause);
                        continue;
                    }
                },
                Leave::AskFor(half, miss, ahead) => {
                    match turn.claim_for(worker, half, miss, ahead) {
                        Ok(asks) => {
                            drop(turn);
                            self.send(worker, &asks);
                            if half == Half::Responder {
                                Turn::enter(self, worker, qp, requester, &mut budget)
                                    .treat_request_without_page();
                            }
                        }
                        Err(cause) => turn.fail_half(half, cause),
                    }
                    // The other half may have something to do.
                    continue;
                }
                Leave::ChangeRegion(change) => {
                    drop(turn);
                    let done = self.change_region(change, requester.setup.pd);
                    Turn::enter(self, worker, qp, requester, &mut budget).note_region_change(change, done);
                    continue;
                }
                Leave::AskForReceiver(miss, waiter) => {
                    match turn.claim_for_receiver(worker, miss, waiter) {
                        Ok(asks) => {
                            drop(turn);
                            self.send(worker, &asks);
                        }
                        Err(cause) => turn.lose_own_receive(waiter.ticket, cause),
                    }
                    continue;
                }
                Leave::Prefault { miss, at, ahead } => {
                    let asks = turn.claim_in_advance(worker, (miss, at), ahead);
                    drop(turn);
                    self.send(worker, &asks);
                    continue;
                }
            };
            // No guard is held while a page is asked for: the answer may come from inside.
            drop(turn);
            self.send(worker, &asks);
            if end == End::Remote && self.drops_datagrams(requester) {
                Turn::enter(self, worker, qp, requester, &mut budget).drop_datagram();
                continue;
            }
            if !self.answers_not_ready(requester, end) {
                return TurnEnd::Idle;
            }
            if Turn::enter(self, worker, qp, requester, &mut budget).wait_until_ready().is_break() {
                return TurnEnd::Idle;
            }
        }
    }

    /// Asks for pages that were claimed.
    fn send(&self, worker: usize, asks: &[Ask]) {
        let Self { faults, memory, events, .. } = self;
        let sender = Sender { faults, memory, events, worker };
        asks.iter().for_each(|ask| self.workers.wake(&self.qps, sender.send(ask)));
    }

    /// Whether the sender goes on when a page of its receiver is missing.
    fn drops_datagrams(&self, requester: &Requester) -> bool {
        requester.setup.is_datagram() && self.config.datagram_faults == DatagramFaults::Drop
    }

    /// Whether the responder, whose page was asked for, sends an RNR NAK instead of holding the request.
    fn answers_not_ready(&self, requester: &Requester, end: End) -> bool {
        let asked = matches!(requester.stall.wait, Wait::Page { .. }) && !requester.setup.is_datagram();
        asked && end == End::Remote && self.config.remote_faults == RemoteFaults::Rnr
    }
}

impl Turn<'_, '_> {
    /// Works until the guard must be left.
    fn run(&mut self) -> Leave {
        if self.requester.setup.is_datagram() {
            self.heed_lost_receive();
        }
        loop {
            if let ControlFlow::Break(leave) = self.step() {
                return leave;
            }
            if self.port.is_wanted() {
                return Leave::StepAside;
            }
        }
    }

    /// One step of the active request, or of what comes before it.
    fn step(&mut self) -> ControlFlow<Leave> {
        const IDLE: ControlFlow<Leave> = ControlFlow::Break(Leave::End(TurnEnd::Idle));
        // Read under the guard: a state that is changed before the guards are passed is seen by every later copy.
        let state = self.qp.state();
        if self.is_in_packets(state) {
            return self.step_packets(state);
        }
        if self.take_frame(state)? {
            return ControlFlow::Continue(());
        }
        match state {
            QPS_ERR => return ControlFlow::Break(Leave::End(self.flush())),
            QPS_SQE => return ControlFlow::Break(Leave::End(self.flush_sends())),
            QPS_RTS | QPS_SQD => {}
            _ => {
                // Packets that come too early are lost.
                self.qp.inbox.clear();
                return IDLE;
            }
        }
        match self.waited() {
            Waited::Over => {}
            Waited::NotYet => return IDLE,
            Waited::NotReady => return self.wait_until_ready(),
            Waited::Failed(cause) => {
                self.fail_access(self.requester.stall.trouble.end, cause);
                return ControlFlow::Continue(());
            }
        }
        match self.next_request(state) {
            Next::Ready => {}
            Next::Nothing | Next::Local => return IDLE,
            Next::Changed => return ControlFlow::Continue(()),
        }
        if self.budget.is_spent() {
            return ControlFlow::Break(Leave::End(TurnEnd::Again));
        }
        self.change_own_region()?;
        let left = self.requester.active.get().map_or(0, Message::left);
        let outcome = if self.requester.sampling.is_sampling() {
            self.deliver_sampled()
        } else {
            self.handover().deliver()
        };
        self.react(outcome, left)
    }

    /// What the outcome of a step means for the request, of which `left` bytes were to be moved, and for the turn.
    fn react(&mut self, outcome: Outcome, left: u32) -> ControlFlow<Leave> {
        match outcome {
            Outcome::Done => {
                self.budget.spend(left);
                self.complete_request(WC_SUCCESS, None);
            }
            Outcome::Moved(bytes) => {
                self.requester.rnr_retries = 0;
                self.budget.spend(bytes);
                self.note_progress();
            }
            Outcome::Persist(region) => {
                self.note_progress();
                self.wait_for_persistence(region);
                return ControlFlow::Break(Leave::End(TurnEnd::Idle));
            }
            Outcome::Invalidate(change) => return ControlFlow::Break(Leave::ChangeRegion(change)),
            Outcome::Contended => return ControlFlow::Break(Leave::End(TurnEnd::Again)),
            Outcome::WireBusy => return self.wait_for_wire(),
            Outcome::Stopped(Stopped { end, error: AccessError::Miss(miss) }) => {
                return ControlFlow::Break(Leave::Ask(end, miss));
            }
            Outcome::Stopped(Stopped { end, error: AccessError::Denied(cause) }) => {
                self.fail_access(end, cause);
            }
            Outcome::Refused(refusal) => self.fail_refused(refusal),
            Outcome::TooLong => self.complete_request(WC_LOC_LEN_ERR, None),
            Outcome::NoPeer => return self.wait_for_peer(),
            Outcome::NotReady(code) => {
                self.note_progress();
                return self.wait_for_receive(code);
            }
        }
        ControlFlow::Continue(())
    }

    /// Makes the next request the active one.
    pub(super) fn next_request(&mut self, state: QpState) -> Next {
        if self.requester.active.is_some() {
            return Next::Ready;
        }
        if state == QPS_SQD {
            if !self.is_behind_posted() && std::mem::take(&mut self.requester.draining) {
                self.raise(QP_EVENT_SQ_DRAINED);
            }
            return Next::Nothing;
        }
        if self.requester.known == 0 {
            match self.look_for_requests() {
                Ok(0) => return Next::Nothing,
                Ok(count) => self.requester.known = count,
                Err(_) => {
                    self.engine.fail_qp(self.qp, true);
                    return Next::Changed;
                }
            }
        }
        self.fetch()
    }

    /// How many send requests wait.
    fn look_for_requests(&mut self) -> Result<u32, AccessError> {
        // A request that was posted since the turn began has its own doorbell, which begins another turn.
        if std::mem::replace(&mut self.budget.looked, true) {
            return Ok(0);
        }
        let Requester { setup, consumer, sampling, .. } = &mut *self.requester;
        // Taken before the index is read: a later doorbell is for later requests.
        sampling.rung_ns = self.qp.take_rung();
        self.engine.layout.sends_waiting(&mut self.port, &setup.rings, *consumer)
    }

    /// Fetches the next request.
    fn fetch(&mut self) -> Next {
        let Requester { setup, attributes, consumer, active, sampling, .. } = &mut *self.requester;
        let request = active.begin();
        let (layout, is_datagram) = (self.engine.layout, setup.is_datagram());
        match layout.send_request(&mut self.port, &setup.rings, *consumer, is_datagram, request) {
            Ok(true) if may_send(setup, attributes, request) => {
                if sampling.is_near() {
                    self.sample();
                }
                Next::Ready
            }
            Ok(_) => self.refuse_fetched(),
            Err(_) => {
                active.clear();
                self.engine.fail_qp(self.qp, true);
                Next::Changed
            }
        }
    }

    /// The request that was fetched cannot be executed. It fails when those before it have completed.
    #[cold]
    fn refuse_fetched(&mut self) -> Next {
        if self.is_behind_posted() {
            self.requester.active.clear();
            return Next::Nothing;
        }
        self.complete_request(WC_LOC_QP_OP_ERR, None);
        Next::Changed
    }

    /// The active request fails because memory at one end cannot be reached.
    fn fail_access(&mut self, end: End, cause: Cause) {
        let operation = self.requester.active.get().map(|message| message.request.operation);
        match (end, operation) {
            (End::Local, _) => self.complete_request(WC_LOC_PROT_ERR, Some(cause)),
            (End::Remote, _) if self.requester.setup.is_datagram() => {
                self.handover().lose_receive(cause);
                self.drop_datagram();
            }
            (End::Remote, Some(Operation::Send)) => {
                self.fail_refused(Refusal::Receive(WC_LOC_PROT_ERR, Some(cause)));
            }
            (End::Remote, _) => self.fail_refused(Refusal::Access(cause)),
        }
    }

    /// The active request fails because the responder refuses it.
    fn fail_refused(&mut self, refusal: Refusal) {
        self.handover().refuse(refusal);
        let (status, cause) = refusal.seen_by_requester();
        self.complete_request(status, cause);
    }

    /// Claims a page that is missing, on behalf of the requester or of a datagram's receiver. Returns what must be asked
    /// for when the guard is left.
    fn claim(&mut self, worker: usize, end: End, miss: PageMiss) -> Result<Vec<Ask>, Cause> {
        if end == End::Remote && self.engine.drops_datagrams(self.requester) {
            let Some(message) = self.requester.active.get() else { return Ok(Vec::new()) };
            let (qpn, ticket) = (message.request.destination.qpn, message.receive_ticket);
            return self.claim_for_receiver(worker, miss, Waiter { qpn, half: Half::Responder, ticket });
        }
        let ahead = self.pages_ahead(end);
        let Engine { faults, config, workers, .. } = self.engine;
        let fabric = self.port.fabric();
        let Requester { setup, active, stall, sampling, .. } = &mut *self.requester;
        let (qpn, half) = (setup.qpn, Half::Requester);
        let done = active.get().map_or(0, |message| message.done);
        Asker { faults, config, fabric, workers, worker, qpn, half, done, stall, sampling }
            .claim(end, miss, ahead)
    }

    /// Claims a page for the receiver of a datagram. It waits for none: the datagram is dropped.
    fn claim_for_receiver(
        &mut self,
        worker: usize,
        miss: PageMiss,
        receiver: Waiter,
    ) -> Result<Vec<Ask>, Cause> {
        let Engine { faults, config, workers, .. } = self.engine;
        let fabric = self.port.fabric();
        let Requester { setup, stall, sampling, .. } = &mut *self.requester;
        let (qpn, half, done) = (setup.qpn, Half::Requester, 0);
        Asker { faults, config, fabric, workers, worker, qpn, half, done, stall, sampling }
            .claim_for_receiver(miss, receiver)
            .map(Vec::from_iter)
    }

    /// The active request gets on.
    fn note_progress(&mut self) {
        let Requester { setup, active, stall, .. } = &mut *self.requester;
        let done = active.get().map_or(0, |message| message.done);
        note_progress(self.port.fabric(), stall, setup.qpn, done);
    }

    /// What the active request needs beyond the missing page.
    fn pages_ahead(&mut self, end: End) -> Ahead {
        let pages = self.engine.config.fault_window - 1;
        match end {
            End::Local => ahead::local(&mut self.port, self.requester, pages),
            End::Remote => self.handover().pages_ahead(pages),
        }
    }
}

/// Whether a queue pair may send a request that is well formed.
fn may_send(setup: &Setup, attributes: &Attributes, request: &SendRequest) -> bool {
    let fetches = request.operation.fetches();
    (!fetches || attributes.max_rd_atomic != 0) && (!setup.is_raw() || request.operation == Operation::Send)
}
