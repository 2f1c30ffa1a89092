//! The requester: works off a queue pair's send queue.

use refault_abi::codes::*;
use refault_abi::event::QP_EVENT_SQ_DRAINED;
use refault_abi::queue::Cqe;

use super::responder::Refusal;
use super::{Budget, Turn};
use crate::Nic;
use crate::cause::Cause;
use crate::config::RemoteFaults;
use crate::ids::slot_of;
use crate::memory::guard::lock;
use crate::memory::list::End;
use crate::memory::list::Stopped;
use crate::memory::port::{AccessError, Extent, PageMiss, Port};
use crate::observe::RequestStamps;
use crate::qp::answer::PageAnswer;
use crate::qp::attributes::rnr_delay_ns;
use crate::qp::{Qp, Requester, Wait};
use crate::queue::completion::PostError;
use crate::queue::send::{Message, Operation};

/// What a step counts for at least, however few bytes it moved.
const LEAST_STEP: u32 = 64 << 10;

/// What came of working on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is moved, and the peer knows.
    Done,
    /// Some bytes were moved, more are to come.
    Moved(u32),
    /// One end of the copy is in the way.
    Stopped(Stopped),
    /// Nobody answers.
    NoPeer,
    /// The peer has no receive request; it names the code of a delay.
    NotReady(u8),
    /// A datagram longer than a packet.
    TooLong,
    /// The peer refuses.
    Refused(Refusal),
    /// So many bytes more were found, and are to survive the machine.
    Persist(u32, Box<[Extent]>),
    /// Too many tries at an atomic: another processor is at the same word.
    Contended,
}

/// What there is to work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A request is active.
    Ready,
    /// Nothing, for now.
    Nothing,
    /// The state changed.
    Changed,
}

/// What follows from an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    /// The next step.
    GoOn,
    /// The turn is over.
    End(Turn),
    /// The operating system must be asked for a page, without the guard.
    Ask(End, PageMiss),
}

/// Whether a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Over,
    NotYet,
    /// The time that the responder asked for is over, and its page is not there.
    NotReady,
    InVain(Cause),
}

impl Nic {
    /// One turn. The caller holds the requester, and nothing else.
    pub(super) fn run(&self, worker: usize, qp: &Qp, requester: &mut Requester) -> Turn {
        let mut port = self.port(worker);
        let mut budget = Budget::default();
        loop {
            if port.is_wanted() {
                port = port.step_aside();
            }
            // Looked at under the guard: whoever changes the state and then passes the guards knows that no
            // copy for the old state is under way.
            let state = qp.state();
            match state {
                QPS_ERR => return self.flush(&mut port, qp, requester),
                QPS_SQE => return self.flush_sends(&mut port, qp, requester),
                QPS_RTS | QPS_SQD => {}
                _ => return Turn::Over,
            }
            match self.waited(qp, requester) {
                Waited::Over => {}
                Waited::NotYet => return Turn::Over,
                Waited::NotReady if self.not_ready(&mut port, qp, requester) => return Turn::Over,
                Waited::NotReady => continue,
                Waited::InVain(cause) => {
                    self.fail_access(&mut port, qp, requester, requester.trouble.end, cause);
                    continue;
                }
            }
            match self.next_request(&mut port, qp, requester, state, &mut budget) {
                Next::Ready => {}
                Next::Nothing => return Turn::Over,
                Next::Changed => continue,
            }
            if budget.is_spent() {
                return Turn::Again;
            }
            let outcome = match requester.sampling.is_sampling() {
                false => self.deliver(&mut port, requester),
                true => self.deliver_watched(&mut port, requester),
            };
            match self.react(&mut port, qp, requester, outcome, &mut budget) {
                Reaction::GoOn => {}
                Reaction::End(turn) => return turn,
                Reaction::Ask(end, miss) => {
                    let ahead = self.pages_ahead(&mut port, requester, end);
                    drop(port);
                    let asked = self.ask_for_pages(worker, requester, end, miss, ahead);
                    port = self.port(worker);
                    match asked {
                        Err(cause) => self.fail_access(&mut port, qp, requester, end, cause),
                        Ok(()) if self.answers_not_ready(requester, end) => {
                            if self.not_ready(&mut port, qp, requester) {
                                return Turn::Over;
                            }
                        }
                        Ok(()) => return Turn::Over,
                    }
                }
            }
        }
    }

    /// What an outcome means for the request and for the turn.
    fn react(
        &self,
        port: &mut Port<'_>,
        qp: &Qp,
        requester: &mut Requester,
        outcome: Outcome,
        budget: &mut Budget,
    ) -> Reaction {
        let parked = match outcome {
            Outcome::Done => {
                budget.spend(1, 0);
                self.complete_request(port, qp, requester, WC_SUCCESS, Cause::None);
                false
            }
            Outcome::Moved(bytes) => {
                requester.rnr_retries = 0;
                budget.spend(0, bytes.max(LEAST_STEP));
                self.note_progress(requester);
                false
            }
            Outcome::Persist(bytes, extents) => {
                self.note_progress(requester);
                self.wait_for_durable(requester, bytes, &extents);
                true
            }
            Outcome::Contended => return Reaction::End(Turn::Again),
            Outcome::Stopped(Stopped { end, error: AccessError::Miss(miss) }) => {
                return Reaction::Ask(end, miss);
            }
            Outcome::Stopped(Stopped { end, error: AccessError::Denied(cause) }) => {
                self.fail_access(port, qp, requester, end, cause);
                false
            }
            Outcome::Refused(refusal) => {
                self.refused(port, qp, requester, refusal);
                false
            }
            Outcome::TooLong => {
                self.complete_request(port, qp, requester, WC_LOC_LEN_ERR, Cause::None);
                false
            }
            Outcome::NoPeer => self.wait_for_peer(port, qp, requester),
            Outcome::NotReady(code) => {
                self.note_progress(requester);
                self.wait_for_receive(port, qp, requester, code)
            }
        };
        if parked { Reaction::End(Turn::Over) } else { Reaction::GoOn }
    }

    /// Whether what the requester waited for has come.
    fn waited(&self, qp: &Qp, requester: &mut Requester) -> Waited {
        let answered = |ticket| match qp.answer(ticket) {
            None => Waited::NotYet,
            Some(PageAnswer::LookAgain) => Waited::Over,
            Some(PageAnswer::Failed(cause)) => Waited::InVain(cause),
        };
        let waited = match requester.wait {
            Wait::None => return Waited::Over,
            Wait::Page { ticket } => answered(ticket),
            Wait::NotReady { deadline_ns, .. } if self.fabric.now_ns() < deadline_ns => Waited::NotYet,
            Wait::NotReady { ticket, .. } => match answered(ticket) {
                Waited::NotYet => Waited::NotReady,
                waited => waited,
            },
            Wait::Credit { ticket, deadline_ns } => match answered(ticket) {
                Waited::NotYet
                    if deadline_ns.is_some_and(|at| self.fabric.now_ns() >= at)
                        && self.leave_queue(ticket) =>
                {
                    Waited::InVain(Cause::PageTimeout)
                }
                waited => waited,
            },
            Wait::Until { deadline_ns } if qp.take_nudge() || self.fabric.now_ns() >= deadline_ns => {
                Waited::Over
            }
            Wait::Durable { ticket, bytes } => self.durable(requester, answered(ticket), bytes),
            Wait::Peer if qp.take_nudge() => Waited::Over,
            Wait::Until { .. } | Wait::Peer => Waited::NotYet,
        };
        if !matches!(waited, Waited::NotYet | Waited::NotReady) {
            self.end_wait(requester);
        }
        waited
    }

    /// The requester waits no longer, whatever for. A credit it was given, or did not wait for to the end, may
    /// be of use to the next in the queue.
    pub(crate) fn end_wait(&self, requester: &mut Requester) {
        if let Wait::Credit { ticket, .. } = std::mem::take(&mut requester.wait) {
            self.leave_queue(ticket);
            self.tell_waiters(self.pages.pass_on().into_iter().chain(self.faults.pass_on()).collect());
        }
    }

    /// Whether the ticket waited for a credit of either kind, and does no longer.
    fn leave_queue(&self, ticket: u64) -> bool {
        self.pages.leave_queue(ticket) || self.faults.leave_queue(ticket)
    }

    /// Makes the next request the active one.
    fn next_request(
        &self,
        port: &mut Port<'_>,
        qp: &Qp,
        requester: &mut Requester,
        state: u8,
        budget: &mut Budget,
    ) -> Next {
        if requester.active.is_some() {
            return Next::Ready;
        }
        if state == QPS_SQD {
            if std::mem::take(&mut requester.draining) {
                self.tell_qp_event(port, &requester.setup, QP_EVENT_SQ_DRAINED);
            }
            return Next::Nothing;
        }
        let Requester { setup, consumer, known, sampling, .. } = requester;
        if *known == 0 {
            // What was posted since the turn began is announced by a doorbell that begins another.
            if std::mem::replace(&mut budget.looked, true) {
                return Next::Nothing;
            }
            sampling.rung_ns = qp.take_rung();
            match port.send_requests(setup, *consumer) {
                Ok(0) => return Next::Nothing,
                Ok(count) => *known = count,
                Err(_) => {
                    self.fail_qp(qp, true);
                    return Next::Changed;
                }
            }
        }
        let Ok(wqe) = port.send_request(setup, *consumer) else {
            self.fail_qp(qp, true);
            return Next::Changed;
        };
        match Message::decode(wqe, setup.kind) {
            Some(message) => {
                requester.active = Some(message);
                if requester.sampling.is_near() {
                    self.sample(qp, requester);
                }
                Next::Ready
            }
            None => {
                requester.active = Some(Message::malformed(wqe));
                self.complete_request(port, qp, requester, WC_LOC_QP_OP_ERR, Cause::None);
                Next::Changed
            }
        }
    }

    /// The active request is done with: reports it, if it is to be reported.
    pub(super) fn complete_request(
        &self,
        port: &mut Port<'_>,
        qp: &Qp,
        requester: &mut Requester,
        status: u8,
        cause: Cause,
    ) {
        let report = status != WC_SUCCESS || requester.signaled();
        self.settle_faults(requester, status == WC_SUCCESS);
        let Some(message) = requester.active.take() else { return };
        let wqe_index = requester.consumer;
        requester.consumer = requester.consumer.wrapping_add(1);
        requester.known = requester.known.saturating_sub(1);
        requester.trouble = Default::default();
        (requester.transport_retries, requester.rnr_retries) = (0, 0);
        port.shard().stats.requests += 1;
        let watched = requester.sampling.take();
        if watched.is_some() {
            port.stamps = Some(RequestStamps::begin(&port.shard().stats));
        }
        if report {
            let entry = Cqe {
                wr_id: message.wqe.wr_id,
                timestamp_ns: self.fabric.now_ns(),
                qpn: requester.setup.qpn,
                byte_len: if message.operation.fetches() { message.length } else { 0 },
                wqe_index,
                vendor_error: cause.code(),
                status,
                opcode: message.wqe.opcode,
                ..Cqe::default()
            };
            self.post(port, qp, requester.setup.send_cq, entry);
        }
        if let Some(event) = watched {
            self.tell_of_request(port, *event, status);
        }
        if status != WC_SUCCESS {
            self.fail_sender(qp, requester);
        }
    }

    /// A request failed: a connected queue pair goes to ERR, one of datagrams to SQE, where it still receives.
    fn fail_sender(&self, qp: &Qp, requester: &mut Requester) {
        let sending = qp.state() != QPS_ERR && requester.setup.is_datagram();
        if !sending {
            return self.fail_qp(qp, false);
        }
        requester.draining = false;
        // If it is neither, it is there already, or somebody took it to ERR just now.
        let _ = qp.change_state(QPS_RTS, QPS_SQE) || qp.change_state(QPS_SQD, QPS_SQE);
    }

    /// Writes a completion. If it cannot be written, the queue pair is lost, and all others of that queue.
    pub(super) fn post(&self, port: &mut Port<'_>, qp: &Qp, cqn: u32, entry: Cqe) {
        match self.cqs.post(port, &self.events, cqn, entry) {
            Ok(needed) => self.moderate(cqn, needed),
            Err(PostError::JustFailed) => self.fail_users_of_cq(cqn),
            Err(PostError::Dead) => self.fail_qp(qp, true),
        }
    }

    /// The active request fails because memory at one end cannot be reached.
    fn fail_access(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester, end: End, cause: Cause) {
        let operation = requester.active.as_ref().map(|message| message.operation);
        match (end, operation) {
            (End::Local, _) => self.complete_request(port, qp, requester, WC_LOC_PROT_ERR, cause),
            (End::Remote, _) if requester.setup.is_datagram() => {
                self.drop_datagram(port, requester, cause);
                self.settle_faults(requester, false);
                self.complete_request(port, qp, requester, WC_SUCCESS, Cause::None);
            }
            (End::Remote, Some(Operation::Send)) => {
                self.refused(port, qp, requester, Refusal::Receive(WC_LOC_PROT_ERR, cause));
            }
            (End::Remote, _) => self.refused(port, qp, requester, Refusal::Access(cause)),
        }
    }

    /// The active request fails because the peer refuses it; the peer suffers what the refusal says.
    fn refused(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester, refusal: Refusal) {
        let peer = self.qps.find(requester.attributes.dest_qpn());
        if let Some(peer) = peer {
            let mut responder = lock(&peer.responder);
            if responder.peer_qpn == requester.setup.qpn {
                self.suffer(port, peer, &mut responder, refusal);
            }
        }
        let (status, cause) = refusal.seen_by_requester();
        self.complete_request(port, qp, requester, status, cause);
    }

    /// Nobody answers: waits, or gives up and says `false`.
    fn wait_for_peer(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester) -> bool {
        let Some(timeout) = requester.attributes.timeout_ns() else {
            requester.wait = Wait::Peer;
            return true;
        };
        if requester.transport_retries > requester.attributes.retry_count() {
            self.complete_request(port, qp, requester, WC_RETRY_EXC_ERR, Cause::None);
            return false;
        }
        requester.transport_retries += 1;
        port.shard().stats.transport_retries += 1;
        self.wait_until(requester, self.fabric.now_ns().saturating_add(timeout));
        true
    }

    /// The peer has no receive request, or not the page: waits, or gives up and says `false`.
    fn wait_for_receive(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester, code: u8) -> bool {
        if let Some(limit) = requester.attributes.rnr_retry() {
            if requester.rnr_retries >= limit {
                self.complete_request(port, qp, requester, WC_RNR_RETRY_EXC_ERR, Cause::None);
                return false;
            }
            requester.rnr_retries += 1;
        }
        port.shard().stats.rnr_waits += 1;
        self.wait_until(requester, self.fabric.now_ns().saturating_add(rnr_delay_ns(code)));
        true
    }

    /// Whether the responder, whose page was asked for, says so instead of keeping the request at hand.
    fn answers_not_ready(&self, requester: &Requester, end: End) -> bool {
        let asked = matches!(requester.wait, Wait::Page { .. }) && !requester.setup.is_datagram();
        asked && end == End::Remote && self.config.remote_faults == RemoteFaults::Rnr
    }

    /// The responder's page is not there: comes again after the time it asks for, or gives up and says `false`.
    fn not_ready(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester) -> bool {
        let (Wait::Page { ticket } | Wait::NotReady { ticket, .. }) = requester.wait else { return true };
        let peer = self.qps.find(requester.attributes.dest_qpn());
        let code = peer.map_or(0, |peer| lock(&peer.responder).min_rnr_timer);
        if !self.wait_for_receive(port, qp, requester, code) {
            return false;
        }
        if let Wait::Until { deadline_ns } = requester.wait {
            requester.wait = Wait::NotReady { ticket, deadline_ns };
        }
        true
    }

    /// Parks the requester until a moment in time.
    pub(super) fn wait_until(&self, requester: &mut Requester, deadline_ns: u64) {
        requester.wait = Wait::Until { deadline_ns };
        let qpn = requester.setup.qpn;
        lock(&self.workers[self.worker_of(slot_of(qpn))].timers).qps.set(qpn, deadline_ns);
    }
}
