//! What an expected packet must be (IBTA volume 1, §9.7.4.1).

use refault_roce::{Nak, Operation, Packet, Place};

use super::{Action, Arrival, Incoming, Last, Offered, Responder, Source, Step};

/// Most bytes of a message (§9.7.7).
const MESSAGE_MAX: u32 = 1 << 31;

impl Responder {
    pub(super) fn receive_expected(&mut self, packet: &Packet, length: usize) -> Arrival {
        let step = self.step(packet, length);
        let Some((step, length)) = step.filter(|(step, _)| self.takes(step.action)) else {
            self.fail(Nak::InvalidRequest);
            return Arrival::Invalid;
        };
        self.offered = Some(Offered { step, length, ack_request: packet.ack_request });
        Arrival::Execute(step)
    }

    /// The step of the expected packet and the bytes of its payload; `None` if it cannot be here.
    fn step(&self, packet: &Packet, length: usize) -> Option<(Step, u32)> {
        let place = packet.opcode.place();
        let length = u32::try_from(length).ok()?;
        let is_message = matches!(
            packet.opcode.operation(),
            Operation::Send | Operation::SendInvalidate | Operation::Write
        );
        if place.begins() != self.message.is_none() || is_message && !self.fits(place, length) {
            return None;
        }
        let (action, at) = match self.message {
            None => (begin(packet)?, 0),
            Some(Incoming { action, done }) => (go_on(packet, action)?, done),
        };
        let end = at.checked_add(length)?;
        let is_right = match action {
            Action::Send => end <= MESSAGE_MAX,
            Action::Write { total, .. } => {
                total <= MESSAGE_MAX && if place.ends() { end == total } else { end < total }
            }
            Action::Read(source) => length == 0 && source.length <= MESSAGE_MAX,
            Action::AtomicWrite { .. } => length == 8 && packet.reth.length == 8,
            Action::CompareSwap { .. } | Action::FetchAdd { .. } | Action::Flush { .. } => length == 0,
        };
        let last = place.ends().then(|| Last {
            immediate: packet.opcode.has_immediate().then_some(packet.immediate),
            invalidate: (packet.opcode.operation() == Operation::SendInvalidate).then_some(packet.invalidate),
            solicited: packet.solicited,
        });
        is_right.then_some((Step { action, at, first: place.begins(), last }, length))
    }

    /// Whether a packet at this place of a SEND or WRITE may have that much payload.
    fn fits(&self, place: Place, length: u32) -> bool {
        let mtu = self.config.mtu.bytes();
        match place {
            Place::First | Place::Middle => length == mtu,
            Place::Last => (1..=mtu).contains(&length),
            Place::Only => length <= mtu,
        }
    }

    /// Whether READs and atomics are taken at all.
    fn takes(&self, action: Action) -> bool {
        let is_free = matches!(action, Action::Send | Action::Write { .. } | Action::Flush { .. });
        is_free || self.config.max_dest_rd_atomic > 0
    }
}

/// What a message that begins with this packet does.
fn begin(packet: &Packet) -> Option<Action> {
    let refault_roce::Reth { address, key, length } = packet.reth;
    let atomic = packet.atomic;
    let action = match packet.opcode.operation() {
        Operation::Send | Operation::SendInvalidate => Action::Send,
        Operation::Write => Action::Write { address, key, total: length },
        Operation::ReadRequest => Action::Read(Source { address, key, length }),
        Operation::Flush => Action::Flush { range: Source { address, key, length }, flush: packet.feth },
        Operation::AtomicWrite => Action::AtomicWrite { address, key },
        Operation::CompareSwap => Action::CompareSwap {
            address: atomic.address,
            key: atomic.key,
            compare: atomic.compare,
            swap: atomic.swap_or_add,
        },
        Operation::FetchAdd => {
            Action::FetchAdd { address: atomic.address, key: atomic.key, add: atomic.swap_or_add }
        }
        _ => return None,
    };
    Some(action)
}

/// The message's action, if the packet may go on with it.
fn go_on(packet: &Packet, action: Action) -> Option<Action> {
    let matches = match action {
        Action::Send => matches!(packet.opcode.operation(), Operation::Send | Operation::SendInvalidate),
        Action::Write { .. } => packet.opcode.operation() == Operation::Write,
        _ => false,
    };
    matches.then_some(action)
}
