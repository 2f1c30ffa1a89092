//! One direction of a link.

use std::collections::VecDeque;

use refault_bus::wire::EthernetFrame;
use refault_roce::{FlushIcrc, frame};
use serde::Serialize;

use crate::chance::Chance;
use crate::fate::{Fate, Loss};
use crate::impairments::Impairments;
use crate::rule::{Action, Seen};

/// Most bytes on their way: what is sent faster than it arrives is lost in the end.
const FLIGHT_MAX: usize = 64 << 20;
/// What a frame on its way counts besides its bytes.
const FRAME_COST: usize = 128;
/// How long a held frame waits for later ones.
const HOLD_NS: u64 = 10_000_000;
/// Bytes of the MAC addresses and the type, in which no bit is flipped: to another address it would only be lost.
const ETHERNET_BYTES: usize = 14;

/// What has happened in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames sent.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Frames delivered, copies included.
    pub delivered: u64,
    /// Frames lost by chance.
    pub lost: u64,
    /// Frames lost because a rule says so.
    pub dropped: u64,
    /// Frames lost because the queue, or the link itself, was full.
    pub overflown: u64,
    /// Frames lost because the link was down.
    pub down: u64,
    /// Frames with a flipped bit, those that are lost for it included.
    pub corrupted: u64,
    /// Frames doubled.
    pub duplicated: u64,
    /// Frames held until others had passed.
    pub reordered: u64,
}

/// A random stream for each thing that may happen.
#[derive(Debug)]
struct Chances {
    loss: Chance,
    jitter: Chance,
    reorder: Chance,
    duplicate: Chance,
    corrupt: Chance,
    bit: Chance,
}

#[derive(Debug)]
struct Held {
    frame: EthernetFrame,
    /// How many more frames pass it.
    passing: u32,
    /// When it goes on in any case.
    until_ns: u64,
}

#[derive(Debug)]
pub(crate) struct Direction {
    impairments: Impairments,
    chances: Chances,
    /// How many frames each rule has seen.
    seen: Vec<u64>,
    needs_a_look: bool,
    /// When the last byte accepted so far has passed.
    busy_until_ns: u64,
    last_arrival_ns: u64,
    /// By arrival.
    flight: VecDeque<(u64, EthernetFrame)>,
    held: VecDeque<Held>,
    flight_bytes: usize,
    pub(crate) counters: Counters,
}

/// What was decided, and for how long the link goes down now.
pub(crate) struct Decision {
    pub(crate) fate: Fate,
    pub(crate) outage_ns: Option<u64>,
}

impl Direction {
    /// Direction number `index` of a link.
    pub(crate) fn new(impairments: Impairments, index: u64) -> Self {
        let stream = |kind: u64| Chance::new(impairments.seed, index << 8 | kind);
        let chances = Chances {
            loss: stream(0),
            jitter: stream(1),
            reorder: stream(2),
            duplicate: stream(3),
            corrupt: stream(4),
            bit: stream(5),
        };
        Self {
            chances,
            seen: vec![0; impairments.rules.len()],
            needs_a_look: !impairments.rules.is_empty() || impairments.corrupt.parts() > 0,
            impairments,
            busy_until_ns: 0,
            last_arrival_ns: 0,
            flight: VecDeque::new(),
            held: VecDeque::new(),
            flight_bytes: 0,
            counters: Counters::default(),
        }
    }

    pub(crate) fn decide(&mut self, frame: &EthernetFrame, now_ns: u64, is_down: bool) -> Decision {
        self.counters.sent += 1;
        self.counters.sent_bytes += frame.bytes.len() as u64;
        // All are drawn for each frame: what happens to the next one does not depend on this one's fate.
        let (rates, chances) = (&self.impairments, &mut self.chances);
        let is_lost = chances.loss.happens(rates.loss);
        let jitter_ns = chances.jitter.below(rates.jitter_ns.saturating_add(1));
        let mut held = chances.reorder.happens(rates.reorder);
        let mut doubled = chances.duplicate.happens(rates.duplicate);
        let mut corrupt = chances.corrupt.happens(rates.corrupt);
        let mut dropped = false;
        let mut outage_ns = None;
        let seen = self.needs_a_look.then(|| Seen::new(frame));
        for action in seen.map(|seen| self.actions(seen)).unwrap_or_default() {
            match action {
                Action::Drop => dropped = true,
                Action::Duplicate => doubled = true,
                Action::Corrupt => corrupt = true,
                Action::Reorder => held = true,
                Action::Down(ns) => outage_ns = Some(ns),
            }
        }
        self.counters.corrupted += u64::from(corrupt);
        let bit = if corrupt { self.bit_of(frame, seen) } else { None };
        let loss = match () {
            () if is_down || outage_ns.is_some() => Some(Loss::Down),
            () if dropped => Some(Loss::Rule),
            () if is_lost => Some(Loss::Chance),
            () if corrupt && bit.is_none() => Some(Loss::Corrupt),
            () => None,
        };
        let passed = loss.map_or_else(|| self.pass(frame.bytes.len(), now_ns), Err);
        let passed_ns = match passed {
            Ok(passed_ns) => passed_ns,
            Err(loss) => {
                self.count(loss);
                return Decision { fate: Fate::lost(now_ns, loss), outage_ns };
            }
        };
        let arrival_ns = passed_ns.saturating_add(self.impairments.delay_ns).saturating_add(jitter_ns);
        // A wire keeps the order. What is to pass others is held.
        let arrives_ns = arrival_ns.max(self.last_arrival_ns);
        self.last_arrival_ns = arrives_ns;
        self.counters.duplicated += u64::from(doubled);
        self.counters.reordered += u64::from(held);
        let fate = Fate {
            loss: None,
            arrives_ns,
            delay_ns: arrives_ns - now_ns.min(arrives_ns),
            held: held.then_some(self.impairments.hold),
            is_duplicated: doubled,
            flipped_bit: bit,
        };
        Decision { fate, outage_ns }
    }

    /// Puts a frame on its way. Returns it if it arrives now.
    pub(crate) fn carry(
        &mut self,
        mut frame: EthernetFrame,
        fate: &Fate,
        now_ns: u64,
    ) -> Option<EthernetFrame> {
        if let Some(bit) = fate.flipped_bit {
            flip(&mut frame, bit);
        }
        let copy = fate.is_duplicated.then(|| frame.clone());
        if let Some(passing) = fate.held {
            let until_ns = fate.arrives_ns.saturating_add(HOLD_NS);
            self.flight_bytes += cost(&frame);
            self.held.push_back(Held { frame, passing, until_ns });
            // The copy is no later frame: it waits, too.
            if let Some(frame) = copy {
                self.flight_bytes += cost(&frame);
                self.held.push_back(Held { frame, passing, until_ns });
            }
            return None;
        }
        let is_alone = self.flight.is_empty() && self.held.is_empty() && copy.is_none();
        if is_alone && fate.arrives_ns <= now_ns {
            self.counters.delivered += 1;
            return Some(frame);
        }
        for frame in [frame].into_iter().chain(copy) {
            self.depart(frame, fate.arrives_ns);
        }
        self.pass_the_held(fate.arrives_ns);
        None
    }

    /// When something happens next, in nanoseconds.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let arrival = self.flight.front().map(|(at_ns, _)| *at_ns);
        let release = self.held.iter().map(|held| held.until_ns).min();
        arrival.into_iter().chain(release).min()
    }

    /// The next frame that has arrived by `now_ns`, and when it did.
    pub(crate) fn due(&mut self, now_ns: u64) -> Option<(u64, EthernetFrame)> {
        while let Some(at) = self.held.iter().position(|held| held.until_ns <= now_ns) {
            let held = self.held.remove(at)?;
            self.flight_bytes -= cost(&held.frame);
            self.last_arrival_ns = self.last_arrival_ns.max(held.until_ns);
            self.depart(held.frame, self.last_arrival_ns);
        }
        let (at_ns, _) = self.flight.front()?;
        if *at_ns > now_ns {
            return None;
        }
        let (at_ns, frame) = self.flight.pop_front()?;
        self.flight_bytes -= cost(&frame);
        Some((at_ns, frame))
    }

    /// What the rules say about the frame, which counts for each of them.
    fn actions(&mut self, seen: Seen) -> Vec<Action> {
        let rules = self.impairments.rules.iter().zip(&mut self.seen);
        let matching = rules.filter(|(rule, _)| rule.frames.has(seen)).filter_map(|(rule, count)| {
            *count += 1;
            rule.frames.counts(*count).then_some(rule.action)
        });
        matching.collect()
    }

    /// A bit that the ICRC, or the checksum of the IP header, covers; `None` for frames without one.
    fn bit_of(&mut self, frame: &EthernetFrame, seen: Option<Seen>) -> Option<usize> {
        let drawn = self.chances.bit.below(frame.bytes.len().saturating_sub(ETHERNET_BYTES) as u64 * 8);
        seen.filter(|seen| seen.is_roce())?;
        Some(ETHERNET_BYTES * 8 + usize::try_from(drawn).ok()?)
    }

    /// When a frame has passed, if there is room for it.
    fn pass(&mut self, bytes: usize, now_ns: u64) -> Result<u64, Loss> {
        if self.flight_bytes.saturating_add(bytes) > FLIGHT_MAX {
            return Err(Loss::TooMuch);
        }
        let Some(bits) = self.impairments.bits_per_second else { return Ok(now_ns) };
        let start_ns = now_ns.max(self.busy_until_ns);
        let waiting = u128::from(start_ns - now_ns) * u128::from(bits) / 8_000_000_000;
        if waiting + bytes as u128 > u128::from(self.impairments.queue_bytes) && waiting > 0 {
            return Err(Loss::QueueFull);
        }
        let end_ns = start_ns.saturating_add(self.impairments.sending_ns(bytes));
        self.busy_until_ns = end_ns;
        Ok(end_ns)
    }

    fn depart(&mut self, frame: EthernetFrame, arrives_ns: u64) {
        self.flight_bytes += cost(&frame);
        self.flight.push_back((arrives_ns, frame));
    }

    /// A frame passes those that are held. Those that have waited long enough follow it.
    fn pass_the_held(&mut self, arrives_ns: u64) {
        for _ in 0..self.held.len() {
            let Some(mut held) = self.held.pop_front() else { return };
            held.passing = held.passing.saturating_sub(1);
            if held.passing > 0 {
                self.held.push_back(held);
            } else {
                self.flight_bytes -= cost(&held.frame);
                self.depart(held.frame, arrives_ns);
            }
        }
    }

    pub(crate) fn count(&mut self, loss: Loss) {
        match loss {
            Loss::Chance => self.counters.lost += 1,
            Loss::Rule => self.counters.dropped += 1,
            Loss::QueueFull | Loss::TooMuch => self.counters.overflown += 1,
            Loss::Down => self.counters.down += 1,
            // It is among the corrupted ones.
            Loss::Corrupt => {}
        }
    }
}

fn cost(frame: &EthernetFrame) -> usize {
    frame.bytes.len() + FRAME_COST
}

/// Flips a bit of a frame whose checksums are right.
fn flip(frame: &mut EthernetFrame, bit: usize) {
    if !frame.sealed {
        // A frame without an ICRC is not here.
        let _ = frame::seal(&mut frame.bytes, FlushIcrc::Standard);
        frame.sealed = true;
    }
    if let Some(byte) = frame.bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}
