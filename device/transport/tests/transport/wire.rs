//! A wire between two ends: real frames, on a virtual clock.

use std::collections::BTreeMap;

use refault_roce::{Envelope, FlushIcrc, Packet, frame};

use crate::Random;

/// What a wire does to frames, in thousandths, and how long they take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    /// One bit is flipped.
    pub(crate) corrupt: u32,
    /// Comes as many as twenty frames later.
    pub(crate) reorder: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Requester,
    Responder,
}

const DELAY_NS: u64 = 1000;
/// Between two frames.
const FRAME_NS: u64 = 10;

#[derive(Debug)]
pub(crate) struct Wire {
    faults: Faults,
    random: Random,
    /// Frames in flight, by arrival and number.
    frames: BTreeMap<(u64, u64), (End, Vec<u8>)>,
    sent: u64,
    /// When the last one of those that are in order arrives.
    last_ns: u64,
    pub(crate) lost: u64,
}

impl Wire {
    pub(crate) fn new(faults: Faults, random: Random) -> Self {
        Self { faults, random, frames: BTreeMap::new(), sent: 0, last_ns: 0, lost: 0 }
    }

    pub(crate) fn send(&mut self, now_ns: u64, to: End, packet: &Packet, payload: &[u8]) {
        let envelope = Envelope::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut bytes = Vec::new();
        let place = frame::begin(&mut bytes, &envelope, packet, payload.len()).expect("it fits");
        bytes[place].copy_from_slice(payload);
        frame::seal(&mut bytes, FlushIcrc::Standard).expect("it is a frame");
        let copies = 1 + u64::from(self.random.chance(self.faults.duplicate));
        for _ in 0..copies {
            self.transmit(now_ns, to, bytes.clone());
        }
    }

    fn transmit(&mut self, now_ns: u64, to: End, mut bytes: Vec<u8>) {
        if self.random.chance(self.faults.loss) {
            self.lost += 1;
            return;
        }
        if self.random.chance(self.faults.corrupt) {
            let at = self.random.below(u32::try_from(bytes.len()).unwrap()) as usize;
            bytes[at] ^= 1 << self.random.below(8);
        }
        let late = if self.random.chance(self.faults.reorder) { u64::from(self.random.below(20)) } else { 0 };
        self.sent += 1;
        self.last_ns = (self.last_ns + FRAME_NS).max(now_ns + DELAY_NS);
        let at = self.last_ns + late * FRAME_NS;
        self.frames.insert((at, self.sent), (to, bytes));
    }

    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.frames.keys().next().map(|&(at, _)| at)
    }

    /// The next frame that has arrived, unless the receiver drops it as a whole.
    pub(crate) fn arrive(&mut self, now_ns: u64) -> Option<Option<(End, Packet, Vec<u8>)>> {
        let entry = self.frames.first_entry().filter(|entry| entry.key().0 <= now_ns)?;
        let (to, bytes) = entry.remove();
        match frame::parse(&bytes) {
            Ok(received) => Some(Some((to, received.packet, received.payload.to_vec()))),
            Err(_) => {
                self.lost += 1;
                Some(None)
            }
        }
    }
}
