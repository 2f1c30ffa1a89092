//! What requests in packets do.

use std::ops::ControlFlow;

use refault_abi::codes::{
    ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights, WC_LOC_LEN_ERR,
    WC_LOC_PROT_ERR, WC_LOC_QP_OP_ERR,
};
use refault_bus::Gpa;
use refault_bus::dma::Exchange;
use refault_bus::sync::lock;
use refault_transport::{Action, Last, Step as Arrived};

use super::super::atomic::ATOMIC_TRIES;
use super::super::outcome::{Outcome, Refusal, RegionChange};
use super::super::responder::{Delivery, Ends};
use super::super::turn::Turn;
use super::reply::piece;
use super::send::PRESENT;
use crate::cause::Cause;
use crate::config::RemoteFaults;
use crate::memory::access::{AccessError, Stopped};
use crate::memory::copy::write_extents;
use crate::memory::list::List;
use crate::memory::resolve::Access;
use crate::qp::requester::Message;
use crate::qp::responder::Responder;
use crate::verbs::{Completion, End, Flush, Operation, Piece, SendRequest};

/// A step that cannot be done now: a page is missing at this byte of this list.
pub(super) struct Missing {
    pub(super) stopped: Stopped,
    pub(super) at: u32,
    pub(super) piece: Pieces,
}

/// The list that a page is missing in.
pub(super) enum Pieces {
    Remote(Piece, AccessRights, bool),
    Receive,
}

/// The end of a step that is not done.
pub(super) enum Undone {
    Missing(Missing),
    Other(Outcome),
}

impl From<Refusal> for Undone {
    fn from(refusal: Refusal) -> Self {
        Self::Other(Outcome::Refused(refusal))
    }
}

impl Turn<'_, '_> {
    /// Does what a packet asks for. An atomic returns the value from before.
    pub(super) fn perform(&mut self, arrived: &Arrived, payload: &[u8]) -> Result<Option<u64>, Undone> {
        match arrived.action {
            Action::Send => self.receive(arrived, payload)?,
            Action::Write { address, key, total } => {
                let piece = Piece { addr: address, length: total, key };
                self.write(arrived, piece, payload)?;
            }
            Action::Read(source) => {
                self.allow(ACCESS_REMOTE_READ)?;
                let piece = piece(source);
                let list = self.remote(&piece, ACCESS_REMOTE_READ, false);
                list.check(&mut self.port).map_err(Refusal::Access)?;
                if self.engine.config.remote_faults != RemoteFaults::Stall {
                    // Once it replies it can only wait.
                    let wanted = source.length.min(PRESENT);
                    let found = list.extents_at(&mut self.port, 0, wanted.into());
                    found.map_err(|failed| undone(failed, piece, ACCESS_REMOTE_READ, false))?;
                }
            }
            Action::AtomicWrite { address, key } => {
                let word = self.word(address, key, ACCESS_REMOTE_WRITE)?;
                let value = payload.try_into().map_or(0, u64::from_le_bytes);
                let stored = self.port.fabric().memory.store_u64(word, value);
                stored.map_err(|_| Refusal::Access(Cause::NotMemory))?;
            }
            Action::CompareSwap { address, key, compare, swap } => {
                let word = self.word(address, key, ACCESS_REMOTE_ATOMIC)?;
                return self.change(word, |old| if old == compare { swap } else { old }).map(Some);
            }
            Action::FetchAdd { address, key, add } => {
                let word = self.word(address, key, ACCESS_REMOTE_ATOMIC)?;
                return self.change(word, |old| old.wrapping_add(add)).map(Some);
            }
            Action::Flush { range, flush } => {
                let flush = Flush {
                    global: flush.global,
                    persistent: flush.persistent,
                    whole_region: flush.whole_region,
                };
                self.flush_range(piece(range), flush)?;
            }
        }
        Ok(None)
    }

    /// SEND: into the receive request.
    fn receive(&mut self, arrived: &Arrived, payload: &[u8]) -> Result<(), Undone> {
        let (engine, qp) = (self.engine, self.qp);
        if let Some(key) = arrived.last.and_then(|last| last.invalidate) {
            self.invalidate(key)?;
        }
        let mut responder = lock(&qp.responder);
        if arrived.first {
            self.take_for_packet(&mut responder)?;
        }
        let Some(current) = responder.current else { return Err(Refusal::Broken.into()) };
        let refused = |status, cause| Undone::from(Refusal::Receive(status, cause));
        let pieces = current.taken.request.pieces.ok_or(refused(WC_LOC_QP_OP_ERR, None))?;
        if u64::from(arrived.at) + payload.len() as u64 > pieces.bytes() {
            return Err(refused(WC_LOC_LEN_ERR, None));
        }
        let rights = Access::local_rights(true);
        let list = List { pieces: &pieces, pd: current.taken.pd, rights, write: true, end: End::Remote };
        if arrived.first {
            list.check(&mut self.port).map_err(|cause| refused(WC_LOC_PROT_ERR, Some(cause)))?;
        }
        if let Err((stopped, at)) = write_at(self, &list, arrived.at, payload) {
            return Err(match stopped.error {
                AccessError::Denied(cause) => refused(WC_LOC_PROT_ERR, Some(cause)),
                AccessError::Miss(_) => Undone::Missing(Missing { stopped, at, piece: Pieces::Receive }),
            });
        }
        if let Some(last) = arrived.last {
            let length = arrived.at + u32::try_from(payload.len()).unwrap_or(0);
            let completion =
                arrival(engine.layout.arrived_opcode(false, last.immediate.is_some()), length, last);
            engine.complete_receive(&mut self.port, qp, &mut responder, completion);
        }
        Ok(())
    }

    /// RDMA WRITE, with immediate data or without.
    fn write(&mut self, arrived: &Arrived, piece: Piece, payload: &[u8]) -> Result<(), Undone> {
        let (engine, qp) = (self.engine, self.qp);
        self.allow(ACCESS_REMOTE_WRITE)?;
        let last = arrived.last.filter(|last| last.immediate.is_some());
        let mut responder = lock(&qp.responder);
        if last.is_some() {
            self.take_for_packet(&mut responder)?;
        }
        let list = self.remote(&piece, ACCESS_REMOTE_WRITE, true);
        let written = write_at(self, &list, arrived.at, payload);
        written.map_err(|failed| undone(failed, piece, ACCESS_REMOTE_WRITE, true))?;
        if let Some(last) = last {
            let completion = arrival(engine.layout.arrived_opcode(true, true), piece.length, last);
            engine.complete_receive(&mut self.port, qp, &mut responder, completion);
        }
        Ok(())
    }

    /// Has the key made invalid that a SEND names.
    fn invalidate(&mut self, key: u32) -> Result<(), Undone> {
        let pd = self.requester.setup.pd;
        let Some(connection) = self.requester.connection.as_deref() else { return Ok(()) };
        if connection.invalidated == Some(key) {
            return Ok(());
        }
        if !self.engine.memory.may_invalidate(key, pd) {
            return Err(Refusal::Access(Cause::Key).into());
        }
        Err(Undone::Other(Outcome::Invalidate(RegionChange::Remote { key, pd })))
    }

    /// Takes a receive request for the message, unless it has one.
    fn take_for_packet(&mut self, responder: &mut Responder) -> Result<(), Undone> {
        match self.engine.take_receive(&mut self.port, responder) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Undone::Other(Outcome::NotReady(responder.min_rnr_timer))),
            Err(_) => Err(Refusal::Broken.into()),
        }
    }

    /// The memory of a word.
    fn word(&mut self, address: u64, key: u32, rights: AccessRights) -> Result<Gpa, Undone> {
        if address & 7 != 0 {
            return Err(Refusal::Request(Cause::Alignment).into());
        }
        self.allow(rights)?;
        let piece = Piece { addr: address, length: 8, key };
        let found = self.remote(&piece, rights, true).extents_at(&mut self.port, 0, 8);
        let extents = found.map_err(|failed| undone(failed, piece, rights, true))?;
        extents.first().map(|extent| extent.gpa).ok_or(Refusal::Access(Cause::Bounds).into())
    }

    /// Changes a word in one step that no processor of the guest can split. Returns what was there.
    fn change(&mut self, word: Gpa, new: impl Fn(u64) -> u64) -> Result<u64, Undone> {
        let memory = &self.port.fabric().memory;
        let not_memory = |_| Undone::from(Refusal::Access(Cause::NotMemory));
        let mut old = memory.load_u64(word).map_err(not_memory)?;
        for _ in 0..ATOMIC_TRIES {
            match memory.compare_exchange_u64(word, old, new(old)).map_err(not_memory)? {
                Exchange::Stored => return Ok(old),
                Exchange::Found(other) => old = other,
            }
        }
        Err(Undone::Other(Outcome::Contended))
    }

    /// One step of a FLUSH.
    fn flush_range(&mut self, piece: Piece, flush: Flush) -> Result<(), Undone> {
        let (engine, qp, room) = (self.engine, self.qp, self.budget.room());
        let setup = self.requester.setup;
        let Some(connection) = self.requester.connection.as_deref_mut() else { return Ok(()) };
        let begin = || Message {
            request: SendRequest {
                operation: Operation::Flush(flush),
                remote_addr: piece.addr,
                rkey: piece.key,
                length: piece.length,
                ..SendRequest::NONE
            },
            ..Message::NONE
        };
        let message = connection.flush.get_or_insert_with(begin);
        let mut responder = lock(&qp.responder);
        let ends = Ends { sender: &setup, message, responder: &mut responder };
        let mut delivery = Delivery { engine, port: &mut self.port, ends, peer: qp, room };
        let result = delivery.flush(flush);
        let request = delivery.ends.message.request;
        let at = delivery.ends.message.done;
        match result {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(Outcome::Stopped(stopped)) => {
                Err(undone((stopped, at), request.remote(), request.operation.remote_rights(), false))
            }
            ControlFlow::Break(outcome) => Err(Undone::Other(outcome)),
        }
    }

    /// Whether the queue pair lets others do this.
    fn allow(&self, rights: AccessRights) -> Result<(), Refusal> {
        let allowed = lock(&self.qp.responder).access.contains(rights);
        if allowed { Ok(()) } else { Err(Refusal::Request(Cause::Rights)) }
    }

    /// Memory that a request names.
    pub(super) fn remote<'p>(&self, piece: &'p Piece, rights: AccessRights, write: bool) -> List<'p> {
        let pd = self.requester.setup.pd;
        List { pieces: std::slice::from_ref(piece), pd, rights, write, end: End::Remote }
    }
}

/// Writes a packet's payload to a list, all of it or nothing.
fn write_at(turn: &mut Turn<'_, '_>, list: &List<'_>, at: u32, payload: &[u8]) -> Result<(), (Stopped, u32)> {
    let extents = list.extents_at(&mut turn.port, at, payload.len() as u64)?;
    write_extents(&mut turn.port, payload, &extents).map_err(|error| (list.stopped(error), at))
}

fn undone((stopped, at): (Stopped, u32), piece: Piece, rights: AccessRights, write: bool) -> Undone {
    match stopped.error {
        AccessError::Denied(cause) => Refusal::Access(cause).into(),
        AccessError::Miss(_) => {
            Undone::Missing(Missing { stopped, at, piece: Pieces::Remote(piece, rights, write) })
        }
    }
}

/// The completion of a message that arrived.
fn arrival(opcode: u8, length: u32, last: Last) -> Completion {
    let immediate = last.immediate.map(u32::from_le_bytes);
    let (solicited, invalidated) = (last.solicited, last.invalidate);
    Completion { length, opcode, immediate, solicited, invalidated, ..Completion::default() }
}
