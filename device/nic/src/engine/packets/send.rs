//! Requests on their way out.

use std::ops::ControlFlow;

use refault_abi::codes::{QpState, WC_LOC_LEN_ERR};
use refault_roce::Feth;
use refault_transport::{Outgoing, Request, Verb};

use super::super::requester::Next;
use super::super::turn::Turn;
use super::{DONE, Did, Leave, NOTHING};
use crate::memory::access::Stopped;
use crate::memory::copy::read_extents;
use crate::memory::list::List;
use crate::memory::resolve::Access;
use crate::qp::answer::Half;
use crate::qp::connection::Posted;
use crate::qp::requester::{Message, Requester};
use crate::verbs::{End, Flush, Operation, SendRequest};

/// Bytes of a READ's memory that must be there before it is sent: what comes back has nowhere to wait.
pub(super) const PRESENT: u32 = 256 << 10;

impl Turn<'_, '_> {
    /// Sends the next packet.
    pub(super) fn send_request(&mut self, state: QpState) -> Did {
        match self.post_requests(state) {
            Next::Changed => return DONE,
            Next::Local => self.change_own_region()?,
            Next::Ready | Next::Nothing => {}
        }
        let now_ns = self.port.fabric().now_ns();
        let Some(connection) = self.connection() else { return NOTHING };
        let next = connection.requester.as_ref().and_then(|requester| requester.next(now_ns));
        let Some(outgoing) = next.filter(|_| connection.unreachable.is_none()) else { return NOTHING };
        let Some(&Posted { request, .. }) = connection.posted(outgoing.id) else { return NOTHING };
        self.make_way()?;
        let bytes = match self.gather(&request, &outgoing)? {
            Some(bytes) => bytes,
            None => return DONE,
        };
        let is_last = outgoing.packet.opcode.place().ends();
        let done = if is_last && !request.operation.fetches() { u32::MAX } else { outgoing.payload.end };
        self.note_half_progress(Half::Requester, done);
        self.transmit(outgoing.packet.opcode, bytes, None);
        if let Some(requester) = self.connection().and_then(|connection| connection.requester.as_mut()) {
            let before = requester.counters().repeated;
            requester.sent(now_ns);
            let repeated = requester.counters().repeated - before;
            self.port.shard().stats.packets_repeated += repeated;
        }
        self.budget.spend(outgoing.payload.end - outgoing.payload.start);
        DONE
    }

    /// Hands requests of the send queue to the transport, as many as it takes.
    fn post_requests(&mut self, state: QpState) -> Next {
        loop {
            let has_room = self.connection().is_some_and(|connection| connection.has_room());
            if !has_room {
                return Next::Nothing;
            }
            match self.next_request(state) {
                Next::Ready => {}
                other => return other,
            }
            if self.is_local() {
                // Those before it may need the region as it is.
                return if self.is_behind_posted() { Next::Nothing } else { Next::Local };
            }
            let Requester { active, connection, consumer, known, .. } = &mut *self.requester;
            let (Some(Message { request, .. }), Some(connection)) = (active.get(), connection) else {
                return Next::Nothing;
            };
            let request = *request;
            let Some(requester) = &mut connection.requester else { return Next::Nothing };
            if requester.post(transport_request(&request)).is_none() {
                if requester.is_idle() {
                    // More packets than there are numbers to tell apart.
                    self.complete_request(WC_LOC_LEN_ERR, None);
                    return Next::Changed;
                }
                return Next::Nothing;
            }
            connection.posted.push_back(Posted { request, index: *consumer });
            active.clear();
            *consumer = consumer.wrapping_add(1);
            *known = known.saturating_sub(1);
        }
    }

    /// Whether the active request concerns regions of the requester alone.
    fn is_local(&self) -> bool {
        self.requester.active.get().is_some_and(|message| message.request.operation.is_local())
    }

    /// The packet's frame, its payload read from memory; `None` if that cannot be reached.
    fn gather(&mut self, request: &SendRequest, outgoing: &Outgoing) -> ControlFlow<Leave, Option<Vec<u8>>> {
        let length = outgoing.payload.end - outgoing.payload.start;
        let (mut bytes, place) = self.frame(&outgoing.packet, length as usize);
        if let Some(inline) = request.inline() {
            let payload = inline.get(outgoing.payload.start as usize..outgoing.payload.end as usize);
            if let Some(payload) = payload {
                bytes[place].copy_from_slice(payload);
            }
            return ControlFlow::Continue(Some(bytes));
        }
        let (pd, write) = (self.requester.setup.pd, request.operation.writes(End::Local));
        let rights = Access::local_rights(write);
        let list = List { pieces: request.pieces(), pd, rights, write, end: End::Local };
        let at = outgoing.payload.start;
        let checked = if at == 0 { list.check(&mut self.port) } else { Ok(()) };
        let found = checked.map_err(|cause| (list.stopped(cause), at)).and_then(|()| {
            if write {
                // Nothing is read now.
                let wanted = (request.length - at).min(PRESENT);
                return list.extents_at(&mut self.port, at, wanted.into()).map(|_| ());
            }
            let extents = list.extents_at(&mut self.port, at, length.into())?;
            read_extents(&self.port, &mut bytes[place], &extents)
                .map_err(|error| (Stopped { end: End::Local, error }, at))
        });
        match found {
            Ok(()) => ControlFlow::Continue(Some(bytes)),
            Err(stopped) => {
                self.ask_for_own(outgoing.id, &list, stopped)?;
                ControlFlow::Continue(None)
            }
        }
    }
}

/// A request as the transport knows it.
fn transport_request(request: &SendRequest) -> Request {
    let (address, key) = (request.remote_addr, request.rkey);
    // As the program gave them: the front end's word has them in the guest's order.
    let immediate = request.immediate.map(u32::to_le_bytes);
    let verb = match request.operation {
        Operation::Send => match request.invalidate {
            Some(key) => Verb::SendInvalidate { key },
            None => Verb::Send { immediate },
        },
        Operation::Write | Operation::WriteImm => Verb::Write { address, key, immediate },
        Operation::Read => Verb::Read { address, key },
        Operation::CompareSwap { expected, new } => {
            Verb::CompareSwap { address, key, compare: expected, swap: new }
        }
        Operation::FetchAdd { addend } => Verb::FetchAdd { address, key, add: addend },
        Operation::AtomicWrite => Verb::AtomicWrite { address, key },
        // These are done before they come here.
        Operation::Register { .. } | Operation::Invalidate { .. } => Verb::Send { immediate },
        Operation::Flush(Flush { global, persistent, whole_region }) => {
            Verb::Flush { address, key, flush: Feth { whole_region, global, persistent } }
        }
    };
    Request { verb, length: request.length, solicited: request.solicited, fence: request.fence }
}
