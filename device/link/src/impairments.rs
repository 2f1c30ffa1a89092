//! What happens to the frames of one direction, and its text.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::rule::{Action, NAMES, Rule};
use crate::units::{Rate, bandwidth, bandwidth_text, duration, duration_text, size, size_text};

/// What happens to the frames of one direction of a link; nothing by default.
///
/// Its text is a list of items, separated by commas: `loss=1%,delay=10us,drop=read_response_middle#3`.
///
/// | item | what happens |
/// |---|---|
/// | `loss=RATE` | frames are lost |
/// | `delay=TIME` | frames arrive later |
/// | `jitter=TIME` | and up to so much later, evenly distributed; they keep their order |
/// | `rate=BITS` | so many bits in a second pass, with 24 bytes around each frame as on Ethernet |
/// | `queue=BYTES` | bytes that may wait for that; what is above is lost |
/// | `reorder=RATE` | frames are held until `hold` later ones have passed, or for 10 ms |
/// | `hold=N` | that number, 3 by default |
/// | `duplicate=RATE` | frames arrive twice |
/// | `corrupt=RATE` | one bit of a frame is flipped. One without an ICRC is lost: Ethernet's checksum would be wrong |
/// | `down=TIME+TIME` | the link is down, from this time after the start for that long; in both directions |
/// | `seed=N` | of all random streams, 1 by default |
/// | `drop=FRAMES`, `duplicate=FRAMES`, `corrupt=FRAMES`, `reorder=FRAMES` | the same, to frames that are named |
/// | `down=FRAMES+TIME` | these frames take the link down |
///
/// `FRAMES` is the name of a kind of frames, with `/QPN` for those to one queue pair, and `#3`, `#3-5` or `#3-` for some
/// of them, counted from 1. The kinds are `any`, `other` (not RoCE), `roce`, and packets: `read_response_middle`, `write`
/// (wherever in the message), `rc_send_only_imm`, `ack`, `nak`, `rnr`. Items with frames or a time may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impairments {
    /// Frames lost by chance.
    pub loss: Rate,
    /// Delay of each frame in nanoseconds.
    pub delay_ns: u64,
    /// Greatest addition to that by chance, in nanoseconds.
    pub jitter_ns: u64,
    /// Bits that pass in a second; `None` for no limit.
    pub bits_per_second: Option<u64>,
    /// Bytes that may wait for that.
    pub queue_bytes: u64,
    /// Frames held by chance.
    pub reorder: Rate,
    /// How many later frames pass a held one; at least 1.
    pub hold: u32,
    /// Frames doubled by chance.
    pub duplicate: Rate,
    /// Frames with a flipped bit, by chance.
    pub corrupt: Rate,
    /// Times without a link: nanoseconds after the start, and how long.
    pub outages: Vec<(u64, u64)>,
    /// What happens to certain frames.
    pub rules: Vec<Rule>,
    /// Seed of the random streams.
    pub seed: u64,
}

impl Default for Impairments {
    fn default() -> Self {
        Self {
            loss: Rate::NEVER,
            delay_ns: 0,
            jitter_ns: 0,
            bits_per_second: None,
            queue_bytes: 1 << 20,
            reorder: Rate::NEVER,
            hold: 3,
            duplicate: Rate::NEVER,
            corrupt: Rate::NEVER,
            outages: Vec::new(),
            rules: Vec::new(),
            seed: 1,
        }
    }
}

/// Why a text does not describe [`Impairments`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// No `=` in an item.
    #[error("`{0}` is not NAME=VALUE; write a list such as loss=1%,delay=10us")]
    NoValue(String),
    /// An item that does not exist.
    #[error(
        "there is no `{0}`; choose from loss, delay, jitter, rate, queue, reorder, hold, duplicate, corrupt, drop, down \
         and seed"
    )]
    NoSuchItem(String),
    /// A value that the item does not take.
    #[error("`{item}={value}`: expected {expected}")]
    Value {
        /// Its item.
        item: String,
        /// The value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Frames with a name that does not exist.
    #[error("`{item}={value}`: expected {expected}. Names are {NAMES}")]
    Frames {
        /// Its item.
        item: String,
        /// The value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// An item that is no rule, and is given a second time.
    #[error("`{0}` is given twice")]
    Twice(String),
}

/// Bytes that Ethernet adds to a frame on the wire: preamble 8, checksum 4, gap 12 (IEEE 802.3, 3.1.1 and 4.4.2).
const AROUND: u128 = 24;
const TIME: &str = "a time, such as 500ns, 10us, 1.5ms or 2s";

impl Impairments {
    /// Whether each frame arrives at once, as it is.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        let Self { seed, hold, queue_bytes, .. } = *self;
        *self == Self { seed, hold, queue_bytes, ..Self::default() }
    }

    /// Nanoseconds that a frame of so many bytes takes to leave its port at this rate; 0 without one.
    #[must_use]
    pub fn sending_ns(&self, bytes: usize) -> u64 {
        let bits = (bytes as u128 + AROUND) * 8;
        let takes = |rate: u64| bits * 1_000_000_000 / u128::from(rate.max(1));
        self.bits_per_second.map_or(0, |rate| u64::try_from(takes(rate)).unwrap_or(u64::MAX))
    }

    fn set(&mut self, item: &str, value: &str) -> Result<(), SpecError> {
        let wrong = |expected| SpecError::Value { item: item.into(), value: value.into(), expected };
        match item {
            "loss" => self.loss = value.parse().map_err(wrong)?,
            "delay" => self.delay_ns = duration(value).ok_or_else(|| wrong(TIME))?,
            "jitter" => self.jitter_ns = duration(value).ok_or_else(|| wrong(TIME))?,
            "rate" => {
                let bits = bandwidth(value).ok_or_else(|| wrong("bits in a second, such as 10G or 100M"))?;
                self.bits_per_second = Some(bits);
            }
            "queue" => self.queue_bytes = size(value).ok_or_else(|| wrong("bytes, such as 64K or 1M"))?,
            "hold" => {
                let number = value.parse().ok().filter(|&number| number > 0);
                self.hold = number.ok_or_else(|| wrong("a number of frames, at least 1"))?;
            }
            "seed" => self.seed = value.parse().map_err(|_| wrong("a number"))?,
            "drop" => self.rule(Action::Drop, item, value, value)?,
            "reorder" if value.ends_with('%') => self.reorder = value.parse().map_err(wrong)?,
            "duplicate" if value.ends_with('%') => self.duplicate = value.parse().map_err(wrong)?,
            "corrupt" if value.ends_with('%') => self.corrupt = value.parse().map_err(wrong)?,
            "reorder" => self.rule(Action::Reorder, item, value, value)?,
            "duplicate" => self.rule(Action::Duplicate, item, value, value)?,
            "corrupt" => self.rule(Action::Corrupt, item, value, value)?,
            "down" => self.outage(item, value)?,
            _ => return Err(SpecError::NoSuchItem(item.into())),
        }
        Ok(())
    }

    fn rule(&mut self, action: Action, item: &str, value: &str, frames: &str) -> Result<(), SpecError> {
        let frames = frames.parse().map_err(|expected| SpecError::Frames {
            item: item.into(),
            value: value.into(),
            expected,
        })?;
        self.rules.push(Rule { action, frames });
        Ok(())
    }

    fn outage(&mut self, item: &str, value: &str) -> Result<(), SpecError> {
        const EXPECTED: &str = "when and how long: 2s+500ms, or frames and how long: ack#3+500ms";
        let wrong = || SpecError::Value { item: item.into(), value: value.into(), expected: EXPECTED };
        let (when, long) = value.rsplit_once('+').ok_or_else(wrong)?;
        let long = duration(long).ok_or_else(wrong)?;
        if let Some(at) = duration(when) {
            self.outages.push((at, long));
            return Ok(());
        }
        // No frame has such a name.
        if when.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(wrong());
        }
        self.rule(Action::Down(long), item, value, when)
    }
}

/// Whether an item may be given more than once.
fn repeats(item: &str, value: &str) -> bool {
    match item {
        "drop" | "down" => true,
        "reorder" | "duplicate" | "corrupt" => !value.ends_with('%'),
        _ => false,
    }
}

impl FromStr for Impairments {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut impairments = Self::default();
        let mut given: Vec<&str> = Vec::new();
        for part in text.split(',') {
            let part = part.trim();
            let (item, value) = part.split_once('=').ok_or_else(|| SpecError::NoValue(part.into()))?;
            impairments.set(item, value)?;
            if !repeats(item, value) {
                if given.contains(&item) {
                    return Err(SpecError::Twice(item.into()));
                }
                given.push(item);
            }
        }
        Ok(impairments)
    }
}

/// What differs from the default, and the seed: enough to repeat a run.
impl fmt::Display for Impairments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        let mut items = Vec::new();
        for (name, rate) in [("loss", self.loss), ("reorder", self.reorder)] {
            items.extend((rate != Rate::NEVER).then(|| format!("{name}={rate}")));
        }
        items.extend((self.hold != usual.hold).then(|| format!("hold={}", self.hold)));
        for (name, rate) in [("duplicate", self.duplicate), ("corrupt", self.corrupt)] {
            items.extend((rate != Rate::NEVER).then(|| format!("{name}={rate}")));
        }
        for (name, ns) in [("delay", self.delay_ns), ("jitter", self.jitter_ns)] {
            items.extend((ns != 0).then(|| format!("{name}={}", duration_text(ns))));
        }
        items.extend(self.bits_per_second.map(|bits| format!("rate={}", bandwidth_text(bits))));
        let queue = self.queue_bytes;
        items.extend((queue != usual.queue_bytes).then(|| format!("queue={}", size_text(queue))));
        let down = |(at, long): &(u64, u64)| format!("down={}+{}", duration_text(*at), duration_text(*long));
        items.extend(self.outages.iter().map(down));
        items.extend(self.rules.iter().map(ToString::to_string));
        items.push(format!("seed={}", self.seed));
        write!(f, "{}", items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_and_printed() {
        for text in [
            "seed=7",
            "loss=1%,reorder=0.1%,hold=5,duplicate=2%,corrupt=0.5%,delay=10us,jitter=3us,rate=10G,queue=64K,seed=1",
            "down=2s+500ms,drop=read_response_middle#3,drop=ack/17#2-,duplicate=nak,down=write_only#9+1ms,seed=1",
        ] {
            let impairments: Impairments = text.parse().expect(text);
            assert_eq!(impairments.to_string(), text);
        }
        assert_eq!(Impairments::default().to_string().parse(), Ok(Impairments::default()));
    }

    #[test]
    fn only_what_touches_frames_is_an_impairment() {
        let perfect = |text: &str| text.parse::<Impairments>().unwrap().is_perfect();
        assert!(Impairments::default().is_perfect() && perfect("seed=3,hold=7,queue=1K"));
        for text in ["loss=1%", "delay=1ns", "rate=1G", "drop=any#1", "down=0s+1s", "corrupt=1%"] {
            assert!(!perfect(text), "{text}");
        }
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let message = |text: &str| text.parse::<Impairments>().unwrap_err().to_string();
        for (text, part) in [
            ("", "NAME=VALUE"),
            ("loss", "NAME=VALUE"),
            ("los=1%", "choose from loss"),
            ("loss=1", "such as 1%"),
            ("loss=1%,loss=2%", "twice"),
            ("delay=10", "10us"),
            ("rate=0", "10G"),
            ("hold=0", "at least 1"),
            ("queue=x", "64K"),
            ("drop=read_respons#3", "read_response"),
            ("drop=1%", "Names are"),
            ("corrupt=100.5%", "from 0% to 100%"),
            ("down=2s", "how long"),
            ("down=what+2s", "Names are"),
            ("down=25+2s", "how long"),
            ("down=999999999999s+2s", "how long"),
            ("seed=x", "a number"),
        ] {
            let found = message(text);
            assert!(found.contains(part), "{text}: {found}");
        }
    }
}
