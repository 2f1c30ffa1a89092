//! Flushing: in ERR, every request is completed as flushed, the send queue's first.

use refault_abi::codes::WC_WR_FLUSH_ERR;
use refault_abi::event::QP_EVENT_LAST_WQE_REACHED;
use refault_abi::queue::Cqe;

use super::receive::take_own;
use super::{REQUESTS_PER_TURN, Turn};
use crate::Nic;
use crate::cause::Cause;
use crate::memory::guard::lock;
use crate::memory::port::Port;
use crate::qp::{Qp, Requester};
use crate::queue::send::Message;

impl Nic {
    /// Flushes a burst of both queues.
    pub(super) fn flush(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester) -> Turn {
        self.end_wait(requester);
        self.tell_fatal(port, qp, requester);
        if requester.lost {
            return Turn::Over;
        }
        let shared = requester.setup.srqn != 0;
        let flushed = self.flush_send(port, qp, requester).and_then(|sent| match sent {
            REQUESTS_PER_TURN.. => Some(sent),
            _ if shared => Some(self.flush_held(port, qp)),
            _ => self.flush_receive(port, qp),
        });
        match flushed {
            Some(REQUESTS_PER_TURN..) => Turn::Again,
            Some(_) => {
                self.tell_last(port, requester);
                Turn::Over
            }
            None => {
                requester.lost = true;
                qp.mark_fatal();
                self.tell_fatal(port, qp, requester);
                if shared {
                    self.flush_held(port, qp);
                }
                self.tell_last(port, requester);
                Turn::Over
            }
        }
    }

    /// Flushes a burst of the send queue alone: in SQE, receives go on.
    pub(super) fn flush_sends(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester) -> Turn {
        match self.flush_send(port, qp, requester) {
            Some(REQUESTS_PER_TURN..) => Turn::Again,
            Some(_) => Turn::Over,
            None => {
                self.fail_qp(qp, true);
                Turn::Over
            }
        }
    }

    /// Flushes the receive request that was taken from a shared queue, if there is one: all others are not this
    /// queue pair's.
    fn flush_held(&self, port: &mut Port<'_>, qp: &Qp) -> u32 {
        let mut responder = lock(&qp.responder);
        let held = u32::from(responder.current.is_some());
        let entry = Cqe { status: WC_WR_FLUSH_ERR, ..Cqe::default() };
        self.complete_receive(port, qp, &mut responder, entry);
        held
    }

    /// Tells the driver, once, that nothing more is taken from the shared queue.
    fn tell_last(&self, port: &mut Port<'_>, requester: &mut Requester) {
        if requester.setup.srqn != 0 && !std::mem::replace(&mut requester.told_last, true) {
            self.tell_qp_event(port, &requester.setup, QP_EVENT_LAST_WQE_REACHED);
        }
    }

    /// Flushes send requests; how many, or `None` if the ring cannot be read.
    fn flush_send(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester) -> Option<u32> {
        for count in 0..REQUESTS_PER_TURN {
            if requester.active.is_none() {
                if requester.known == 0 {
                    requester.known = port.send_requests(&requester.setup, requester.consumer).ok()?;
                }
                if requester.known == 0 {
                    return Some(count);
                }
                let wqe = port.send_request(&requester.setup, requester.consumer).ok()?;
                requester.active = Some(Message::malformed(wqe));
            }
            self.complete_request(port, qp, requester, WC_WR_FLUSH_ERR, Cause::None);
        }
        Some(REQUESTS_PER_TURN)
    }

    /// Flushes receive requests; how many, or `None` if the ring cannot be read.
    fn flush_receive(&self, port: &mut Port<'_>, qp: &Qp) -> Option<u32> {
        let mut responder = lock(&qp.responder);
        for count in 0..REQUESTS_PER_TURN {
            if responder.current.is_none() {
                responder.current = take_own(port, &mut responder).ok()?;
            }
            if responder.current.is_none() {
                return Some(count);
            }
            let entry = Cqe { status: WC_WR_FLUSH_ERR, ..Cqe::default() };
            self.complete_receive(port, qp, &mut responder, entry);
        }
        Some(REQUESTS_PER_TURN)
    }
}
