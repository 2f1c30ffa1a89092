//! Datagrams: what a UD queue pair sends, and what becomes of it.
//!
//! A datagram is no longer than a packet, so it is copied whole in one guarded step, after both ends were
//! translated. Nobody tells its sender what happened at the other end: what is not taken is dropped. But a page
//! that is missing there is waited for, by the sender, for this device has no packet buffers that could overflow.
//! The receive request that was met stays the receiver's meanwhile, for this datagram or another.

use refault_abi::codes::*;
use refault_abi::queue::*;
use zerocopy::FromZeros;

use super::requester::Outcome;
use super::responder::Refusal;
use crate::Nic;
use crate::cause::Cause;
use crate::memory::copy::{read_extents, write_extents};
use crate::memory::guard::lock;
use crate::memory::list::End;
use crate::memory::list::{List, Stopped};
use crate::memory::port::{AccessError, Extent, Port};
use crate::memory::region::Access;
use crate::qp::{Qp, Requester, Responder, Setup};
use crate::queue::recv;
use crate::queue::send::Message;

/// Longest datagram: the port's path MTU of 4096 bytes.
const MAX_DATAGRAM: usize = 4096;
/// What a receive request has in front of the payload.
const GRH: usize = 40;
/// Q_Keys with this bit stand for the sender's own.
const OWN_QKEY: u32 = 1 << 31;

impl Nic {
    /// Sends the active request of a UD queue pair.
    pub(super) fn send_datagram(&self, port: &mut Port<'_>, requester: &mut Requester) -> Outcome {
        let Requester { setup, attributes, active: Some(message), .. } = requester else {
            return Outcome::Done;
        };
        let length = message.length as usize;
        let mut packet = [0; GRH + MAX_DATAGRAM];
        let Some(packet) = packet.get_mut(..GRH + length) else { return Outcome::TooLong };
        if let Err(stopped) = gather(port, setup, message, &mut packet[GRH..]) {
            return Outcome::Stopped(stopped);
        }
        packet[..GRH].copy_from_slice(&self.grh(&message.wqe, length));
        let qkey = match message.wqe.qkey & OWN_QKEY {
            0 => message.wqe.qkey,
            _ => attributes.qkey(),
        };
        let taken = match self.receiver(&message.wqe) {
            Some(peer) => self.receive_datagram(port, peer, setup, message, (qkey, packet)),
            None => Ok(false),
        };
        match taken {
            Ok(taken) => port.shard().stats.datagrams_dropped += u64::from(!taken),
            Err(stopped) => return Outcome::Stopped(stopped),
        }
        Outcome::Done
    }

    /// Whom a datagram is for.
    fn receiver(&self, wqe: &SqWqe) -> Option<&Qp> {
        let here = wqe.dest_lid == self.config.lid && (wqe.has_grh == 0 || destination(wqe) == self.gid());
        self.qps.find(wqe.dest_qpn).filter(|_| here)
    }

    /// Puts a datagram, its GRH in front, where the receiver wants it. Whether it took it; an error is a page to
    /// wait for.
    fn receive_datagram(
        &self,
        port: &mut Port<'_>,
        peer: &Qp,
        sender: &Setup,
        message: &mut Message,
        (qkey, packet): (u32, &[u8]),
    ) -> Result<bool, Stopped> {
        let mut responder = lock(&peer.responder);
        let listens = matches!(peer.state(), QPS_RTR | QPS_RTS | QPS_SQD | QPS_SQE);
        // Its number may have become another's by now.
        let same = responder.setup.qpn == message.wqe.dest_qpn && responder.setup.is_datagram();
        if !listens || !same || responder.qkey != qkey {
            return Ok(false);
        }
        let place = match self.place_for(port, &mut responder, packet.len()) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(false),
            Err(Trouble::Wait(stopped)) => {
                message.met = responder.current.map_or(0, |current| current.ticket);
                return Err(stopped);
            }
            Err(Trouble::Refused(refusal)) => {
                self.suffer(port, peer, &mut responder, refusal);
                return Ok(false);
            }
        };
        let with_grh = message.wqe.has_grh != 0;
        let written = match with_grh {
            true => write_extents(port, packet, &place),
            false => write_extents(port, &packet[GRH..], &skip(&place, GRH as u64)),
        };
        if written.is_err() {
            let lost = Refusal::Receive(WC_LOC_PROT_ERR, Cause::NotMemory);
            self.suffer(port, peer, &mut responder, lost);
            return Ok(false);
        }
        let mut entry = self.datagram_entry(&message.wqe, packet.len());
        entry.src_qpn = sender.qpn;
        self.complete_receive(port, peer, &mut responder, entry);
        Ok(true)
    }

    /// The memory of the next receive request, if it has room for `length` bytes.
    fn place_for(
        &self,
        port: &mut Port<'_>,
        responder: &mut Responder,
        length: usize,
    ) -> Result<Option<Vec<Extent>>, Trouble> {
        let taken = self.take_receive(port, responder);
        if !taken.map_err(|_| Trouble::Refused(Refusal::Broken))? {
            return Ok(None);
        }
        let Some(current) = responder.current else { return Ok(None) };
        let malformed = Trouble::Refused(Refusal::Receive(WC_LOC_QP_OP_ERR, Cause::None));
        let pieces = recv::sges(&current.wqe).ok_or(malformed)?;
        let room: u64 = pieces.iter().map(|piece| u64::from(piece.length)).sum();
        if length as u64 > room {
            return Ok(None);
        }
        let rights = Access::local_rights(true);
        let to = List { pieces, pd: current.pd, rights, write: true, end: End::Remote };
        let found = to.check(port).map_err(|cause| to.stopped(cause));
        let found = found.and_then(|()| to.extents(port, length as u32));
        found.map(Some).map_err(|stopped| match stopped.error {
            AccessError::Miss(_) => Trouble::Wait(stopped),
            AccessError::Denied(cause) => Trouble::Refused(Refusal::Receive(WC_LOC_PROT_ERR, cause)),
        })
    }

    /// The receiver's page that a datagram waited for will not come: the receive request fails, if it is still
    /// the one that was met, and the datagram is dropped.
    pub(super) fn drop_datagram(&self, port: &mut Port<'_>, requester: &Requester, cause: Cause) {
        port.shard().stats.datagrams_dropped += 1;
        let Some(message) = &requester.active else { return };
        let Some(peer) = self.qps.find(message.wqe.dest_qpn) else { return };
        let mut responder = lock(&peer.responder);
        if responder.current.is_some_and(|current| current.ticket == message.met) {
            self.suffer(port, peer, &mut responder, Refusal::Receive(WC_LOC_PROT_ERR, cause));
        }
    }

    /// What the receiver's completion says; the sender's number is to be filled in.
    fn datagram_entry(&self, wqe: &SqWqe, length: usize) -> Cqe {
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let with_imm = wqe.opcode == OP_SEND_IMM;
        Cqe {
            byte_len: length as u32,
            opcode: wqe.opcode,
            imm: if with_imm { wqe.imm } else { 0 },
            flags: flag(with_imm, CQE_WITH_IMM)
                | flag(wqe.flags & WQE_SOLICITED != 0, CQE_SOLICITED)
                | flag(wqe.has_grh != 0, CQE_GRH),
            sl: wqe.sl,
            src_lid: self.config.lid,
            ..Cqe::new_zeroed()
        }
    }

    /// The global route header (InfiniBand 1.4, 8.3): version 6, no traffic class or flow label.
    fn grh(&self, wqe: &SqWqe, length: usize) -> [u8; GRH] {
        /// Next header: an InfiniBand transport header.
        const NEXT_HEADER: u8 = 0x1b;
        const HOP_LIMIT: u8 = 64;
        // Transport headers, payload padded to words, invariant CRC.
        let immediate = if wqe.opcode == OP_SEND_IMM { 4 } else { 0 };
        let packet = 12 + 8 + immediate + length.next_multiple_of(4) + 4;
        let mut grh = [0; GRH];
        grh[0] = 6 << 4;
        grh[4..6].copy_from_slice(&(packet as u16).to_be_bytes());
        grh[6] = NEXT_HEADER;
        grh[7] = HOP_LIMIT;
        grh[8..24].copy_from_slice(&self.gid());
        grh[24..].copy_from_slice(&destination(wqe));
        grh
    }
}

/// What is in a datagram's way at its receiver.
enum Trouble {
    /// A page that may come.
    Wait(Stopped),
    /// The receiver itself.
    Refused(Refusal),
}

/// The destination's GID.
fn destination(wqe: &SqWqe) -> [u8; 16] {
    let mut gid = [0; 16];
    gid[..8].copy_from_slice(&wqe.compare_add.to_le_bytes());
    gid[8..].copy_from_slice(&wqe.swap.to_le_bytes());
    gid
}

/// Reads the sender's data.
fn gather(port: &mut Port<'_>, setup: &Setup, message: &Message, payload: &mut [u8]) -> Result<(), Stopped> {
    if let Some(bytes) = message.inline() {
        payload.copy_from_slice(bytes);
        return Ok(());
    }
    let rights = Access::local_rights(false);
    let from = List { pieces: message.sges(), pd: setup.pd, rights, write: false, end: End::Local };
    from.check(port).map_err(|cause| from.stopped(cause))?;
    let extents = from.extents(port, message.length)?;
    read_extents(port, payload, &extents).map_err(|error| from.stopped(error))
}

/// What is left of a run of memory behind its first `bytes`.
fn skip(place: &[Extent], mut bytes: u64) -> Vec<Extent> {
    let mut left = Vec::with_capacity(place.len());
    for extent in place {
        let gone = bytes.min(extent.bytes);
        bytes -= gone;
        if gone < extent.bytes {
            left.push(Extent { gpa: extent.after(gone), bytes: extent.bytes - gone });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use refault_bus::Gpa;
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn skipping_takes_whole_and_split_pieces() {
        let piece = |gpa, bytes| Extent { gpa: Gpa(gpa), bytes };
        let place = [piece(0x1000, 10), piece(0x3000, 30), piece(0x5000, 5)];
        assert_eq!(skip(&place, 40), [piece(0x5000, 5)]);
        assert_eq!(skip(&place, 12), [piece(0x3002, 28), piece(0x5000, 5)]);
        assert_eq!(skip(&place, 45), []);
    }

    #[test]
    fn a_gid_lies_in_the_request_in_the_order_of_the_wire() {
        let gid: [u8; 16] = std::array::from_fn(|at| at as u8);
        let half = |from: usize| u64::from_le_bytes(gid[from..from + 8].try_into().unwrap());
        let wqe = SqWqe { compare_add: half(0), swap: half(8), ..SqWqe::default() };
        assert_eq!(destination(&wqe), gid);
        assert_eq!(wqe.as_bytes()[32..48], gid);
    }
}
