//! Rules: which frames something happens to, by what they are and how many of them came before.

use std::fmt;
use std::str::FromStr;

use refault_bus::wire::EthernetFrame;
use refault_roce::{Opcode, Operation, Place, Service, Syndrome, frame};

use crate::units::duration_text;

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is lost.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// One of its bits is flipped.
    Corrupt,
    /// It is held until later ones have passed.
    Reorder,
    /// It is lost, and with it all others for this time in nanoseconds: the link goes down.
    Down(u64),
}

/// Something that happens to certain frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What happens.
    pub action: Action,
    /// To which frames.
    pub frames: Frames,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, frames } = self;
        match action {
            Action::Drop => write!(f, "drop={frames}"),
            Action::Duplicate => write!(f, "duplicate={frames}"),
            Action::Corrupt => write!(f, "corrupt={frames}"),
            Action::Reorder => write!(f, "reorder={frames}"),
            Action::Down(ns) => write!(f, "down={frames}+{}", duration_text(*ns)),
        }
    }
}

/// Frames of a kind, and which of them: `read_response_middle/17#3` is the third one to queue pair 17.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    kind: Kind,
    /// To this queue pair only.
    queue_pair: Option<u32>,
    /// The first and the last one, counted from 1.
    first: u64,
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    /// Not RoCE.
    Other,
    Roce(Roce),
}

/// RoCE of these properties; `None` is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Roce {
    service: Option<Service>,
    operation: Option<Operation>,
    place: Option<Place>,
    immediate: bool,
    answer: Option<Answer>,
}

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ack,
    Nak,
    NotReady,
}

const SERVICES: [(&str, Service); 3] = [("rc", Service::Rc), ("uc", Service::Uc), ("ud", Service::Ud)];

/// A longer name stands before those that it begins with.
const OPERATIONS: [(&str, Operation, Option<Answer>); 14] = [
    ("send_invalidate", Operation::SendInvalidate, None),
    ("send", Operation::Send, None),
    ("write", Operation::Write, None),
    ("read_request", Operation::ReadRequest, None),
    ("read_response", Operation::ReadResponse, None),
    ("ack", Operation::Acknowledge, Some(Answer::Ack)),
    ("nak", Operation::Acknowledge, Some(Answer::Nak)),
    ("rnr", Operation::Acknowledge, Some(Answer::NotReady)),
    ("atomic_ack", Operation::AtomicAcknowledge, None),
    ("compare_swap", Operation::CompareSwap, None),
    ("fetch_add", Operation::FetchAdd, None),
    ("flush", Operation::Flush, None),
    ("atomic_write", Operation::AtomicWrite, None),
    ("cnp", Operation::Congestion, None),
];

const PLACES: [(&str, Place); 4] =
    [("first", Place::First), ("middle", Place::Middle), ("last", Place::Last), ("only", Place::Only)];

/// What the names of frames are, for messages and help.
pub(crate) const NAMES: &str = "any, other (not RoCE), roce, or a packet: rc_, uc_ or ud_ if it matters, then send, \
                                send_invalidate, write, read_request, read_response, ack, nak, rnr, atomic_ack, compare_swap, \
                                fetch_add, flush, atomic_write or cnp, then _first, _middle, _last or _only, then _imm";

/// What a frame is, as far as rules ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    packet: Option<(Opcode, u32, Option<Answer>)>,
}

impl Seen {
    pub(crate) fn new(frame: &EthernetFrame) -> Self {
        let Ok(received) = frame::parse_unsealed(&frame.bytes) else { return Self { packet: None } };
        let packet = received.packet;
        let answer = match packet.aeth.syndrome {
            Syndrome::Ack(_) => Some(Answer::Ack),
            Syndrome::Nak(_) => Some(Answer::Nak),
            Syndrome::ReceiverNotReady(_) => Some(Answer::NotReady),
            Syndrome::Reserved(_) => None,
        };
        let answer = answer.filter(|_| packet.opcode.operation() == Operation::Acknowledge);
        Self { packet: Some((packet.opcode, packet.dest_qpn, answer)) }
    }

    /// Whether it carries an ICRC.
    pub(crate) fn is_roce(self) -> bool {
        self.packet.is_some()
    }
}

impl Frames {
    /// Whether a frame is of this kind, whichever number it has.
    pub(crate) fn has(&self, seen: Seen) -> bool {
        let qp = seen.packet.map(|(_, qp, _)| qp);
        if self.queue_pair.is_some() && self.queue_pair != qp {
            return false;
        }
        match (self.kind, seen.packet) {
            (Kind::Any, _) | (Kind::Other, None) => true,
            (Kind::Other, Some(_)) | (Kind::Roce(_), None) => false,
            (Kind::Roce(roce), Some((opcode, _, answer))) => roce.has(opcode, answer),
        }
    }

    /// Whether the frame with this number, counted from 1, is among them.
    pub(crate) fn counts(&self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

impl Roce {
    fn has(self, opcode: Opcode, answer: Option<Answer>) -> bool {
        self.service.is_none_or(|service| service == opcode.service())
            && self.operation.is_none_or(|operation| operation == opcode.operation())
            && self.place.is_none_or(|place| place == opcode.place())
            && (!self.immediate || opcode.has_immediate())
            && (self.answer.is_none() || self.answer == answer)
    }

    /// Whether there is such a packet.
    fn exists(self) -> bool {
        Opcode::all().any(|opcode| self.has(opcode, self.answer))
    }
}

impl FromStr for Frames {
    type Err = &'static str;

    /// `NAME`, `NAME/QPN`, and behind it `#N`, `#N-M` or `#N-`: the N-th one, those up to the M-th, or all from the N-th.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "frames: NAME, NAME#3, NAME#3-5, NAME#3- or NAME/QPN#3, where NAME is any, other, roce or that of \
                                a packet, such as read_response_middle, write_only, ack, nak, rnr, ud_send or flush";
        let (what, number) = text.split_once('#').map_or((text, None), |(what, rest)| (what, Some(rest)));
        let (name, qp) = what.split_once('/').map_or((what, None), |(name, qp)| (name, Some(qp)));
        let queue_pair = qp.map(|qp| number_of(qp).filter(|&qp| qp < 1 << 24).ok_or(EXPECTED)).transpose()?;
        let queue_pair = queue_pair.and_then(|qp| u32::try_from(qp).ok());
        let (first, last) = match number.map(|text| text.split_once('-').ok_or(text)) {
            None => (Some(1), Some(u64::MAX)),
            Some(Err(one)) => (number_of(one), number_of(one)),
            Some(Ok((first, ""))) => (number_of(first), Some(u64::MAX)),
            Some(Ok((first, last))) => (number_of(first), number_of(last)),
        };
        let (first, last) = first.zip(last).ok_or(EXPECTED)?;
        if first == 0 || last < first {
            return Err("frames that exist: they are counted from 1");
        }
        Ok(Self { kind: kind(name).ok_or(EXPECTED)?, queue_pair, first, last })
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Any => write!(f, "any")?,
            Kind::Other => write!(f, "other")?,
            Kind::Roce(roce) => write!(f, "{roce}")?,
        }
        if let Some(qp) = self.queue_pair {
            write!(f, "/{qp}")?;
        }
        match (self.first, self.last) {
            (1, u64::MAX) => Ok(()),
            (first, last) if first == last => write!(f, "#{first}"),
            (first, u64::MAX) => write!(f, "#{first}-"),
            (first, last) => write!(f, "#{first}-{last}"),
        }
    }
}

impl fmt::Display for Roce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service.and_then(|wanted| SERVICES.iter().find(|(_, service)| *service == wanted));
        let operation = self.operation.and_then(|wanted| {
            OPERATIONS.iter().find(|(_, operation, answer)| (*operation, *answer) == (wanted, self.answer))
        });
        let place = self.place.and_then(|wanted| PLACES.iter().find(|(_, place)| *place == wanted));
        let parts = [service.map(|row| row.0), operation.map(|row| row.0), place.map(|row| row.0)];
        let parts: Vec<_> = parts.into_iter().flatten().chain(self.immediate.then_some("imm")).collect();
        write!(f, "{}", if parts.is_empty() { "roce".into() } else { parts.join("_") })
    }
}

fn kind(name: &str) -> Option<Kind> {
    match name {
        "any" => return Some(Kind::Any),
        "other" => return Some(Kind::Other),
        "roce" => return Some(Kind::Roce(Roce::default())),
        _ => {}
    }
    let mut roce = Roce::default();
    let mut rest = name;
    if let Some((after, service)) = SERVICES.iter().find_map(|row| Some((word(rest, row.0)?, row.1))) {
        (rest, roce.service) = (after, Some(service));
    }
    let operation = OPERATIONS.iter().find_map(|row| Some((word(rest, row.0)?, row)));
    let (after, &(_, operation, answer)) = operation?;
    (rest, roce.operation, roce.answer) = (after, Some(operation), answer);
    if let Some((after, place)) = PLACES.iter().find_map(|row| Some((word(rest, row.0)?, row.1))) {
        (rest, roce.place) = (after, Some(place));
    }
    if let Some(after) = word(rest, "imm") {
        (rest, roce.immediate) = (after, true);
    }
    (rest.is_empty() && roce.exists()).then_some(Kind::Roce(roce))
}

/// What follows `word` and an underscore, or nothing.
fn word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('_').filter(|rest| !rest.is_empty()) }
}

fn number_of(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok().filter(|_| !text.starts_with('+')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Frames {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_opcode_has_a_name() {
        for opcode in Opcode::all() {
            let answers = match opcode.operation() {
                Operation::Acknowledge => vec![Some(Answer::Ack), Some(Answer::Nak), Some(Answer::NotReady)],
                _ => vec![None],
            };
            for answer in answers {
                let roce = Roce {
                    service: Some(opcode.service()).filter(|service| *service != Service::Congestion),
                    operation: Some(opcode.operation()),
                    place: Some(opcode.place()),
                    immediate: opcode.has_immediate(),
                    answer,
                };
                let name = roce.to_string();
                assert_eq!(parsed(&name).kind, Kind::Roce(roce), "{name}");
                assert_eq!(parsed(&name).to_string(), name);
            }
        }
    }

    #[test]
    fn numbers_and_queue_pairs_are_read_and_printed() {
        for text in
            ["any", "other#1", "roce#2-", "read_response_middle/17#3", "ack#3-5", "ud_send", "write_last_imm"]
        {
            assert_eq!(parsed(text).to_string(), text);
        }
        assert_eq!(parsed("ack/0x11"), parsed("ack/17"));
        let third = parsed("ack#3-4");
        assert_eq!((1..6).filter(|&number| third.counts(number)).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let wrong = [
            "",
            "x",
            "any_",
            "read_response_imm",
            "send_first_imm",
            "ud_send_first",
            "uc_ack",
            "send_",
            "ack#0",
            "ack#5-3",
            "ack#",
            "ack#-",
            "ack#x",
            "ack/",
            "ack/0x1000000",
            "ack#3/7",
            "rc",
            "write_writes",
            "ack#+3",
        ];
        for text in wrong {
            assert!(text.parse::<Frames>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_names_in_the_help_are_those_there_are() {
        for (name, ..) in OPERATIONS {
            assert!(NAMES.contains(name), "{name}");
        }
    }
}
