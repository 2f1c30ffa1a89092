//! The responder: what a message does at its destination.

use std::ops::ControlFlow;

use refault_abi::codes::{WC_LOC_LEN_ERR, WC_LOC_QP_OP_ERR};
use refault_abi::event::{QP_EVENT_ACCESS_ERROR, QP_EVENT_REQUEST_ERROR};

use super::Engine;
use super::outcome::{Outcome, Refusal, RegionChange, Step, step};
use crate::cause::Cause;
use crate::memory::access::Stopped;
use crate::memory::copy;
use crate::memory::list::List;
use crate::memory::port::Port;
use crate::memory::resolve::Access;
use crate::qp::Qp;
use crate::qp::requester::Message;
use crate::qp::responder::Responder;
use crate::qp::setup::Setup;
use crate::verbs::{Completion, End, Operation, Piece};

/// A message and its destination, under the worker's guard and with the responder locked.
pub(super) struct Delivery<'a, 'p> {
    pub(super) engine: &'a Engine,
    pub(super) port: &'a mut Port<'p>,
    pub(super) ends: Ends<'a>,
    pub(super) peer: &'a Qp,
    /// Most bytes that this step may move.
    pub(super) room: u32,
}

/// Both ends of a message.
pub(super) struct Ends<'a> {
    pub(super) sender: &'a Setup,
    pub(super) message: &'a mut Message,
    pub(super) responder: &'a mut Responder,
}

impl Ends<'_> {
    /// The requester's scatter/gather list.
    pub(super) fn local(&self, write: bool) -> List<'_> {
        let rights = Access::local_rights(write);
        List { pieces: self.message.request.pieces(), pd: self.sender.pd, rights, write, end: End::Local }
    }

    /// A remote piece as a list.
    pub(super) fn remote<'s>(&self, piece: &'s Piece, write: bool) -> List<'s> {
        let rights = self.message.request.operation.remote_rights();
        let pieces = std::slice::from_ref(piece);
        List { pieces, pd: self.responder.setup.pd, rights, write, end: End::Remote }
    }
}

impl Delivery<'_, '_> {
    /// One step of the message.
    pub(super) fn advance(mut self) -> Outcome {
        let result = match self.ends.message.request.operation {
            Operation::Send => self.send(),
            Operation::Write => self.write(),
            Operation::WriteImm => self.write_with_immediate(),
            Operation::Read => self.read(),
            Operation::CompareSwap { .. } | Operation::FetchAdd { .. } => self.atomic(),
            Operation::Flush(flush) => self.flush(flush),
            Operation::AtomicWrite => self.atomic_write(),
            // They are done before they come here.
            Operation::Register { .. } | Operation::Invalidate { .. } => ControlFlow::Continue(()),
        };
        match result {
            ControlFlow::Break(outcome) => outcome,
            ControlFlow::Continue(()) => Outcome::Done,
        }
    }

    /// SEND: from the requester's list into the receive request's.
    fn send(&mut self) -> Step {
        self.check_local(false)?;
        if self.ends.responder.current.is_none() {
            // The first step of the message, or the responder was reset since: start with the first byte.
            self.ends.message.done = 0;
            self.take_receive()?;
        }
        let Some(current) = self.ends.responder.current else { return ControlFlow::Break(Outcome::NoPeer) };
        let refused = |status| Refusal::Receive(status, None);
        let pieces = step(current.taken.request.pieces.ok_or(refused(WC_LOC_QP_OP_ERR)))?;
        if u64::from(self.ends.message.request.length) > pieces.bytes() {
            return ControlFlow::Break(refused(WC_LOC_LEN_ERR).into());
        }
        let (pd, rights) = (current.taken.pd, Access::local_rights(true));
        let to = List { pieces: &pieces, pd, rights, write: true, end: End::Remote };
        self.transfer(&to)?;
        self.invalidate()?;
        self.finish_receive();
        ControlFlow::Continue(())
    }

    /// Has the key made invalid that a SEND names, if it names one.
    fn invalidate(&mut self) -> Step {
        let pd = self.ends.responder.setup.pd;
        let Some(key) = self.ends.message.request.invalidate else { return ControlFlow::Continue(()) };
        if self.ends.message.invalidated == Some(key) {
            return ControlFlow::Continue(());
        }
        if !self.engine.memory.may_invalidate(key, pd) {
            return ControlFlow::Break(Refusal::Access(Cause::Key).into());
        }
        ControlFlow::Break(Outcome::Invalidate(RegionChange::Remote { key, pd }))
    }

    /// RDMA WRITE: from the requester's list to the remote region.
    fn write(&mut self) -> Step {
        self.check_local(false)?;
        let piece = self.ends.message.request.remote();
        let to = self.ends.remote(&piece, true);
        self.check_remote(&to)?;
        self.transfer(&to)
    }

    /// RDMA WRITE with immediate data: consumes a receive request when all is written.
    fn write_with_immediate(&mut self) -> Step {
        self.write()?;
        if self.ends.responder.current.is_none() {
            self.take_receive()?;
        }
        self.finish_receive();
        ControlFlow::Continue(())
    }

    /// RDMA READ: from the remote region into the requester's list.
    fn read(&mut self) -> Step {
        self.check_local(true)?;
        self.check_resources()?;
        let piece = self.ends.message.request.remote();
        let from = self.ends.remote(&piece, false);
        self.check_remote(&from)?;
        let (done, left) = (self.ends.message.done, self.ends.message.left());
        if left == 0 {
            return ControlFlow::Continue(());
        }
        let moved = copy::copy(self.port, &from, &self.ends.local(true), done, left.min(self.room));
        self.moved(moved)
    }

    /// Checks the requester's own keys, bounds and rights, once for each message.
    pub(super) fn check_local(&mut self, write: bool) -> Step {
        if self.ends.message.checked {
            return ControlFlow::Continue(());
        }
        let local = self.ends.local(write);
        step(local.check(self.port).map_err(|cause| local.stopped(cause)))?;
        // Other operations have a remote end to check.
        self.ends.message.checked = self.ends.message.request.operation == Operation::Send;
        ControlFlow::Continue(())
    }

    /// Checks that the peer takes reads and atomics at all (InfiniBand 1.4, 9.7.5.2: invalid request).
    pub(super) fn check_resources(&self) -> Step {
        if self.ends.responder.max_dest_rd_atomic == 0 {
            return ControlFlow::Break(Refusal::Request(Cause::Rights).into());
        }
        ControlFlow::Continue(())
    }

    /// Checks what the peer's queue pair and region allow, once for each message.
    pub(super) fn check_remote(&mut self, remote: &List<'_>) -> Step {
        if self.ends.message.checked {
            return ControlFlow::Continue(());
        }
        if !self.ends.responder.access.contains(remote.rights) {
            return ControlFlow::Break(Refusal::Request(Cause::Rights).into());
        }
        step(remote.check(self.port).map_err(Refusal::Access))?;
        self.ends.message.checked = true;
        ControlFlow::Continue(())
    }

    /// Moves a chunk of the requester's data; goes on when all of it is moved.
    fn transfer(&mut self, to: &List<'_>) -> Step {
        let Ends { message, .. } = &self.ends;
        let (done, left) = (message.done, message.left());
        if left == 0 {
            return ControlFlow::Continue(());
        }
        let moved = match message.request.inline() {
            Some(bytes) => copy::scatter(self.port, bytes, to).map(|()| left),
            None => copy::copy(self.port, &self.ends.local(false), to, done, left.min(self.room)),
        };
        self.moved(moved)
    }

    fn moved(&mut self, moved: Result<u32, Stopped>) -> Step {
        let bytes = step(moved)?;
        let message = &mut self.ends.message;
        message.done += bytes;
        if message.done < message.request.length {
            return ControlFlow::Break(Outcome::Moved(bytes));
        }
        ControlFlow::Continue(())
    }

    /// Takes the responder's next receive request.
    fn take_receive(&mut self) -> Step {
        match self.engine.take_receive(self.port, self.ends.responder) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(Outcome::NotReady(self.ends.responder.min_rnr_timer)),
            Err(_) => ControlFlow::Break(Refusal::Broken.into()),
        }
    }

    /// The message has arrived: completes the receive request that it consumed.
    fn finish_receive(&mut self) {
        let request = &self.ends.message.request;
        let completion = Completion {
            length: request.length,
            opcode: request.opcode,
            immediate: request.immediate,
            solicited: request.solicited,
            invalidated: request.invalidate,
            ..Completion::default()
        };
        self.engine.complete_receive(self.port, self.peer, self.ends.responder, completion);
    }
}

impl Engine {
    /// What a refusal does to the responder itself (InfiniBand 1.4, 9.9.3).
    pub(super) fn fail_responder(
        &self,
        port: &mut Port<'_>,
        qp: &Qp,
        responder: &mut Responder,
        refusal: Refusal,
    ) {
        match refusal {
            Refusal::Access(_) => self.raise_qp_event(port, &responder.setup, QP_EVENT_ACCESS_ERROR),
            Refusal::Request(_) => self.raise_qp_event(port, &responder.setup, QP_EVENT_REQUEST_ERROR),
            Refusal::Receive(status, cause) => {
                let completion = Completion { status, cause, ..Completion::default() };
                self.complete_receive(port, qp, responder, completion);
            }
            Refusal::Broken => {}
        }
        self.fail_qp(qp, refusal == Refusal::Broken);
    }
}
