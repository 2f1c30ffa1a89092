//! Replies on their way out.

use refault_abi::codes::ACCESS_REMOTE_READ;
use refault_roce::{Nak, Syndrome};
use refault_transport::Source;

use super::super::outcome::Refusal;
use super::super::turn::Turn;
use super::{DONE, Did, NOTHING};
use crate::cause::Cause;
use crate::memory::access::Stopped;
use crate::memory::copy::read_extents;
use crate::qp::answer::Half;
use crate::verbs::{End, Piece};

impl Turn<'_, '_> {
    /// Sends the next reply, or fails the responder when there are no more.
    pub(super) fn reply(&mut self) -> Did {
        let Some(connection) = self.connection() else { return NOTHING };
        let Some(reply) = connection.responder.next_reply() else {
            return if self.finish_refusal() { DONE } else { NOTHING };
        };
        let way = self.make_way();
        if way.is_break() {
            // The requester's timers go on while the wire is busy.
            self.requester_may_go_on();
        }
        way?;
        let length = reply.payload.map_or(0, |source| source.length);
        let (mut bytes, place) = self.frame(&reply.packet, length as usize);
        if let Some(source) = reply.payload.filter(|source| source.length > 0) {
            let piece = piece(Source { length: reply.left, ..source });
            let list = self.remote(&piece, ACCESS_REMOTE_READ, false);
            let found = list.extents_at(&mut self.port, 0, source.length.into()).and_then(|extents| {
                read_extents(&self.port, &mut bytes[place], &extents)
                    .map_err(|error| (Stopped { end: End::Remote, error }, 0))
            });
            if let Err(stopped) = found {
                if let Some(connection) = self.connection() {
                    connection.replying = true;
                }
                let cause = self.ask_or_refuse(Half::Responder, &list, stopped)?;
                self.refuse_reply(cause);
                return DONE;
            }
        }
        // An acknowledgement moves nothing, and a request that was sent away for its page may have caused it.
        let waits_for_page = self.connection().is_some_and(|connection| connection.asked.is_some());
        if reply.payload.is_some() && !waits_for_page {
            self.note_half_progress(Half::Responder, u32::MAX);
        }
        let is_refusal = matches!(reply.packet.aeth.syndrome, Syndrome::Nak(nak) if nak != Nak::Sequence);
        let refusal = self.connection().and_then(|connection| connection.refusal).filter(|_| is_refusal);
        self.transmit(reply.packet.opcode, bytes, refusal.and_then(Refusal::cause));
        if let Some(connection) = self.connection() {
            connection.responder.replied();
        }
        self.budget.spend(length);
        DONE
    }

    /// The responder's memory for the reply cannot be read.
    pub(super) fn refuse_reply(&mut self, cause: Cause) {
        if let Some(connection) = self.connection() {
            connection.replying = false;
            connection.responder.refuse_reply(Nak::RemoteAccess);
            connection.refusal = Some(Refusal::Access(cause));
        }
        self.settle_half(Half::Responder);
    }
}

/// The memory as a piece.
pub(super) fn piece(source: Source) -> Piece {
    Piece { addr: source.address, length: source.length, key: source.key }
}
