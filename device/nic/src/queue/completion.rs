//! Completion queues.

use refault_abi::codes::WC_SUCCESS;

use crate::cause::Cause;
use crate::memory::access::AccessError;
use crate::memory::port::Port;
use crate::queue::arming::Arming;
use crate::queue::event::EventQueues;
use crate::queue::layout::{Ring, RingLayout};
use crate::queue::moderation::{Moderation, Step};
use crate::queue::numbered::{Numbered, Queues};
use crate::queue::published;
use crate::verbs::{Completion, Event};

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
    /// The driver's consumer index when it was last read.
    consumer: u32,
    arming: Arming,
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
                if queue.arming.change(rule) {
                    queue.notify(port, events);
                }
            })
            .is_some()
    }

    /// The worker starts the timer of a queue: returns its deadline, if there is one.
    pub(crate) fn watched(&self, cqn: u32) -> Option<u64> {
        self.queues.with(cqn, |queue| queue.arming.watched()).flatten()
    }

    /// Sends a queue's event if its deadline has passed.
    pub(crate) fn expire(&self, port: &mut Port<'_>, events: &EventQueues, cqn: u32) {
        let now_ns = port.fabric().now_ns();
        self.queues.with(cqn, |queue| {
            if queue.arming.is_due(now_ns) {
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
        let (fabric, Ring { log, .. }) = (port.fabric(), self.setup.ring);
        let Self { setup, consumer, arming, .. } = self;
        let solicited = completion.solicited || completion.status != WC_SUCCESS;
        let written = arming.complete(
            solicited,
            || fabric.now_ns(),
            |index| {
                if index.wrapping_sub(*consumer) >= 1 << log {
                    let seen = layout.completion_consumer(port, &setup.ring)?;
                    let waiting = published(index, seen, log)?;
                    *consumer = seen;
                    if waiting >= 1 << log {
                        return Err(AccessError::Denied(Cause::Bounds));
                    }
                }
                layout.write_completion(port, &setup.ring, index, completion)?;
                port.shard().stats.completions += 1;
                port.note_written();
                Ok(())
            },
        );
        match written {
            Ok(step) => Ok(self.step(port, events, step)),
            Err(_) => {
                self.failed = true;
                events.raise(port, self.setup.eqn, Event::CqError { cqn: self.setup.cqn });
                Err(PostError::JustFailed)
            }
        }
    }

    fn arm(&mut self, port: &mut Port<'_>, events: &EventQueues, doorbell: ArmDoorbell) -> TimerNeeded {
        if self.setup.context != doorbell.context || self.failed {
            return TimerNeeded::No;
        }
        let ArmDoorbell { consumer, solicited, .. } = doorbell;
        let step = self.arming.arm(consumer, solicited, self.setup.ring.log, port.fabric().now_ns());
        self.step(port, events, step)
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
        self.arming.notified();
        events.raise(port, self.setup.eqn, Event::Completion { cqn: self.setup.cqn });
    }
}
