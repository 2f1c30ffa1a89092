//! Frames between queue pairs of one device.

use core::net::Ipv6Addr;
use std::ops::Range;

use refault_bus::sync::lock;
use refault_roce::{Envelope, Packet, frame};

use super::super::turn::Turn;
use crate::cause::Cause;
use crate::config::Loopback;
use crate::qp::Qp;

impl<'e> Turn<'e, '_> {
    /// The queue pair at the other end, if it is there.
    pub(super) fn receiver(&self) -> Option<&'e Qp> {
        self.engine.peer(&self.requester.attributes)
    }

    /// Whether the other end should work before it gets more.
    pub(super) fn is_receiver_crowded(&self) -> bool {
        self.receiver().is_some_and(|receiver| receiver.inbox.is_crowded())
    }

    /// A frame of this packet with room for a payload of `length` bytes, and where that is.
    pub(super) fn frame(&self, packet: &Packet, length: usize) -> (Vec<u8>, Range<usize>) {
        // Both ends are the port's own address.
        let gid = Ipv6Addr::from(self.engine.config.gid());
        let mut bytes = Vec::new();
        let place = frame::begin(&mut bytes, &Envelope::v6(gid, gid), packet, length).unwrap_or_default();
        (bytes, place)
    }

    /// Sends a frame, which may be lost. `cause` says more about a refusal.
    pub(super) fn transmit(&mut self, bytes: Vec<u8>, cause: Option<Cause>) {
        let sent = !self.loses_frame() && self.put(bytes, cause);
        let stats = &mut self.port.shard().stats;
        stats.packets += 1;
        stats.packets_lost += u64::from(!sent);
    }

    /// Puts a frame into the other end's inbox; `false` if it does not expect this queue pair, or there is no room.
    fn put(&self, bytes: Vec<u8>, cause: Option<Cause>) -> bool {
        let source = self.qp.qpn();
        let Some(receiver) = self.receiver() else { return false };
        if lock(&receiver.responder).peer_qpn != source {
            return false;
        }
        let frame = self.engine.frames.frame(self.requester.setup.context, source, cause, bytes);
        let taken = frame.is_some_and(|frame| receiver.inbox.put(frame));
        self.engine.workers.schedule(receiver);
        taken
    }

    /// Whether the configured loss takes this frame.
    fn loses_frame(&self) -> bool {
        let Loopback::Packets { loss_ppm } = self.engine.config.loopback else { return false };
        loss_ppm > 0 && self.engine.loss.next_below(1_000_000) < u64::from(loss_ppm)
    }
}
