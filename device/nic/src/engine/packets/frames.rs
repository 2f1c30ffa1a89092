//! Frames between queue pairs of one device.

use core::net::Ipv6Addr;
use std::ops::Range;

use refault_roce::{Envelope, Packet, frame};

use super::super::turn::Turn;
use crate::cause::Cause;
use crate::config::Loopback;
use crate::qp::Qp;
use crate::qp::inbox::Frame;

impl<'e> Turn<'e, '_> {
    /// The queue pair at the other end, if it is there and has room.
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
        let source = self.qp.qpn();
        let taken = self.receiver().filter(|_| !self.loses_frame()).is_some_and(|receiver| {
            let taken = receiver.inbox.put(Frame { source, cause, bytes });
            self.engine.workers.schedule(receiver);
            taken
        });
        let stats = &mut self.port.shard().stats;
        stats.packets += 1;
        stats.packets_lost += u64::from(!taken);
    }

    /// Whether the configured loss takes this frame.
    fn loses_frame(&self) -> bool {
        let Loopback::Packets { loss_ppm } = self.engine.config.loopback else { return false };
        loss_ppm > 0 && self.engine.frames.next_below(1_000_000) < u64::from(loss_ppm)
    }
}
