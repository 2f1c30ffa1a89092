//! Flushing: in ERR, every request completes as flushed, the send queue's first (InfiniBand 1.4, 10.3.1).

use refault_abi::codes::WC_WR_FLUSH_ERR;
use refault_abi::event::QP_EVENT_LAST_WQE_REACHED;
use refault_bus::sync::lock;

use super::outcome::TurnEnd;
use super::turn::{REQUESTS_PER_TURN, Turn};
use crate::qp::connection::Posted;
use crate::qp::responder::Receiving;
use crate::verbs::{Completion, SendRequest};

impl Turn<'_, '_> {
    /// Flushes a burst of both queues.
    pub(super) fn flush(&mut self) -> TurnEnd {
        self.engine.end_wait(&mut self.requester.stall, self.qp.qpn());
        self.qp.inbox.clear();
        self.raise_fatal();
        if self.requester.lost {
            return TurnEnd::Idle;
        }
        if !std::mem::replace(&mut self.requester.noted_error, true) {
            // Before the rings are read. If it fails, so does that.
            let _ = self.engine.layout.note_error(&mut self.port, &self.requester.setup.rings);
        }
        let shared = self.requester.setup.srqn != 0;
        let flushed = self.flush_send().and_then(|sent| match sent {
            REQUESTS_PER_TURN.. => Some(sent),
            _ if shared => Some(self.flush_held()),
            _ => self.flush_receive(),
        });
        match flushed {
            Some(REQUESTS_PER_TURN..) => return TurnEnd::Again,
            Some(_) => {}
            None => {
                self.requester.lost = true;
                self.qp.mark_fatal();
                self.raise_fatal();
                if shared {
                    self.flush_held();
                }
            }
        }
        self.raise_last();
        TurnEnd::Idle
    }

    /// Flushes a burst of the send queue alone: in SQE, receives go on.
    pub(super) fn flush_sends(&mut self) -> TurnEnd {
        match self.flush_send() {
            Some(REQUESTS_PER_TURN..) => TurnEnd::Again,
            Some(_) => TurnEnd::Idle,
            None => {
                self.engine.fail_qp(self.qp, true);
                TurnEnd::Idle
            }
        }
    }

    /// Flushes the receive request that was taken from a shared queue, if there is one: all others are not this
    /// queue pair's.
    fn flush_held(&mut self) -> u32 {
        let mut responder = lock(&self.qp.responder);
        let held = u32::from(responder.current.is_some());
        self.engine.complete_receive(&mut self.port, self.qp, &mut responder, flushed());
        held
    }

    /// Sends the event, once, that nothing more is taken from the shared queue.
    fn raise_last(&mut self) {
        if self.requester.setup.srqn != 0 && !std::mem::replace(&mut self.requester.reported_last, true) {
            self.raise(QP_EVENT_LAST_WQE_REACHED);
        }
    }

    /// Flushes send requests. Returns how many, or `None` if the ring cannot be read.
    fn flush_send(&mut self) -> Option<u32> {
        let layout = self.engine.layout;
        for count in 0..REQUESTS_PER_TURN {
            if let Some(posted) = self.take_posted() {
                self.complete_posted(&posted, WC_WR_FLUSH_ERR, None);
                continue;
            }
            let requester = &mut *self.requester;
            if !requester.active.is_some() {
                let (rings, is_datagram) = (&requester.setup.rings, requester.setup.is_datagram());
                if requester.known == 0 {
                    requester.known = layout.sends_waiting(&mut self.port, rings, requester.consumer).ok()?;
                }
                if requester.known == 0 {
                    return Some(count);
                }
                let mut request = SendRequest::NONE;
                let index = requester.consumer;
                layout.send_request(&mut self.port, rings, index, is_datagram, &mut request).ok()?;
                *requester.active.begin() = SendRequest::unexecuted(request.id, request.opcode);
            }
            self.complete_request(WC_WR_FLUSH_ERR, None);
        }
        Some(REQUESTS_PER_TURN)
    }

    /// The oldest request in flight. Nothing is sent or received any more.
    fn take_posted(&mut self) -> Option<Posted> {
        let connection = self.requester.connection.as_deref_mut()?;
        connection.held.clear();
        self.engine.end_wait(&mut connection.stall, self.qp.qpn());
        connection.posted.pop_front()
    }

    /// Flushes receive requests. Returns how many, or `None` if the ring cannot be read.
    fn flush_receive(&mut self) -> Option<u32> {
        let mut responder = lock(&self.qp.responder);
        for count in 0..REQUESTS_PER_TURN {
            if responder.current.is_none() {
                let taken = self.engine.take_own(&mut self.port, &mut responder).ok()?;
                responder.current = taken.map(|taken| Receiving { taken, ticket: 0 });
            }
            if responder.current.is_none() {
                return Some(count);
            }
            self.engine.complete_receive(&mut self.port, self.qp, &mut responder, flushed());
        }
        Some(REQUESTS_PER_TURN)
    }
}

fn flushed() -> Completion {
    Completion { status: WC_WR_FLUSH_ERR, ..Completion::default() }
}
