//! The responder: what a message does at its destination, a queue pair of the same device.
//!
//! This is where a wire would be: everything above knows only [`Outcome`]s, which are what acknowledgements
//! would say.

use refault_abi::codes::*;
use refault_abi::event::*;
use refault_abi::queue::*;
use refault_bus::dma::Exchange;
use zerocopy::FromZeros;

use super::requester::Outcome;
use crate::Nic;
use crate::cause::Cause;
use crate::memory::copy;
use crate::memory::guard::lock;
use crate::memory::list::End;
use crate::memory::list::{List, Stopped};
use crate::memory::port::Port;
use crate::memory::region::Access;
use crate::qp::attributes::Attributes;
use crate::qp::{Qp, Receiving, Requester, Responder, Setup};
use crate::queue::recv;
use crate::queue::send::{Message, Operation};

/// Tries at an atomic on a word that another processor keeps changing, before others get their turn.
const ATOMIC_TRIES: u32 = 1000;

/// Why a responder refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request broke the protection rules.
    Access(Cause),
    /// The request is none that this queue pair takes.
    Request(Cause),
    /// The receive request it met fails, with this status of its own.
    Receive(u8, Cause),
    /// The receive queue is lost.
    Broken,
}

impl Refusal {
    /// What the requester's completion says.
    pub(crate) fn seen_by_requester(self) -> (u8, Cause) {
        match self {
            Self::Access(cause) => (WC_REM_ACCESS_ERR, cause),
            Self::Request(cause) => (WC_REM_INV_REQ_ERR, cause),
            Self::Receive(WC_LOC_LEN_ERR, _) => (WC_REM_INV_REQ_ERR, Cause::None),
            Self::Receive(..) | Self::Broken => (WC_REM_OP_ERR, Cause::None),
        }
    }
}

/// A message and its destination, under the worker's guard and with the responder locked.
pub(super) struct Delivery<'a> {
    nic: &'a Nic,
    sender: &'a Setup,
    pub(super) message: &'a mut Message,
    peer: &'a Qp,
    pub(super) responder: &'a mut Responder,
}

impl Nic {
    /// Moves the active request on by one chunk, or finishes it.
    pub(super) fn deliver(&self, port: &mut Port<'_>, requester: &mut Requester) -> Outcome {
        let Requester { setup, attributes, active: Some(message), .. } = requester else {
            return Outcome::Done;
        };
        if setup.is_datagram() {
            return self.send_datagram(port, requester);
        }
        let Some(peer) = self.peer(attributes) else { return Outcome::NoPeer };
        let mut responder = lock(&peer.responder);
        let listens = matches!(peer.state(), QPS_RTR | QPS_RTS | QPS_SQD);
        if !listens || responder.setup.is_datagram() || responder.peer_qpn != setup.qpn {
            return Outcome::NoPeer;
        }
        if !responder.established {
            responder.established = true;
            if peer.state() == QPS_RTR {
                self.tell_qp_event(port, &responder.setup, QP_EVENT_COMMUNICATION_ESTABLISHED);
            }
        }
        Delivery { nic: self, sender: setup, message, peer, responder: &mut responder }.advance(port)
    }

    /// The queue pair at the other end of the path, if it is one of this device.
    fn peer(&self, attributes: &Attributes) -> Option<&Qp> {
        let here = attributes.leads_to(self.config.lid, self.gid());
        self.qps.find(attributes.dest_qpn()).filter(|_| here)
    }

    /// What a refusal does to the responder itself.
    pub(super) fn suffer(&self, port: &mut Port<'_>, qp: &Qp, responder: &mut Responder, refusal: Refusal) {
        match refusal {
            Refusal::Access(_) => self.tell_qp_event(port, &responder.setup, QP_EVENT_ACCESS_ERROR),
            Refusal::Request(_) => self.tell_qp_event(port, &responder.setup, QP_EVENT_REQUEST_ERROR),
            Refusal::Receive(status, cause) => {
                let entry = Cqe { status, vendor_error: cause.code(), ..Cqe::default() };
                self.complete_receive(port, qp, responder, entry);
            }
            Refusal::Broken => {}
        }
        self.fail_qp(qp, refusal == Refusal::Broken);
    }
}

impl Delivery<'_> {
    fn advance(mut self, port: &mut Port<'_>) -> Outcome {
        let result = match self.message.operation {
            Operation::Send => self.send(port),
            Operation::Write | Operation::WriteImm => self.write(port),
            Operation::Read => self.read(port),
            Operation::CompareSwap | Operation::FetchAdd => self.atomic(port),
            Operation::Flush => self.flush(port),
            Operation::AtomicWrite => self.atomic_write(port),
        };
        result.unwrap_or_else(|outcome| outcome)
    }

    /// SEND: from the requester's list into the receive request's.
    fn send(&mut self, port: &mut Port<'_>) -> Result<Outcome, Outcome> {
        self.check_local(port, false)?;
        if self.responder.current.is_none() {
            // The responder lost what it had of the message: it begins again.
            self.message.done = 0;
            self.take_receive(port)?;
        }
        let Some(Receiving { wqe, pd, .. }) = self.responder.current else { return Err(Outcome::NoPeer) };
        let pieces =
            recv::sges(&wqe).ok_or(Outcome::Refused(Refusal::Receive(WC_LOC_QP_OP_ERR, Cause::None)))?;
        let room: u64 = pieces.iter().map(|piece| u64::from(piece.length)).sum();
        if u64::from(self.message.length) > room {
            return Err(Outcome::Refused(Refusal::Receive(WC_LOC_LEN_ERR, Cause::None)));
        }
        let to = List { pieces, pd, rights: Access::local_rights(true), write: true, end: End::Remote };
        self.transfer(port, &to)?;
        Ok(self.finish_receive(port))
    }

    /// RDMA WRITE: from the requester's list to the remote region; with immediate data, a receive request is
    /// consumed when all is written.
    fn write(&mut self, port: &mut Port<'_>) -> Result<Outcome, Outcome> {
        self.check_local(port, false)?;
        let piece = self.remote_piece();
        let to = self.remote(std::slice::from_ref(&piece), true);
        self.check_remote(port, &to)?;
        self.transfer(port, &to)?;
        if self.message.operation == Operation::Write {
            return Ok(Outcome::Done);
        }
        if self.responder.current.is_none() {
            self.take_receive(port)?;
        }
        Ok(self.finish_receive(port))
    }

    /// RDMA READ: from the remote region into the requester's list.
    fn read(&mut self, port: &mut Port<'_>) -> Result<Outcome, Outcome> {
        self.check_local(port, true)?;
        let piece = self.remote_piece();
        let from = self.remote(std::slice::from_ref(&piece), false);
        self.check_remote(port, &from)?;
        let (done, length) = (self.message.done, self.message.length);
        if done < length {
            let moved = copy::copy(port, &from, &self.local(true), done, length - done);
            self.moved(moved)?;
        }
        Ok(Outcome::Done)
    }

    /// Atomics: the remote word is changed once, after both ends were found.
    fn atomic(&mut self, port: &mut Port<'_>) -> Result<Outcome, Outcome> {
        self.check_local(port, true)?;
        if self.message.wqe.remote_addr & 7 != 0 {
            return Err(Outcome::Refused(Refusal::Request(Cause::Alignment)));
        }
        let piece = self.remote_piece();
        let word = self.remote(std::slice::from_ref(&piece), true);
        self.check_remote(port, &word)?;
        let stopped = Outcome::Stopped;
        let found = word.extents(port, 8).map_err(stopped)?;
        let result = self.local(true).extents(port, 8).map_err(stopped)?;
        let Some(word_at) = found.first() else { return Ok(Outcome::Done) };
        let old = self.change_word(port, word_at.gpa)?;
        copy::write_extents(port, &old.to_le_bytes(), &result)
            .map_err(|error| Outcome::Stopped(Stopped { end: End::Local, error }))?;
        self.message.done = 8;
        Ok(Outcome::Done)
    }

    /// ATOMIC WRITE: nobody sees a part of the word.
    fn atomic_write(&mut self, port: &mut Port<'_>) -> Result<Outcome, Outcome> {
        self.check_local(port, false)?;
        if self.message.wqe.remote_addr & 7 != 0 {
            return Err(Outcome::Refused(Refusal::Request(Cause::Alignment)));
        }
        let piece = self.remote_piece();
        let word = self.remote(std::slice::from_ref(&piece), true);
        self.check_remote(port, &word)?;
        let mut value = [0; 8];
        match self.message.inline() {
            Some(bytes) => value.copy_from_slice(bytes),
            None => {
                let local = self.local(false);
                let found = local.extents(port, 8).map_err(Outcome::Stopped)?;
                let read = copy::read_extents(port, &mut value, &found);
                read.map_err(|error| Outcome::Stopped(local.stopped(error)))?;
            }
        }
        let found = word.extents(port, 8).map_err(Outcome::Stopped)?;
        let Some(at) = found.first() else { return Ok(Outcome::Done) };
        let stored = port.fabric().memory.store_u64(at.gpa, u64::from_le_bytes(value));
        stored.map_err(|error| Outcome::Stopped(word.stopped(error)))?;
        self.message.done = 8;
        Ok(Outcome::Done)
    }

    /// Changes a word in one step that no processor of the guest can split; what it was.
    fn change_word(&self, port: &Port<'_>, at: refault_bus::Gpa) -> Result<u64, Outcome> {
        let SqWqe { compare_add, swap, .. } = self.message.wqe;
        let memory = &port.fabric().memory;
        let not_memory = |_| Outcome::Stopped(Stopped { end: End::Remote, error: Cause::NotMemory.into() });
        if self.message.operation == Operation::CompareSwap {
            return match memory.compare_exchange_u64(at, compare_add, swap).map_err(not_memory)? {
                Exchange::Stored => Ok(compare_add),
                Exchange::Found(other) => Ok(other),
            };
        }
        let mut current = memory.load_u64(at).map_err(not_memory)?;
        for _ in 0..ATOMIC_TRIES {
            let sum = current.wrapping_add(compare_add);
            match memory.compare_exchange_u64(at, current, sum).map_err(not_memory)? {
                Exchange::Stored => return Ok(current),
                Exchange::Found(other) => current = other,
            }
        }
        Err(Outcome::Contended)
    }

    /// The requester's scatter/gather list.
    fn local(&self, write: bool) -> List<'_> {
        let rights = Access::local_rights(write);
        List { pieces: self.message.sges(), pd: self.sender.pd, rights, write, end: End::Local }
    }

    /// The remote memory as a list of one piece.
    pub(super) fn remote_piece(&self) -> Sge {
        let SqWqe { remote_addr, rkey, .. } = self.message.wqe;
        Sge { addr: remote_addr, length: self.message.length, lkey: rkey }
    }

    pub(super) fn remote<'s>(&self, pieces: &'s [Sge], write: bool) -> List<'s> {
        let rights = self.message.remote_rights();
        List { pieces, pd: self.responder.setup.pd, rights, write, end: End::Remote }
    }

    /// The requester's own keys, bounds and rights, once for each message.
    fn check_local(&mut self, port: &mut Port<'_>, write: bool) -> Result<(), Outcome> {
        if self.message.checked {
            return Ok(());
        }
        let checked = self.local(write).check(port);
        let stopped = |cause: Cause| Outcome::Stopped(Stopped { end: End::Local, error: cause.into() });
        checked.map_err(stopped)?;
        self.message.checked = self.message.operation == Operation::Send;
        Ok(())
    }

    /// What the peer's queue pair and region allow, once for each message.
    pub(super) fn check_remote(&mut self, port: &mut Port<'_>, remote: &List<'_>) -> Result<(), Outcome> {
        if self.message.checked {
            return Ok(());
        }
        if self.responder.access & remote.rights != remote.rights {
            return Err(Outcome::Refused(Refusal::Request(Cause::Rights)));
        }
        remote.check(port).map_err(|cause| Outcome::Refused(Refusal::Access(cause)))?;
        self.message.checked = true;
        Ok(())
    }

    /// Moves a chunk of the requester's data; `Ok` when all of it is moved.
    fn transfer(&mut self, port: &mut Port<'_>, to: &List<'_>) -> Result<(), Outcome> {
        let (done, length) = (self.message.done, self.message.length);
        if done == length {
            return Ok(());
        }
        let moved = match self.message.inline() {
            Some(bytes) => copy::scatter(port, bytes, to).map(|()| length),
            None => copy::copy(port, &self.local(false), to, done, length - done),
        };
        self.moved(moved)
    }

    fn moved(&mut self, moved: Result<u32, Stopped>) -> Result<(), Outcome> {
        let bytes = moved.map_err(Outcome::Stopped)?;
        self.message.done += bytes;
        if self.message.done < self.message.length { Err(Outcome::Moved(bytes)) } else { Ok(()) }
    }

    /// Takes the responder's next receive request.
    fn take_receive(&mut self, port: &mut Port<'_>) -> Result<(), Outcome> {
        match self.nic.take_receive(port, self.responder) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Outcome::NotReady(self.responder.min_rnr_timer)),
            Err(_) => Err(Outcome::Refused(Refusal::Broken)),
        }
    }

    /// The message is there: completes the receive request it consumed.
    fn finish_receive(&mut self, port: &mut Port<'_>) -> Outcome {
        let wqe = &self.message.wqe;
        let mut entry = Cqe::new_zeroed();
        entry.byte_len = self.message.length;
        entry.opcode = wqe.opcode;
        if self.message.has_imm() {
            entry.imm = wqe.imm;
            entry.flags |= CQE_WITH_IMM;
        }
        if wqe.flags & WQE_SOLICITED != 0 {
            entry.flags |= CQE_SOLICITED;
        }
        self.nic.complete_receive(port, self.peer, self.responder, entry);
        Outcome::Done
    }
}
