//! Flushing: in ERR, every request is completed as flushed, the send queue's first.

use refault_abi::codes::WC_WR_FLUSH_ERR;
use refault_abi::queue::Cqe;

use super::{REQUESTS_PER_TURN, Turn};
use crate::Nic;
use crate::cause::Cause;
use crate::dma::Port;
use crate::guard::lock;
use crate::qp::{Qp, Receiving, Requester};
use crate::queue::send::Message;

impl Nic {
    /// Flushes a burst of both queues.
    pub(super) fn flush(&self, port: &mut Port<'_>, qp: &Qp, requester: &mut Requester) -> Turn {
        self.end_wait(requester);
        self.tell_fatal(port, qp, requester);
        if requester.lost {
            return Turn::Over;
        }
        let flushed = self.flush_send(port, qp, requester).and_then(|sent| match sent {
            REQUESTS_PER_TURN.. => Some(sent),
            _ => self.flush_receive(port, qp),
        });
        match flushed {
            Some(REQUESTS_PER_TURN..) => Turn::Again,
            Some(_) => Turn::Over,
            None => {
                requester.lost = true;
                qp.mark_fatal();
                self.tell_fatal(port, qp, requester);
                Turn::Over
            }
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
                if responder.known == 0 {
                    responder.known = port.receive_requests(&responder.setup, responder.consumer).ok()?;
                }
                if responder.known == 0 {
                    return Some(count);
                }
                let index = responder.consumer;
                let wqe = port.receive_request(&responder.setup, index).ok()?;
                responder.consumer = index.wrapping_add(1);
                responder.known -= 1;
                responder.current = Some(Receiving { wqe, index });
            }
            let entry = Cqe { status: WC_WR_FLUSH_ERR, ..Cqe::default() };
            self.complete_receive(port, qp, &mut responder, entry);
        }
        Some(REQUESTS_PER_TURN)
    }
}
