//! Completion queues.

use std::sync::Mutex;

use refault_abi::codes::WC_SUCCESS;

use crate::cause::Cause;
use crate::ids::slot_of;
use crate::memory::access::AccessError;
use crate::memory::guard::lock;
use crate::memory::port::Port;
use crate::queue::event::EventQueues;
use crate::queue::layout::{Ring, RingLayout};
use crate::queue::moderation::{Moderation, Pace, Step};
use crate::queue::published;
use crate::slab::Slab;
use crate::verbs::{Completion, Event};

/// What the driver wants to be told about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Armed {
    /// Nothing.
    #[default]
    No,
    /// The next completion.
    Next,
    /// The next solicited or failed one.
    Solicited,
}

/// What stays the same while a completion queue lives.
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
    /// The driver's consumer index when it was last looked at.
    consumer: u32,
    /// Index behind the last completion that counts as solicited.
    solicited_end: u32,
    armed: Armed,
    /// When what is armed is told of.
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
    /// The queue's worker.
    Yes,
}

/// A completion could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostError {
    /// The queue failed just now: its queue pairs must hear of it.
    JustFailed,
    /// The queue failed before, or does not exist.
    Dead,
}

/// All completion queues. A queue's lock comes before those of event queues.
pub(crate) struct CompletionQueues {
    queues: Slab<Mutex<CompletionQueue>>,
    layout: &'static dyn RingLayout,
}

impl CompletionQueues {
    pub(crate) fn new(limit: u32, layout: &'static dyn RingLayout) -> Self {
        Self { queues: Slab::new(limit), layout }
    }

    /// Starts a queue; `false` beyond the limit.
    pub(crate) fn create(&self, setup: CqSetup) -> bool {
        let slot = self.queues.grow_to(slot_of(setup.cqn));
        slot.map(|slot| *lock(slot) = CompletionQueue { setup, ..Default::default() }).is_some()
    }

    /// Ends a queue.
    pub(crate) fn destroy(&self, cqn: u32) {
        if let Some(slot) = self.queues.find(slot_of(cqn)) {
            *lock(slot) = CompletionQueue::default();
        }
    }

    /// Ends all queues.
    pub(crate) fn clear(&self) {
        self.queues.iter().for_each(|slot| *lock(slot) = CompletionQueue::default());
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
        let slot = self.queues.find(slot_of(cqn)).ok_or(PostError::Dead)?;
        let mut queue = lock(slot);
        if queue.setup.cqn != cqn || queue.failed {
            return Err(PostError::Dead);
        }
        if queue.write(port, self.layout, completion).is_err() {
            queue.failed = true;
            events.raise(port, queue.setup.eqn, Event::CqError { cqn });
            return Err(PostError::JustFailed);
        }
        let solicited = completion.solicited || completion.status != WC_SUCCESS;
        if solicited {
            queue.solicited_end = queue.producer;
        }
        let counts = queue.armed == Armed::Next || queue.armed == Armed::Solicited && solicited;
        let step = if counts { queue.pace.count(1, port.fabric().now_ns()) } else { Step::Wait };
        Ok(queue.step(port, events, step))
    }

    /// The driver's arm doorbell, rung in the page of `context`, with its consumer index: completions it has
    /// not seen yet are told of at once.
    pub(crate) fn arm(
        &self,
        port: &mut Port<'_>,
        events: &EventQueues,
        doorbell: ArmDoorbell,
    ) -> TimerNeeded {
        let Some(slot) = self.queues.find(slot_of(doorbell.cqn)) else { return TimerNeeded::No };
        let mut queue = lock(slot);
        let CqSetup { cqn, context, ring: Ring { log, .. }, .. } = queue.setup;
        if cqn == 0 || cqn != doorbell.cqn || context != doorbell.context || queue.failed {
            return TimerNeeded::No;
        }
        // A consumer index that cannot be is as good as an old one: the driver will look.
        let unseen = published(queue.producer, doorbell.consumer, log).unwrap_or(1);
        let unseen_solicited = queue.solicited_end.wrapping_sub(doorbell.consumer) as i32 > 0;
        let armed = if doorbell.solicited { Armed::Solicited } else { Armed::Next };
        // Asking for any completion is not undone by asking for solicited ones.
        if queue.armed != Armed::Next {
            queue.armed = armed;
        }
        let counted = match queue.armed {
            Armed::Next => unseen,
            _ => u32::from(unseen > 0 && unseen_solicited),
        };
        let step = queue.pace.recount(counted, port.fabric().now_ns());
        queue.step(port, events, step)
    }

    /// Sets when an armed queue tells of its completions; `false` if there is no such queue.
    pub(crate) fn moderate(
        &self,
        port: &mut Port<'_>,
        events: &EventQueues,
        cqn: u32,
        rule: Moderation,
    ) -> bool {
        self.with(cqn, |queue| {
            if queue.pace.change(rule) {
                queue.tell(port, events);
            }
        })
        .is_some()
    }

    /// When the queue wants to be looked at; its worker watches from now on.
    pub(crate) fn watched(&self, cqn: u32) -> Option<u64> {
        self.with(cqn, |queue| queue.pace.watched()).flatten()
    }

    /// The time of a queue may have come: then it tells of what it has.
    pub(crate) fn expire(&self, port: &mut Port<'_>, events: &EventQueues, cqn: u32) {
        let now_ns = port.fabric().now_ns();
        self.with(cqn, |queue| {
            if queue.pace.is_due(now_ns) {
                queue.tell(port, events);
            }
        });
    }

    fn with<R>(&self, cqn: u32, work: impl FnOnce(&mut CompletionQueue) -> R) -> Option<R> {
        let mut queue = lock(self.queues.find(slot_of(cqn))?);
        (cqn != 0 && queue.setup.cqn == cqn).then(|| work(&mut queue))
    }
}

/// An arm doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArmDoorbell {
    pub(crate) cqn: u32,
    pub(crate) context: u32,
    pub(crate) consumer: u32,
    pub(crate) solicited: bool,
}

impl CompletionQueue {
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

    /// Does what the pace says.
    fn step(&mut self, port: &mut Port<'_>, events: &EventQueues, step: Step) -> TimerNeeded {
        match step {
            Step::Wait => TimerNeeded::No,
            Step::Watch => TimerNeeded::Yes,
            Step::Tell => {
                self.tell(port, events);
                TimerNeeded::No
            }
        }
    }

    /// Sends the event that was asked for, once.
    fn tell(&mut self, port: &mut Port<'_>, events: &EventQueues) {
        self.armed = Armed::No;
        self.pace.restart();
        events.raise(port, self.setup.eqn, Event::Completion { cqn: self.setup.cqn });
    }
}
