//! Receive requests on their way from the ring to their completion.

use std::sync::atomic::Ordering;

use refault_abi::queue::{CQE_RECEIVE, Cqe};

use crate::Nic;
use crate::memory::port::{AccessError, Port};
use crate::qp::{Qp, Receiving, Responder};

impl Nic {
    /// Makes the next receive request, of the queue pair's own ring or of its shared one, the current one, unless
    /// there is one; `false` if none was posted.
    pub(super) fn take_receive(
        &self,
        port: &mut Port<'_>,
        responder: &mut Responder,
    ) -> Result<bool, AccessError> {
        if responder.current.is_some() {
            return Ok(true);
        }
        let taken = match responder.setup.srqn {
            0 => take_own(port, responder)?,
            srqn => self.srqs.take(port, &self.events, srqn)?,
        };
        let ticket = match responder.setup.is_datagram() {
            true => self.tickets.fetch_add(1, Ordering::Relaxed),
            false => 0,
        };
        responder.current = taken.map(|taken| Receiving { ticket, ..taken });
        Ok(responder.current.is_some())
    }

    /// The current receive request is done with. `entry` says how; the rest is filled in here.
    pub(super) fn complete_receive(
        &self,
        port: &mut Port<'_>,
        qp: &Qp,
        responder: &mut Responder,
        entry: Cqe,
    ) {
        let Some(Receiving { wqe, index, .. }) = responder.current.take() else { return };
        let src_qpn = if responder.setup.is_datagram() { entry.src_qpn } else { responder.peer_qpn };
        let entry = Cqe {
            wr_id: wqe.wr_id,
            timestamp_ns: self.fabric.now_ns(),
            qpn: responder.setup.qpn,
            src_qpn,
            wqe_index: index,
            flags: entry.flags | CQE_RECEIVE,
            ..entry
        };
        self.post(port, qp, responder.setup.recv_cq, entry);
    }
}

/// The next receive request of the queue pair's own ring.
pub(super) fn take_own(
    port: &mut Port<'_>,
    responder: &mut Responder,
) -> Result<Option<Receiving>, AccessError> {
    let Responder { setup, consumer, known, .. } = responder;
    if *known == 0 {
        *known = port.receive_requests(setup, *consumer)?;
        if *known == 0 {
            return Ok(None);
        }
    }
    let index = *consumer;
    let wqe = port.receive_request(setup, index)?;
    *consumer = index.wrapping_add(1);
    *known -= 1;
    Ok(Some(Receiving { wqe, index, pd: setup.pd, ticket: 0 }))
}
