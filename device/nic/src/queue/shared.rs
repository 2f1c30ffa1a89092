//! Shared receive queues: one ring of receive requests that many queue pairs take from.
//!
//! A queue's lock comes after those of responders, of which many may take from it, and before those of event queues. A
//! request is copied out when it is taken, so its entry is the driver's again at once.

use refault_abi::event::{SRQ_EVENT_ERROR, SRQ_EVENT_LIMIT_REACHED, SrqEvent};

use crate::cause::Cause;
use crate::memory::access::AccessError;
use crate::memory::port::Port;
use crate::queue::event::EventQueues;
use crate::queue::layout::{Ring, RingLayout};
use crate::queue::numbered::{Numbered, Queues};
use crate::queue::published;
use crate::verbs::{Event, ReceiveRequest};

/// A receive request that was taken from a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) request: ReceiveRequest,
    /// Its free-running index.
    pub(crate) index: u32,
    /// Protection domain of its memory: the queue's.
    pub(crate) pd: u32,
}

/// What a shared receive queue is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SrqSetup {
    pub(crate) srqn: u32,
    pub(crate) ring: Ring,
    pub(crate) pd: u32,
    pub(crate) eqn: u32,
}

/// One shared receive queue. SRQN zero is none.
#[derive(Debug, Default)]
struct SharedQueue {
    setup: SrqSetup,
    /// Index of the next receive request.
    consumer: u32,
    /// Requests known to wait behind `consumer`.
    known: u32,
    /// Send an event when fewer are left; zero is never.
    limit: u32,
    /// Its memory could not be reached: nothing more is taken.
    failed: bool,
}

/// All shared receive queues.
pub(crate) struct SharedQueues {
    queues: Queues<SharedQueue>,
    layout: &'static dyn RingLayout,
}

impl SharedQueues {
    pub(crate) fn new(limit: u32, layout: &'static dyn RingLayout) -> Self {
        Self { queues: Queues::new(limit), layout }
    }

    /// Starts a queue; `false` beyond the limit.
    pub(crate) fn create(&self, setup: SrqSetup) -> bool {
        self.queues.insert(SharedQueue { setup, ..Default::default() })
    }

    /// Ends a queue.
    pub(crate) fn destroy(&self, srqn: u32) {
        self.queues.remove(srqn);
    }

    /// Ends all queues.
    pub(crate) fn clear(&self) {
        self.queues.clear();
    }

    /// Takes the next receive request, if there is one.
    ///
    /// # Errors
    ///
    /// The queue is lost: its memory cannot be reached. The first time, an event says so.
    pub(crate) fn take(
        &self,
        port: &mut Port<'_>,
        events: &EventQueues,
        srqn: u32,
    ) -> Result<Option<Taken>, AccessError> {
        self.queues
            .with(srqn, |queue| {
                let taken = queue.take(port, self.layout);
                let checked =
                    taken.and_then(|taken| queue.watch_limit(port, self.layout, events).map(|()| taken));
                queue.settled(port, events, checked)
            })
            .unwrap_or(Err(AccessError::Denied(Cause::Bounds)))
    }

    /// Arms the event that fewer than `limit` requests are left, which may be now; `None` if there is no such queue,
    /// `Some(false)` if it cannot hold so many.
    pub(crate) fn arm(
        &self,
        port: &mut Port<'_>,
        events: &EventQueues,
        srqn: u32,
        limit: u32,
    ) -> Option<bool> {
        self.queues.with(srqn, |queue| {
            if limit > 1 << queue.setup.ring.log {
                return false;
            }
            queue.limit = limit;
            let watched = queue.watch_limit(port, self.layout, events);
            // That the queue is lost is an event, and no failure of the command.
            let _ = queue.settled(port, events, watched);
            true
        })
    }

    /// The armed limit and the index of the next receive request; `None` if there is no such queue.
    pub(crate) fn state(&self, srqn: u32) -> Option<(u32, u32)> {
        self.queues.with(srqn, |queue| (queue.limit, queue.consumer))
    }
}

impl Numbered for SharedQueue {
    fn number(&self) -> u32 {
        self.setup.srqn
    }
}

impl SharedQueue {
    /// Takes the next request, if there is one.
    fn take(&mut self, port: &mut Port<'_>, layout: &dyn RingLayout) -> Result<Option<Taken>, AccessError> {
        if self.failed {
            return Err(AccessError::Denied(Cause::Bounds));
        }
        if self.known == 0 {
            self.known = self.waiting(port, layout)?;
            if self.known == 0 {
                return Ok(None);
            }
        }
        let index = self.consumer;
        let request = layout.take_shared(port, &self.setup.ring, index)?;
        self.consumer = index.wrapping_add(1);
        self.known -= 1;
        Ok(Some(Taken { request, index, pd: self.setup.pd }))
    }

    /// How many requests wait now.
    fn waiting(&self, port: &mut Port<'_>, layout: &dyn RingLayout) -> Result<u32, AccessError> {
        let producer = layout.shared_producer(port, &self.setup.ring)?;
        Ok(published(producer, self.consumer, self.setup.ring.log)?)
    }

    /// Sends the event, once, that fewer requests are left than the limit.
    fn watch_limit(
        &mut self,
        port: &mut Port<'_>,
        layout: &dyn RingLayout,
        events: &EventQueues,
    ) -> Result<(), AccessError> {
        if self.limit == 0 || self.failed {
            return Ok(());
        }
        self.known = self.waiting(port, layout)?;
        if self.known < self.limit {
            self.limit = 0;
            self.raise(port, events, SRQ_EVENT_LIMIT_REACHED);
        }
        Ok(())
    }

    /// Passes a result on; with the first error the queue is lost, and an event says so.
    fn settled<T>(
        &mut self,
        port: &mut Port<'_>,
        events: &EventQueues,
        result: Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        if result.is_err() && !std::mem::replace(&mut self.failed, true) {
            self.raise(port, events, SRQ_EVENT_ERROR);
        }
        result
    }

    fn raise(&self, port: &mut Port<'_>, events: &EventQueues, code: SrqEvent) {
        events.raise(port, self.setup.eqn, Event::SharedQueue { srqn: self.setup.srqn, code });
    }
}
