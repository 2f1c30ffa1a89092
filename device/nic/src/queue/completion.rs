//! Completion queues.

use refault_abi::codes::WC_SUCCESS;

use crate::cause::Cause;
use crate::memory::access::AccessError;
use crate::memory::port::Port;
use crate::queue::event::EventQueues;
use crate::queue::layout::{Ring, RingLayout};
use crate::queue::moderation::{Moderation, Pace, Step};
use crate::queue::numbered::{Numbered, Queues};
use crate::queue::published;
use crate::verbs::{Completion, Event};

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

/// What a completion queue is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CqSetup {
    pub(crate) cqn: u32,
    pub(crate) ring: Ring,
    pub(crate) context: u32,
    pub(crate) eqn: u32,
}

/// One completion queue. CQN zero is none.
#[derive(Debug, Default)]
struct CompletionQueue {
    setup: CqSetup,
    producer: u32,
    /// The driver's consumer index when it was last read.
    consumer: u32,
    /// Index behind the last completion that counts as solicited.
    solicited_end: u32,
    armed: Armed,
    /// When an armed queue sends its event.
    pace: Pace,
    /// Overrun, or its memory is gone: nothing more is written.
    failed: bool,
}

/// Whether a worker must start a timer for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum TimerNeeded {
    /// There is nothing to wait for, or the timer runs already.
    No,
    /// The queue's worker must start it.
    Yes,
}

/// A completion could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostError {
    /// The queue failed just now: its queue pairs must fail too.
    JustFailed,
    /// The queue failed before, or does not exist.
    Dead,
}

/// All completion queues. A queue's lock comes before those of event queues.
pub(crate) struct CompletionQueues {
    queues: Queues<CompletionQueue>,
    layout: &'static dyn RingLayout,
}

impl CompletionQueues {
    pub(crate) fn new(limit: u32, layout: &'static dyn RingLayout) -> Self {
        Self { queues: Queues::new(limit), layout }
    }

    /// Starts a queue; `false` beyond the limit.
    pub(crate) fn create(&self, setup: CqSetup) -> bool {
        self.queues.insert(CompletionQueue { setup, ..Default::default() })
    }

    /// Ends a queue.
    pub(crate) fn destroy(&self, cqn: u32) {
        self.queues.remove(cqn);
    }

    /// Ends all queues.
    pub(crate) fn clear(&self) {
        self.queues.clear();
    }

    /// Writes one completion.
    ///
    /// # Errors
    ///
    /// The queue overran, its memory cannot be reached, or it does not exist.
    pub(crate) fn post(
        &self,
        port: &mut Port<'_>,
        events: &EventQueues,
        cqn: u32,
        completion: &Completion,
    ) -> Result<TimerNeeded, PostError> {
        let posted = self.queues.with(cqn, |queue| queue.post(port, self.layout, events, completion));
        posted.unwrap_or(Err(PostError::Dead))
    }

    /// Serves an arm doorbell. Completions that the driver has not seen yet are reported at once.
    pub(crate) fn arm(
        &self,
        port: &mut Port<'_>,
        events: &EventQueues,
        doorbell: ArmDoorbell,
    ) -> TimerNeeded {
        let armed = self.queues.with(doorbell.cqn, |queue| queue.arm(port, events, doorbell));
        armed.unwrap_or(TimerNeeded::No)
    }

    /// Sets when an armed queue sends its event; `false` if there is no such queue.
    pub(crate) fn moderate(
        &self,
        port: &mut Port<'_>,
        events: &EventQueues,
        cqn: u32,
        rule: Moderation,
    ) -> bool {
        self.queues
            .with(cqn, |queue| {
                if queue.pace.change(rule) {
                    queue.notify(port, events);
                }
            })
            .is_some()
    }

    /// The worker starts the timer of a queue: returns its deadline, if there is one.
    pub(crate) fn watched(&self, cqn: u32) -> Option<u64> {
        self.queues.with(cqn, |queue| queue.pace.watched()).flatten()
    }

    /// Sends a queue's event if its deadline has passed.
    pub(crate) fn expire(&self, port: &mut Port<'_>, events: &EventQueues, cqn: u32) {
        let now_ns = port.fabric().now_ns();
        self.queues.with(cqn, |queue| {
            if queue.pace.is_due(now_ns) {
                queue.notify(port, events);
            }
        });
    }
}

/// An arm doorbell, rung in the page of `context`, with the driver's consumer index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArmDoorbell {
    pub(crate) cqn: u32,
    pub(crate) context: u32,
    pub(crate) consumer: u32,
    pub(crate) solicited: bool,
}

impl Numbered for CompletionQueue {
    fn number(&self) -> u32 {
        self.setup.cqn
    }
}

impl CompletionQueue {
    fn post(
        &mut self,
        port: &mut Port<'_>,
        layout: &dyn RingLayout,
        events: &EventQueues,
        completion: &Completion,
    ) -> Result<TimerNeeded, PostError> {
        if self.failed {
            return Err(PostError::Dead);
        }
        if self.write(port, layout, completion).is_err() {
            self.failed = true;
            events.raise(port, self.setup.eqn, Event::CqError { cqn: self.setup.cqn });
            return Err(PostError::JustFailed);
        }
        let solicited = completion.solicited || completion.status != WC_SUCCESS;
        if solicited {
            self.solicited_end = self.producer;
        }
        let counts = self.armed == Armed::Next || self.armed == Armed::Solicited && solicited;
        let step = if counts { self.pace.count(1, port.fabric().now_ns()) } else { Step::Wait };
        Ok(self.step(port, events, step))
    }

    fn arm(&mut self, port: &mut Port<'_>, events: &EventQueues, doorbell: ArmDoorbell) -> TimerNeeded {
        if self.setup.context != doorbell.context || self.failed {
            return TimerNeeded::No;
        }
        // An impossible consumer index counts as an old one: the driver gets an event, and looks.
        let unseen = published(self.producer, doorbell.consumer, self.setup.ring.log).unwrap_or(1);
        let unseen_solicited = self.solicited_end.wrapping_sub(doorbell.consumer).cast_signed() > 0;
        // Arming for any completion is not undone by arming for solicited ones.
        if self.armed != Armed::Next {
            self.armed = if doorbell.solicited { Armed::Solicited } else { Armed::Next };
        }
        let counted = match self.armed {
            Armed::Next => unseen,
            _ => u32::from(unseen > 0 && unseen_solicited),
        };
        let step = self.pace.recount(counted, port.fabric().now_ns());
        self.step(port, events, step)
    }

    /// Writes an entry, if there is room.
    fn write(
        &mut self,
        port: &mut Port<'_>,
        layout: &dyn RingLayout,
        completion: &Completion,
    ) -> Result<(), AccessError> {
        let Ring { log, .. } = self.setup.ring;
        if self.producer.wrapping_sub(self.consumer) >= 1 << log {
            let consumer = layout.completion_consumer(port, &self.setup.ring)?;
            let waiting = published(self.producer, consumer, log)?;
            self.consumer = consumer;
            if waiting >= 1 << log {
                return Err(AccessError::Denied(Cause::Bounds));
            }
        }
        layout.write_completion(port, &self.setup.ring, self.producer, completion)?;
        self.producer = self.producer.wrapping_add(1);
        port.shard().stats.completions += 1;
        port.note_written();
        Ok(())
    }

    /// Sends the event, or has a timer started, as the pace says.
    fn step(&mut self, port: &mut Port<'_>, events: &EventQueues, step: Step) -> TimerNeeded {
        match step {
            Step::Wait => TimerNeeded::No,
            Step::StartTimer => TimerNeeded::Yes,
            Step::Notify => {
                self.notify(port, events);
                TimerNeeded::No
            }
        }
    }

    /// Sends the event, and disarms.
    fn notify(&mut self, port: &mut Port<'_>, events: &EventQueues) {
        self.armed = Armed::No;
        self.pace.restart();
        events.raise(port, self.setup.eqn, Event::Completion { cqn: self.setup.cqn });
    }
}
