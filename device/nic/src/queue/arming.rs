//! Which completions send an event: what passes between the device, which writes completions, and the driver, which
//! polls until it finds none and then arms the queue.
//!
//! The driver finds completions in memory without a lock, so one may be written between its last look and its doorbell.
//! The doorbell bears the index up to which it has looked: what is written behind that is reported at once.

use crate::queue::index::published;
use crate::queue::moderation::{Moderation, Pace, Step};

/// Which completions send an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Armed {
    /// None: the driver polls.
    #[default]
    No,
    /// The next one.
    Next,
    /// The next one that is solicited or failed.
    Solicited,
}

/// What of a completion queue decides on its events. It lies under the queue's lock.
#[derive(Debug, Default)]
pub(crate) struct Arming {
    producer: u32,
    /// Index behind the last completion that counts as solicited.
    solicited_end: u32,
    armed: Armed,
    /// When an armed queue sends its event.
    pace: Pace,
}

impl Arming {
    /// Has `write` write the next entry, whose index it is given, and counts it then. So an event is never earlier than
    /// the entry that it announces. Failed completions count as solicited. `now_ns` is called only if the queue is armed.
    ///
    /// # Errors
    ///
    /// That of `write`: nothing is counted.
    #[inline]
    pub(crate) fn complete<E>(
        &mut self,
        solicited: bool,
        now_ns: impl FnOnce() -> u64,
        write: impl FnOnce(u32) -> Result<(), E>,
    ) -> Result<Step, E> {
        write(self.producer)?;
        self.producer = self.producer.wrapping_add(1);
        if solicited {
            self.solicited_end = self.producer;
        }
        let counts = self.armed == Armed::Next || self.armed == Armed::Solicited && solicited;
        Ok(if counts { self.pace.count(1, now_ns()) } else { Step::Wait })
    }

    /// Serves an arm doorbell with the driver's `consumer` index, of a ring of `1 << log` entries. Completions that the
    /// driver has not seen yet count.
    pub(crate) fn arm(&mut self, consumer: u32, solicited: bool, log: u8, now_ns: u64) -> Step {
        // An impossible consumer index counts as an old one: the driver gets an event, and looks.
        let unseen = published(self.producer, consumer, log).unwrap_or(1);
        let unseen_solicited = self.solicited_end.wrapping_sub(consumer).cast_signed() > 0;
        // Arming for any completion is not undone by arming for solicited ones.
        if self.armed != Armed::Next {
            self.armed = if solicited { Armed::Solicited } else { Armed::Next };
        }
        let counted = match self.armed {
            Armed::Next => unseen,
            _ => u32::from(unseen > 0 && unseen_solicited),
        };
        self.pace.recount(counted, now_ns)
    }

    /// Sets when an armed queue sends its event. Returns whether completions waited under the old rule.
    pub(crate) fn change(&mut self, rule: Moderation) -> bool {
        self.pace.change(rule)
    }

    /// The worker starts the timer: its deadline.
    pub(crate) fn watched(&mut self) -> Option<u64> {
        self.pace.watched()
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        self.pace.is_due(now_ns)
    }

    /// The event is being sent: disarms.
    pub(crate) fn notified(&mut self) {
        self.armed = Armed::No;
        self.pace.restart();
    }
}
