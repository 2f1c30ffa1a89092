//! What becomes of one frame.

use crate::units::duration_text;

/// Why a frame does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// By chance.
    Chance,
    /// A rule names it.
    Rule,
    /// The queue for the link's rate is full.
    QueueFull,
    /// More bytes are on their way than a link keeps.
    TooMuch,
    /// The link is down.
    Down,
    /// A bit of it was flipped, and it has no checksum of its own that would show that.
    Corrupt,
}

impl Loss {
    fn why(self) -> &'static str {
        match self {
            Self::Chance => "by chance",
            Self::Rule => "by a rule",
            Self::QueueFull => "the queue is full",
            Self::TooMuch => "too much is on its way",
            Self::Down => "the link is down",
            Self::Corrupt => "a flipped bit, no ICRC",
        }
    }
}

/// What becomes of one frame, as [`crate::Link::decide`] has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Why it does not arrive, if it does not.
    pub loss: Option<Loss>,
    /// When it arrives, in nanoseconds, if no other frame holds it up.
    pub arrives_ns: u64,
    /// How much later than it was sent, in nanoseconds.
    pub delay_ns: u64,
    /// It waits until so many later frames have passed.
    pub held: Option<u32>,
    /// It arrives twice.
    pub is_duplicated: bool,
    /// This bit of it is flipped: bit `n % 8` of byte `n / 8`.
    pub flipped_bit: Option<usize>,
}

impl Fate {
    /// That of a frame on a perfect link.
    pub(crate) fn at_once(now_ns: u64) -> Self {
        Self {
            loss: None,
            arrives_ns: now_ns,
            delay_ns: 0,
            held: None,
            is_duplicated: false,
            flipped_bit: None,
        }
    }

    pub(crate) fn lost(now_ns: u64, loss: Loss) -> Self {
        Self { loss: Some(loss), ..Self::at_once(now_ns) }
    }

    /// The same in words, for a capture; `None` if the frame arrives at once as it is.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        if let Some(loss) = self.loss {
            return Some(format!("dropped by the link: {}", loss.why()));
        }
        let mut parts = Vec::new();
        parts.extend((self.delay_ns > 0).then(|| format!("delayed by {}", duration_text(self.delay_ns))));
        parts.extend(self.held.map(|frames| format!("held until {frames} more have passed")));
        parts.extend(self.is_duplicated.then(|| "duplicated".into()));
        parts.extend(self.flipped_bit.map(|bit| format!("bit {} of byte {} flipped", bit % 8, bit / 8)));
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}
