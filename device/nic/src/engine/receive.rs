//! Receive requests, from the ring to their completion, and completions of both kinds.

use super::Engine;
use crate::memory::access::AccessError;
use crate::memory::port::Port;
use crate::qp::Qp;
use crate::qp::responder::{Receiving, Responder};
use crate::queue::completion::{PostError, TimerNeeded};
use crate::queue::shared::Taken;
use crate::verbs::Completion;

impl Engine {
    /// Makes the next receive request, of the queue pair's own ring or of its shared queue, the current one, unless
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
            0 => self.take_own(port, responder)?,
            srqn => self.srqs.take(port, &self.events, srqn)?,
        };
        let ticket = if responder.setup.is_datagram() { self.faults.ticket() } else { 0 };
        responder.current = taken.map(|taken| Receiving { taken, ticket });
        Ok(responder.current.is_some())
    }

    /// The next receive request of the queue pair's own ring.
    pub(super) fn take_own(
        &self,
        port: &mut Port<'_>,
        responder: &mut Responder,
    ) -> Result<Option<Taken>, AccessError> {
        let Responder { setup, consumer, known, .. } = responder;
        if *known == 0 {
            *known = self.layout.receives_waiting(port, &setup.rings, *consumer)?;
            if *known == 0 {
                return Ok(None);
            }
        }
        let index = *consumer;
        let request = self.layout.receive_request(port, &setup.rings, index)?;
        *consumer = index.wrapping_add(1);
        *known -= 1;
        Ok(Some(Taken { request, index, pd: setup.pd }))
    }

    /// Completes the current receive request. `completion` says how; the rest is filled in here.
    pub(super) fn complete_receive(
        &self,
        port: &mut Port<'_>,
        qp: &Qp,
        responder: &mut Responder,
        completion: Completion,
    ) {
        let Some(Receiving { taken, .. }) = responder.current.take() else { return };
        let is_datagram = responder.setup.is_datagram();
        let completion = Completion {
            id: taken.request.id,
            index: taken.index,
            qpn: responder.setup.qpn,
            src_qpn: if is_datagram { completion.src_qpn } else { responder.peer_qpn },
            is_receive: true,
            timestamp_ns: self.memory.fabric.now_ns(),
            ..completion
        };
        self.post(port, qp, responder.setup.recv_cq, &completion);
    }

    /// Writes a completion. If it cannot be written, the queue pair is lost, and all others of that queue.
    pub(super) fn post(&self, port: &mut Port<'_>, qp: &Qp, cqn: u32, completion: &Completion) {
        match self.cqs.post(port, &self.events, cqn, completion) {
            Ok(TimerNeeded::No) => {}
            Ok(TimerNeeded::Yes) => self.workers.moderate(cqn),
            Err(PostError::JustFailed) => self.fail_users_of_cq(cqn),
            Err(PostError::Dead) => self.fail_qp(qp, true),
        }
    }

    /// A completion queue failed: so do all queue pairs that use it.
    fn fail_users_of_cq(&self, cqn: u32) {
        self.qps.iter().filter(|qp| qp.uses_cq(cqn)).for_each(|qp| self.fail_qp(qp, true));
    }
}
