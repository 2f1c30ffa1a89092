//! What arrives at a queue pair without a connection: a datagram, or an Ethernet frame.

use refault_abi::codes::{QPS_RTR, QPS_RTS, QPS_SQD, QPS_SQE, WC_LOC_PROT_ERR, WC_LOC_QP_OP_ERR};
use refault_bus::bits::low_u32;
use refault_bus::sync::lock;

use super::super::Engine;
use super::super::outcome::Refusal;
use crate::cause::Cause;
use crate::memory::access::{AccessError, Extent, Stopped};
use crate::memory::copy::write_extents;
use crate::memory::list::List;
use crate::memory::port::Port;
use crate::memory::resolve::Access;
use crate::qp::Qp;
use crate::qp::responder::Responder;
use crate::verbs::{Completion, End};

/// What has arrived.
pub(in crate::engine) struct Arrival<'a> {
    /// The queue pair that it is for.
    pub(in crate::engine) qpn: u32,
    /// The Q_Key that it bears; a frame has none.
    pub(in crate::engine) qkey: Option<u32>,
    /// All bytes that take room in the receive request.
    pub(in crate::engine) bytes: &'a [u8],
    /// How many of them are not written.
    pub(in crate::engine) unwritten: usize,
    /// What the completion says besides its length.
    pub(in crate::engine) completion: Completion,
}

/// A page of the receiver is missing, for the receive request with this ticket.
pub(in crate::engine) struct ReceiverMiss {
    pub(in crate::engine) stopped: Stopped,
    pub(in crate::engine) ticket: u64,
}

impl Engine {
    /// Puts what has arrived into the receiver's memory. Returns whether it was received.
    ///
    /// # Errors
    ///
    /// A page of the receiver is missing.
    pub(in crate::engine) fn receive_arrival(
        &self,
        port: &mut Port<'_>,
        qp: &Qp,
        arrival: &Arrival<'_>,
    ) -> Result<bool, ReceiverMiss> {
        let Arrival { qpn, qkey, bytes, unwritten, completion } = *arrival;
        let mut responder = lock(&qp.responder);
        let listens = matches!(qp.state(), QPS_RTR | QPS_RTS | QPS_SQD | QPS_SQE);
        // The slot may have another queue pair by now.
        let same = responder.setup.qpn == qpn && !responder.setup.is_connected();
        if !listens || !same || qkey.is_some_and(|key| key != responder.qkey) {
            return Ok(false);
        }
        let place = match self.place_for(port, &mut responder, bytes.len()) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(false),
            Err(Trouble::Wait(stopped)) => {
                let ticket = responder.current.map_or(0, |current| current.ticket);
                return Err(ReceiverMiss { stopped, ticket });
            }
            Err(Trouble::Refused(refusal)) => {
                self.fail_responder(port, qp, &mut responder, refusal);
                return Ok(false);
            }
        };
        let written = match unwritten {
            0 => write_extents(port, bytes, &place),
            _ => write_extents(port, &bytes[unwritten..], &skip(&place, unwritten as u64)),
        };
        if written.is_err() {
            let lost = Refusal::Receive(WC_LOC_PROT_ERR, Some(Cause::NotMemory));
            self.fail_responder(port, qp, &mut responder, lost);
            return Ok(false);
        }
        let completion = Completion { length: low_u32(bytes.len() as u64), ..completion };
        self.complete_receive(port, qp, &mut responder, completion);
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
        let malformed = Trouble::Refused(Refusal::Receive(WC_LOC_QP_OP_ERR, None));
        let pieces = current.taken.request.pieces.ok_or(malformed)?;
        if length as u64 > pieces.bytes() {
            return Ok(None);
        }
        let rights = Access::local_rights(true);
        let to = List { pieces: &pieces, pd: current.taken.pd, rights, write: true, end: End::Remote };
        let found = to.check(port).map_err(|cause| to.stopped(cause));
        let found = found.and_then(|()| to.extents(port, length as u64));
        found.map(Some).map_err(|stopped| match stopped.error {
            AccessError::Miss(_) => Trouble::Wait(stopped),
            AccessError::Denied(cause) => Trouble::Refused(Refusal::Receive(WC_LOC_PROT_ERR, Some(cause))),
        })
    }
}

/// Why a receiver does not take a datagram.
enum Trouble {
    /// A page is missing, and may come.
    Wait(Stopped),
    /// The receive request, or the receive queue, fails.
    Refused(Refusal),
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

    use super::*;

    #[test]
    fn skipping_takes_whole_and_split_pieces() {
        let piece = |gpa, bytes| Extent { gpa: Gpa(gpa), bytes };
        let place = [piece(0x1000, 10), piece(0x3000, 30), piece(0x5000, 5)];
        assert_eq!(skip(&place, 40), [piece(0x5000, 5)]);
        assert_eq!(skip(&place, 12), [piece(0x3002, 28), piece(0x5000, 5)]);
        assert_eq!(skip(&place, 45), []);
    }
}
