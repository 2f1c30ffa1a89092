//! The wire of an experiment: a link of `refault_link` on the virtual clock, with a mirror at its far end.
//!
//! What the NIC's port sends comes back to it as if from another port, [`FAR_END`](crate::machine::FAR_END): queue pairs of
//! one NIC meet over a wire, and the NIC takes them for those of two. Requests pass the link from the NIC's port to that
//! one, responses the other way.

mod capture;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use refault_bus::sync::lock;
use refault_bus::wire::{EthernetFrame, Wire, WirePort};
use refault_link::{Counters, Direction, End, Event, Impairments, Link};
use refault_model::ModelError;
use refault_model::nic::EventQueue;
use refault_nic::Nic;
use refault_roce::frame;

pub use self::capture::CaptureTo;
use self::capture::WireCapture;
use super::agenda::SimEvent;
use super::timeline::Timeline;
use crate::machine::{LabMachine, NEAR_END};

/// MSI-X vector of events of the port, of which there are none: the link never takes the signal away.
const PORT_VECTOR: u16 = 3;

/// The wire between the NIC's port and the mirror.
pub(super) struct LabWire {
    timeline: Arc<Timeline>,
    nic: Weak<Nic>,
    /// Requests wait while the NIC's port has no room.
    pauses: bool,
    /// What happens to frames, in each direction.
    sends: Impairments,
    state: Mutex<State>,
    /// Kept for the port, which names it.
    _events: EventQueue,
}

struct State {
    link: Link,
    /// If the wire pauses: requests that have not entered it, in order.
    waiting: VecDeque<EthernetFrame>,
    /// One is entering: a [`SimEvent::Left`] is scheduled.
    is_sending: bool,
    capture: Option<WireCapture>,
    /// Virtual time of the next scheduled [`SimEvent::Arrivals`].
    scheduled_ns: u64,
}

impl LabWire {
    /// Plugs the wire into the machine's NIC, and has the driver set the port up.
    pub(super) fn plug(
        timeline: Arc<Timeline>,
        machine: &LabMachine,
        (sends, pauses): (&Impairments, bool),
    ) -> Result<Arc<Self>, ModelError> {
        let link = Link::new([sends.clone(), sends.clone()], timeline.now_ns());
        let state = Mutex::new(State {
            link,
            waiting: VecDeque::new(),
            is_sending: false,
            capture: None,
            scheduled_ns: u64::MAX,
        });
        let events = machine.driver.create_event_queue(PORT_VECTOR, 6)?;
        let eqn = events.number();
        let (nic, sends) = (Arc::downgrade(&machine.nic), sends.clone());
        let wire = Arc::new(Self { timeline, nic, pauses, sends, state, _events: events });
        machine.nic.plug(wire.clone());
        machine.nic.set_carrier(true);
        machine.driver.open_port(&NEAR_END, eqn)?;
        Ok(wire)
    }

    /// Captures all frames from now on.
    ///
    /// # Errors
    /// Those of the writer.
    pub(super) fn capture(&self, to: CaptureTo) -> io::Result<()> {
        lock(&self.state).capture = Some(WireCapture::begin(to)?);
        Ok(())
    }

    /// Ends the capture, if there is one.
    ///
    /// # Errors
    /// Those of the writer, if any since the capture began.
    pub(super) fn end_capture(&self) -> io::Result<()> {
        let capture = lock(&self.state).capture.take();
        capture.map_or(Ok(()), WireCapture::finish)
    }

    /// A port sends a frame.
    pub(super) fn sent(&self, mut frame: EthernetFrame) {
        if is_response(&frame.bytes) {
            mirror(&mut frame.bytes);
            return self.enter(End::B, frame);
        }
        if self.pauses {
            lock(&self.state).waiting.push_back(frame);
            return self.go_on();
        }
        self.enter(End::A, frame);
    }

    /// The last request has left.
    pub(super) fn left(&self) {
        lock(&self.state).is_sending = false;
        self.go_on();
    }

    /// Lets the next request that waits enter, if there is room and the one before it has left: what has entered arrives.
    pub(super) fn go_on(&self) {
        let mut state = lock(&self.state);
        if state.is_sending || state.waiting.is_empty() || !self.has_room() {
            return;
        }
        let Some(frame) = state.waiting.pop_front() else { return };
        state.is_sending = true;
        drop(state);
        self.timeline.schedule(self.sends.sending_ns(frame.bytes.len()), SimEvent::Left);
        self.enter(End::A, frame);
    }

    fn has_room(&self) -> bool {
        self.nic.upgrade().is_none_or(|nic| nic.has_room())
    }

    /// A frame enters the link.
    fn enter(&self, from: End, frame: EthernetFrame) {
        let now_ns = self.timeline.now_ns();
        let mut state = lock(&self.state);
        let fate = state.link.decide(from, &frame, now_ns);
        if let Some(capture) = &mut state.capture {
            capture.add((from, Direction::Out), now_ns, &frame, fate.comment().as_deref());
        }
        let arrived = state.link.carry(from, frame, &fate);
        self.schedule(&mut state);
        if let Some(frame) = arrived {
            self.deliver(state, vec![(from.other(), frame)]);
        }
    }

    /// Frames arrive that are due by now.
    pub(super) fn arrive(&self) {
        let now_ns = self.timeline.now_ns();
        let mut state = lock(&self.state);
        if state.scheduled_ns > now_ns {
            // Superseded by an earlier arrival.
            return;
        }
        state.scheduled_ns = u64::MAX;
        let mut arrived = Vec::new();
        while let Some(event) = state.link.due(now_ns) {
            if let Event::Frame { to, frame } = event {
                arrived.push((to, frame));
            }
        }
        self.schedule(&mut state);
        self.deliver(state, arrived);
    }

    /// What has happened to all frames.
    pub(super) fn counters(&self) -> [Counters; 2] {
        let state = lock(&self.state);
        End::BOTH.map(|end| state.link.counters(end))
    }

    fn schedule(&self, state: &mut State) {
        if let Some(at_ns) = state.link.next_due().filter(|&at_ns| at_ns < state.scheduled_ns) {
            state.scheduled_ns = at_ns;
            self.timeline.schedule_at(at_ns.max(self.timeline.now_ns()), SimEvent::Arrivals);
        }
    }

    fn deliver(&self, mut state: MutexGuard<'_, State>, frames: Vec<(End, EthernetFrame)>) {
        let now_ns = self.timeline.now_ns();
        if let Some(capture) = &mut state.capture {
            frames.iter().for_each(|(to, frame)| capture.add((*to, Direction::In), now_ns, frame, None));
        }
        // What arrives may be answered at once.
        drop(state);
        let Some(nic) = self.nic.upgrade() else { return };
        for (to, mut frame) in frames {
            if to == End::B {
                mirror(&mut frame.bytes);
            }
            nic.receive(frame);
        }
    }
}

impl Wire for LabWire {
    /// Enters the wire as an event of its own: the clock of the sender's step may be ahead of others that send before.
    fn send(&self, frame: EthernetFrame) {
        self.timeline.schedule(0, SimEvent::Sent(frame));
    }
}

fn is_response(bytes: &[u8]) -> bool {
    frame::parse_unsealed(bytes).is_ok_and(|received| received.packet.opcode.is_response())
}

/// Swaps sender and receiver of a frame over IPv6.
fn mirror(bytes: &mut [u8]) {
    const MACS: usize = 6;
    const ADDRESSES: std::ops::Range<usize> = 22..54;
    for (place, half) in [(0..2 * MACS, MACS), (ADDRESSES, ADDRESSES.len() / 2)] {
        if let Some(both) = bytes.get_mut(place) {
            both.rotate_left(half);
        }
    }
}

#[cfg(test)]
mod tests {
    use refault_roce::{Addresses, Envelope, Opcode, Packet, Psn};

    use super::*;
    use crate::machine::FAR_END;

    #[test]
    fn a_mirrored_packet_is_the_same_from_the_other_end() {
        let [near, far] = [NEAR_END, FAR_END].map(|end| end.gid.into());
        let mut envelope = Envelope::v6(near, far);
        (envelope.source_mac, envelope.dest_mac) = (NEAR_END.mac, FAR_END.mac);
        let opcode = Opcode::all().find(|opcode| opcode.is_response()).expect("an answer");
        let packet = Packet::new(opcode, 17, Psn::new(3));
        let mut bytes = Vec::new();
        frame::begin(&mut bytes, &envelope, &packet, 0).expect("a short packet");
        mirror(&mut bytes);
        let back = frame::parse_unsealed(&bytes).expect("a packet");
        assert_eq!(back.packet, packet);
        assert_eq!((back.envelope.source_mac, back.envelope.dest_mac), (FAR_END.mac, NEAR_END.mac));
        let Addresses::V6 { source, dest, .. } = back.envelope.addresses else { panic!("IPv6") };
        assert_eq!((source, dest), (far, near));
        assert!(is_response(&bytes));
    }
}
