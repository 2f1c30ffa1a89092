//! Requests that have arrived, executed.

use std::ops::ControlFlow;

use refault_abi::codes::{QPS_RTR, WC_LOC_PROT_ERR};
use refault_abi::event::QP_EVENT_COMMUNICATION_ESTABLISHED;
use refault_bus::sync::lock;
use refault_roce::{Operation, frame};
use refault_transport::Arrival;

use super::super::outcome::{Outcome, Refusal};
use super::super::turn::Turn;
use super::perform::{Missing, Pieces, Undone};
use super::{AGAIN, DONE, Did, Leave, NOTHING, UNSUPPORTED};
use crate::cause::Cause;
use crate::memory::list::List;
use crate::memory::resolve::Access;
use crate::qp::answer::{Half, PageAnswer, Waiter};
use crate::qp::frames::Frame;
use crate::qp::stall::Wait;
use crate::verbs::End;

impl Turn<'_, '_> {
    /// Executes the request in a frame, or keeps it until it can be.
    pub(super) fn execute(&mut self, frame: Frame) -> Did {
        let Ok(received) = frame::parse_unsealed(&frame.bytes) else { return DONE };
        let qp = self.qp;
        let Some(connection) = self.connection() else { return NOTHING };
        let before = connection.responder.counters();
        let arrival = connection.responder.receive(&received.packet, received.payload.len());
        let after = connection.responder.counters();
        let stats = &mut self.port.shard().stats;
        stats.duplicate_requests += after.duplicates - before.duplicates;
        stats.out_of_sequence += after.out_of_sequence - before.out_of_sequence;
        let arrived = match arrival {
            Arrival::Execute(arrived) => arrived,
            Arrival::OutOfSequence | Arrival::Ignored => {
                self.budget.spend(0);
                return DONE;
            }
            Arrival::Invalid => {
                let Some(connection) = self.connection() else { return NOTHING };
                connection.refusal = Some(UNSUPPORTED);
                return DONE;
            }
        };
        if self.engine.config.packets.prefault
            && let leave @ ControlFlow::Break(_) = self.prefault(received.packet.psn, &arrived)
        {
            if let Some(connection) = self.connection() {
                connection.held.push_front(frame);
            }
            leave?;
            return DONE;
        }
        let Some(connection) = self.connection() else { return NOTHING };
        let asked = connection.asked.take();
        if let Some(PageAnswer::Failed(cause)) =
            asked.and_then(|ticket| qp.slot.answer(Half::Responder, ticket))
        {
            connection.held.push_front(frame);
            self.refuse_held(cause);
            return DONE;
        }
        self.note_established();
        let length = u32::try_from(received.payload.len()).unwrap_or(u32::MAX);
        match self.perform(&arrived, received.payload) {
            Ok(original) => {
                let done = if arrived.last.is_some() { u32::MAX } else { arrived.at + length };
                self.note_half_progress(Half::Responder, done);
                let Some(connection) = self.connection() else { return NOTHING };
                (connection.flush, connection.invalidated) = (None, None);
                match original {
                    Some(original) => connection.responder.done_atomic(original),
                    None => connection.responder.done(),
                }
                self.budget.spend(length);
                DONE
            }
            Err(Undone::Missing(missing)) => self.ask_for_missing(frame, missing),
            Err(Undone::Other(outcome)) => self.leave_undone(frame, outcome),
        }
    }

    /// Keeps the request, and asks for its page; or refuses it.
    fn ask_for_missing(&mut self, frame: Frame, Missing { stopped, at, piece }: Missing) -> Did {
        if let Some(connection) = self.connection() {
            connection.replying = false;
            connection.held.push_front(frame);
        }
        let receive = lock(&self.qp.responder).current.map(|current| current.taken);
        let is_receive = matches!(piece, Pieces::Receive);
        let cause = match (&piece, &receive) {
            (Pieces::Remote(piece, rights, write), _) => {
                let list = self.remote(piece, *rights, *write);
                self.ask_or_refuse(Half::Responder, &list, (stopped, at))?
            }
            (Pieces::Receive, Some(taken)) => {
                let pieces = taken.request.pieces.as_deref().unwrap_or_default();
                let rights = Access::local_rights(true);
                let list = List { pieces, pd: taken.pd, rights, write: true, end: End::Remote };
                self.ask_or_refuse(Half::Responder, &list, (stopped, at))?
            }
            (Pieces::Receive, None) => Cause::Bounds,
        };
        let refusal =
            if is_receive { Refusal::Receive(WC_LOC_PROT_ERR, Some(cause)) } else { Refusal::Access(cause) };
        self.refuse_front(refusal);
        DONE
    }

    /// What happens to a request that is not done for another reason.
    fn leave_undone(&mut self, frame: Frame, outcome: Outcome) -> Did {
        let Some(connection) = self.connection() else { return NOTHING };
        match outcome {
            Outcome::NotReady(code) => {
                connection.responder.not_ready(code);
                self.port.shard().stats.rnr_naks += 1;
            }
            Outcome::Refused(refusal) => {
                connection.held.push_front(frame);
                self.refuse_front(refusal);
            }
            Outcome::Contended => {
                connection.held.push_front(frame);
                AGAIN?;
            }
            Outcome::Invalidate(change) => {
                connection.held.push_front(frame);
                return ControlFlow::Break(Leave::ChangeRegion(change));
            }
            Outcome::Moved(bytes) => {
                connection.held.push_front(frame);
                self.budget.spend(bytes);
            }
            Outcome::Persist(region) => {
                connection.held.push_front(frame);
                connection.replying = false;
                let ticket = self.engine.faults.ticket();
                let waiter = Waiter { qpn: self.qp.qpn(), half: Half::Responder, ticket };
                if let Some(stall) = self.stall(Half::Responder) {
                    stall.wait = Wait::Persistence { ticket };
                }
                self.engine.workers.persist(waiter, region);
            }
            Outcome::Done | Outcome::Stopped(_) | Outcome::NoPeer | Outcome::TooLong | Outcome::WireBusy => {}
        }
        DONE
    }

    /// The page that the request in front needs will not come.
    pub(super) fn refuse_held(&mut self, cause: Cause) {
        let Some(connection) = self.connection() else { return };
        let Some(front) = connection.held.front() else { return };
        let is_send = frame::parse_unsealed(&front.bytes)
            .is_ok_and(|received| received.packet.opcode.operation() == Operation::Send);
        let refusal =
            if is_send { Refusal::Receive(WC_LOC_PROT_ERR, Some(cause)) } else { Refusal::Access(cause) };
        self.refuse_front(refusal);
    }

    /// The request in front is refused, and with it the connection.
    fn refuse_front(&mut self, refusal: Refusal) {
        let Some(connection) = self.connection() else { return };
        let Some(front) = connection.held.pop_front() else { return };
        if let Ok(received) = frame::parse_unsealed(&front.bytes) {
            // It is offered once more, for the refusal to be about it.
            connection.responder.receive(&received.packet, received.payload.len());
            connection.responder.refuse(refusal.nak());
            connection.refusal = Some(refusal);
        }
        self.settle_half(Half::Responder);
    }

    /// A message has arrived in RTR: the peer is there.
    fn note_established(&mut self) {
        let mut responder = lock(&self.qp.responder);
        if !responder.established {
            responder.established = true;
            if self.qp.state() == QPS_RTR {
                self.engine.raise_qp_event(
                    &mut self.port,
                    &responder.setup,
                    QP_EVENT_COMMUNICATION_ESTABLISHED,
                );
            }
        }
    }
}
