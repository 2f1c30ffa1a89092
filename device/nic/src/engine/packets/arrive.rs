//! What has arrived: responses are heard at once, requests kept until the responder may go on.

use std::ops::ControlFlow;

use refault_abi::codes::{
    WC_REM_ACCESS_ERR, WC_REM_INV_REQ_ERR, WC_REM_OP_ERR, WC_RETRY_EXC_ERR, WC_RNR_RETRY_EXC_ERR, WC_SUCCESS,
    WcStatus,
};
use refault_bus::bits::low_u32;
use refault_roce::{Packet, frame};
use refault_transport::{Completion, Failure, Heard};

use super::super::turn::Turn;
use super::{DONE, Did, Leave, NOTHING};
use crate::cause::Cause;
use crate::memory::access::Stopped;
use crate::memory::copy::write_extents;
use crate::memory::list::List;
use crate::memory::resolve::Access;
use crate::qp::answer::Half;
use crate::qp::connection::Posted;
use crate::qp::stall::Wait;
use crate::verbs::End;

impl Turn<'_, '_> {
    /// Takes a request that is kept, if the responder may execute it, or else the next frame.
    pub(super) fn take_arrival(&mut self, may_execute: bool) -> Did {
        let Some(connection) = self.connection() else { return NOTHING };
        if may_execute && let Some(held) = connection.held.pop_front() {
            return self.execute(held);
        }
        let Some(mut arrived) = self.qp.inbox.take() else { return NOTHING };
        // Whatever it is, so that a turn ends though more come all the time.
        self.budget.spend(0);
        let Ok(received) = frame::parse_unsealed(&arrived.bytes) else { return DONE };
        // It may have been for the slot's queue pair before.
        let is_own = received.packet.dest_qpn == self.qp.qpn();
        if !is_own || !self.is_from_peer(arrived.source, &received.envelope) {
            return DONE;
        }
        if received.packet.opcode.is_response() {
            let (packet, payload) = (received.packet, received.payload);
            return self.hear(&packet, payload, arrived.cause);
        }
        if may_execute {
            return self.execute(arrived);
        }
        let most = self.engine.config.packets.fault_buffer as usize;
        match self.connection().filter(|connection| connection.held.len() < most) {
            Some(connection) => {
                arrived.hold();
                connection.held.push_back(arrived);
            }
            None => self.port.shard().stats.packets_lost += 1,
        }
        DONE
    }

    /// Takes a response.
    fn hear(&mut self, packet: &Packet, payload: &[u8], cause: Option<Cause>) -> Did {
        let now_ns = self.port.fabric().now_ns();
        let Some(connection) = self.connection() else { return NOTHING };
        let Some(requester) = &mut connection.requester else { return DONE };
        let before = requester.counters();
        let heard = requester.receive(packet, payload.len(), now_ns);
        let after = requester.counters();
        let waits = after.not_ready - before.not_ready;
        let resumes = after.resumed - before.resumed;
        connection.refused_for = connection.refused_for.or(cause);
        let has_failed = requester.has_failed();
        let stats = &mut self.port.shard().stats;
        stats.sequence_naks += after.sequence_errors - before.sequence_errors;
        if !has_failed {
            stats.rnr_waits += waits;
            stats.rnr_resumes += resumes;
        }
        // A response stands for what was sent before its request, too.
        self.complete_finished();
        match heard {
            Heard::Nothing => {}
            Heard::Data { id, at } => self.place(id, at, payload)?,
            Heard::Original { id, value } => self.place(id, 0, &value.to_le_bytes())?,
        }
        self.complete_finished();
        DONE
    }

    /// Puts a response's bytes into the request's memory.
    fn place(&mut self, id: u64, at: u32, bytes: &[u8]) -> ControlFlow<Leave> {
        let now_ns = self.port.fabric().now_ns();
        let pd = self.requester.setup.pd;
        let Some(&Posted { request, .. }) = self.connection().and_then(|connection| connection.posted(id))
        else {
            return ControlFlow::Continue(());
        };
        let rights = Access::local_rights(true);
        let list = List { pieces: request.pieces(), pd, rights, write: true, end: End::Local };
        let found = list.extents_at(&mut self.port, at, bytes.len() as u64);
        let placed = found.and_then(|extents| {
            write_extents(&mut self.port, bytes, &extents)
                .map_err(|error| (Stopped { end: End::Local, error }, at))
        });
        match placed {
            Ok(()) => {
                self.note_half_progress(Half::Requester, at.saturating_add(low_u32(bytes.len() as u64)));
                if let Some(requester) =
                    self.connection().and_then(|connection| connection.requester.as_mut())
                {
                    requester.placed(now_ns);
                }
            }
            Err(stopped) => {
                if let Some(requester) =
                    self.connection().and_then(|connection| connection.requester.as_mut())
                {
                    requester.put_back(now_ns);
                }
                // A half waits for one page at a time, so this one is asked for when the response comes again.
                if self.requester.stall.wait != Wait::None {
                    return ControlFlow::Continue(());
                }
                self.ask_for_own(id, &list, stopped)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Completes the requests that the transport is done with.
    pub(super) fn complete_finished(&mut self) {
        loop {
            let Some(connection) = self.connection() else { return };
            let next = connection.requester.as_mut().and_then(refault_transport::Requester::next_completion);
            let (Some(Completion { result, .. }), Some(posted)) =
                (next, next.and_then(|_| connection.posted.pop_front()))
            else {
                break;
            };
            let cause = connection.refused_for.filter(|_| result.is_err());
            let stats = &mut self.port.shard().stats;
            stats.retries_exceeded += u64::from(result == Err(Failure::RetriesExceeded));
            stats.rnr_retries_exceeded += u64::from(result == Err(Failure::NotReadyRetriesExceeded));
            self.complete_posted(&posted, result.map_or_else(status, |()| WC_SUCCESS), cause);
        }
        self.fail_unreachable();
    }
}

fn status(failure: Failure) -> WcStatus {
    match failure {
        Failure::InvalidRequest => WC_REM_INV_REQ_ERR,
        Failure::RemoteAccess => WC_REM_ACCESS_ERR,
        // A response that does not fit has no code of its own here.
        Failure::RemoteOperation | Failure::BadResponse => WC_REM_OP_ERR,
        Failure::RetriesExceeded => WC_RETRY_EXC_ERR,
        Failure::NotReadyRetriesExceeded => WC_RNR_RETRY_EXC_ERR,
    }
}
