//! What becomes of a request whose page is missing, and of the pages of its message.

use std::ops::ControlFlow;

use refault_abi::codes::{ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE};
use refault_bus::sync::lock;
use refault_roce::{Psn, rnr_delay_ns};
use refault_transport::{Action, Step};

use super::super::outcome::Leave;
use super::super::turn::Turn;
use super::reply::piece;
use crate::config::RemoteFaults;
use crate::fault::ask::{Ask, Asker};
use crate::memory::access::{AccessError, PageMiss};
use crate::memory::resolve::{Ahead, Window};
use crate::observe::Sampling;
use crate::qp::answer::Half;
use crate::qp::frames::Frame;
use crate::qp::requester::Requester;
use crate::qp::stall::Wait;
use crate::verbs::Piece;

/// Bytes of a message whose pages are asked for with its first packet, at most: that many lookups in one step.
const PREFAULT_MAX: u32 = 4 << 20;
/// Timer code of the RNR NAK that another NAK is to end, unless the queue pair's own is longer: 10.24 ms. If that NAK is
/// lost, the requester comes again after this.
const RESUME_TIMER: u8 = 20;

impl Turn<'_, '_> {
    /// The page that the responder's request needs was asked for, or will be: what becomes of the request until then.
    pub(in crate::engine) fn treat_request_without_page(&mut self) {
        let policy = self.engine.config.remote_faults;
        let (engine, qp) = (self.engine, self.qp);
        let own_timer = lock(&qp.responder).min_rnr_timer;
        let Some(connection) = self.connection() else { return };
        if policy == RemoteFaults::Stall || connection.replying {
            connection.held.iter_mut().for_each(Frame::hold);
            return;
        }
        if connection.held.pop_front().is_none() {
            return;
        }
        let ticket = match connection.stall.wait {
            Wait::Page { ticket } => Some(ticket),
            _ => None,
        };
        match (policy, ticket) {
            (RemoteFaults::Drop, _) | (RemoteFaults::Stall, _) => {}
            (RemoteFaults::ResumeNak, Some(_)) => {
                let is_longer = rnr_delay_ns(own_timer) > rnr_delay_ns(RESUME_TIMER);
                connection.responder.not_ready(if is_longer { own_timer } else { RESUME_TIMER });
                connection.to_announce = ticket;
            }
            (RemoteFaults::Rnr, _) | (RemoteFaults::ResumeNak, None) => {
                connection.responder.not_ready(own_timer)
            }
        }
        connection.asked = ticket;
        engine.end_wait(&mut connection.stall, qp.qpn());
        let stats = &mut self.port.shard().stats;
        stats.requests_dropped_on_fault += u64::from(policy == RemoteFaults::Drop);
        stats.rnr_naks += u64::from(policy != RemoteFaults::Drop);
    }

    /// Tells the requester that a page is there for which it was sent away, if it was promised that.
    pub(super) fn announce_page(&mut self) {
        let qp = self.qp;
        let Some(connection) = self.connection() else { return };
        let is_answered = |ticket: &mut u64| qp.slot.answer(Half::Responder, *ticket).is_some();
        if connection.to_announce.take_if(is_answered).is_some() {
            connection.responder.ready();
        }
    }

    /// Pages that a half asks for at once besides the one that is missing, at most.
    pub(super) fn pages_ahead_in_packets(&self, half: Half) -> u32 {
        let window = self.engine.config.fault_window - 1;
        let prefaults = half == Half::Responder && self.engine.config.packets.prefault;
        if prefaults { window.max(PREFAULT_MAX >> 12) } else { window }
    }

    /// Has all pages asked for that the message of this first packet needs, unless that was done when it came before. Nothing
    /// waits for them.
    pub(super) fn prefault(&mut self, psn: Psn, arrived: &Step) -> ControlFlow<Leave> {
        let Some(connection) = self.connection() else { return ControlFlow::Continue(()) };
        if !arrived.first || connection.prefaulted.replace(psn) == Some(psn) {
            return ControlFlow::Continue(());
        }
        let (piece, rights, write) = match arrived.action {
            Action::Write { address, key, total } => {
                (Piece { addr: address, length: total, key }, ACCESS_REMOTE_WRITE, true)
            }
            Action::Read(source) => (piece(source), ACCESS_REMOTE_READ, false),
            _ => return ControlFlow::Continue(()),
        };
        if !lock(&self.qp.responder).access.contains(rights) {
            return ControlFlow::Continue(());
        }
        let piece = Piece { length: piece.length.min(PREFAULT_MAX), ..piece };
        let list = self.remote(&piece, rights, write);
        let found = list.extents_at(&mut self.port, 0, piece.length.into());
        let Err((stopped, at)) = found else { return ControlFlow::Continue(()) };
        let AccessError::Miss(miss) = stopped.error else { return ControlFlow::Continue(()) };
        let window = Window { at, pages: PREFAULT_MAX >> 12, asked: None };
        let ahead = list.missing_behind(&mut self.port, window);
        ControlFlow::Break(Leave::Prefault { miss, at, ahead })
    }

    /// Claims pages that the responder's message will need. Returns what must be asked for when the guard is left.
    pub(in crate::engine) fn claim_in_advance(
        &mut self,
        worker: usize,
        (miss, at): (PageMiss, u32),
        ahead: Ahead,
    ) -> Vec<Ask> {
        let crate::engine::Engine { faults, config, workers, .. } = self.engine;
        let fabric = self.port.fabric();
        let Requester { setup, connection, .. } = &mut *self.requester;
        let Some(connection) = connection.as_deref_mut() else { return Vec::new() };
        let (stall, half, sampling) = (&mut connection.stall, Half::Responder, &mut Sampling::default());
        Asker { faults, config, fabric, workers, worker, qpn: setup.qpn, half, done: 0, stall, sampling }
            .claim_in_advance(miss, at, ahead)
    }
}
