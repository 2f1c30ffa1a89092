//! A link between two ports.

use std::collections::VecDeque;

use refault_bus::wire::EthernetFrame;

use crate::direction::{Counters, Direction};
use crate::fate::{Fate, Loss};
use crate::impairments::Impairments;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The first port.
    A,
    /// The second one.
    B,
}

impl End {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// 0 or 1.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What happens at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame arrives.
    Frame {
        /// Where.
        to: End,
        /// The frame.
        frame: EthernetFrame,
    },
    /// Both ports have a signal from now on, or none.
    Carrier(bool),
}

/// A link between two ports. It has no clock: each call says what time it is, in nanoseconds, and no earlier than the one
/// before.
#[derive(Debug)]
pub struct Link {
    /// What the ports send, by the sender's end.
    directions: [Direction; 2],
    /// Times without a link that are still to come, by their start: when, and how long.
    outages: VecDeque<(u64, u64)>,
    /// The latest time without a link.
    down_from_ns: u64,
    down_until_ns: u64,
    /// What the ports know.
    has_carrier: bool,
    /// There was an outage since; they hear of it even if it is over.
    is_news: bool,
    now_ns: u64,
}

impl Link {
    /// A link that begins at `start_ns`. `sends` is what happens to frames that end A and end B send.
    #[must_use]
    pub fn new(sends: [Impairments; 2], start_ns: u64) -> Self {
        let outages = sends.iter().flat_map(|sends| &sends.outages);
        let mut outages: Vec<_> = outages.map(|(at, long)| (start_ns.saturating_add(*at), *long)).collect();
        outages.sort_unstable();
        outages.dedup();
        let [a, b] = sends;
        Self {
            directions: [Direction::new(a, 0), Direction::new(b, 1)],
            outages: outages.into(),
            down_from_ns: 0,
            down_until_ns: 0,
            has_carrier: true,
            is_news: false,
            now_ns: start_ns,
        }
    }

    /// Decides what becomes of a frame that `from` sends. [`Self::carry`] must follow, before anything else is called.
    pub fn decide(&mut self, from: End, frame: &EthernetFrame, now_ns: u64) -> Fate {
        self.advance(now_ns);
        let is_down = self.is_down_at(self.now_ns);
        let decision = self.directions[from.index()].decide(frame, self.now_ns, is_down);
        if let Some(ns) = decision.outage_ns {
            self.go_down(self.now_ns, ns);
        }
        decision.fate
    }

    /// Puts a frame on its way, or loses it. Returns it if it arrives now; what else is due, [`Self::due`] says.
    pub fn carry(&mut self, from: End, frame: EthernetFrame, fate: &Fate) -> Option<EthernetFrame> {
        if fate.loss.is_some() {
            return None;
        }
        self.directions[from.index()].carry(frame, fate, self.now_ns)
    }

    /// When [`Self::due`] has something, in nanoseconds; it may be over already.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let frames = self.directions.iter().filter_map(Direction::next_due);
        let outage = self.outages.front().map(|(at, _)| *at);
        let is_down = self.is_down_at(self.now_ns);
        let change = match self.has_carrier {
            true => self.is_news.then_some(self.now_ns),
            false if is_down => Some(self.down_until_ns),
            false => Some(self.now_ns),
        };
        frames.chain(outage).chain(change).min()
    }

    /// The next thing that has happened by `now_ns`, if there is one left.
    pub fn due(&mut self, now_ns: u64) -> Option<Event> {
        self.advance(now_ns);
        let is_change = if self.has_carrier { self.is_news } else { !self.is_down_at(self.now_ns) };
        if is_change {
            self.has_carrier = !self.has_carrier;
            self.is_news = false;
            return Some(Event::Carrier(self.has_carrier));
        }
        for from in End::BOTH {
            while let Some((at_ns, frame)) = self.directions[from.index()].due(self.now_ns) {
                if self.is_down_at(at_ns) {
                    self.directions[from.index()].count(Loss::Down);
                    continue;
                }
                self.directions[from.index()].counters.delivered += 1;
                return Some(Event::Frame { to: from.other(), frame });
            }
        }
        None
    }

    /// What has happened so far to the frames that `from` sent.
    #[must_use]
    pub fn counters(&self, from: End) -> Counters {
        self.directions[from.index()].counters
    }

    fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        while let Some(&(at_ns, long_ns)) = self.outages.front().filter(|(at_ns, _)| *at_ns <= self.now_ns) {
            self.outages.pop_front();
            self.go_down(at_ns, long_ns);
        }
    }

    fn go_down(&mut self, from_ns: u64, long_ns: u64) {
        if from_ns > self.down_until_ns {
            self.down_from_ns = from_ns;
        }
        self.down_until_ns = self.down_until_ns.max(from_ns.saturating_add(long_ns));
        self.is_news = self.has_carrier;
    }

    fn is_down_at(&self, at_ns: u64) -> bool {
        (self.down_from_ns..self.down_until_ns).contains(&at_ns)
    }
}
