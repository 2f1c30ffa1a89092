//! Shared receive queues: one ring of receive requests that many queue pairs take from.
//!
//! A queue's lock comes after those of responders, of which any number may be at it, and before those of event
//! queues. What is taken is copied out, so the entry is the driver's again at once.

use std::mem::offset_of;
use std::sync::Mutex;

use refault_abi::command::SrqState;
use refault_abi::event::{EVENT_SRQ, SRQ_EVENT_ERROR, SRQ_EVENT_LIMIT_REACHED};
use refault_abi::queue::{RQ_WQE_SIZE, RqWqe, SrqDoorbellRecord};
use zerocopy::{FromZeros, IntoBytes};

use crate::cause::Cause;
use crate::ids::slot_of;
use crate::memory::guard::lock;
use crate::memory::page_table::Pages;
use crate::memory::port::{AccessError, Port};
use crate::qp::Receiving;
use crate::queue::event::{Event, EventQueues};
use crate::queue::published;
use crate::slab::Slab;

/// Byte offset of the device's index in the doorbell record.
const CONSUMER: u64 = offset_of!(SrqDoorbellRecord, consumer) as u64;

/// What stays the same while a shared receive queue lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SrqSetup {
    pub(crate) srqn: u32,
    pub(crate) pages: Pages,
    pub(crate) record_offset: u32,
    pub(crate) pd: u32,
    pub(crate) eqn: u32,
    pub(crate) log: u8,
}

/// One shared receive queue. SRQN zero is none.
#[derive(Debug, Default)]
struct SharedQueue {
    setup: SrqSetup,
    /// Index of the next receive request.
    consumer: u32,
    /// Requests known to wait behind `consumer`.
    known: u32,
    /// Tell when fewer are left; zero is never.
    limit: u32,
    /// Its memory could not be reached: nothing more is taken.
    failed: bool,
}

/// All shared receive queues.
pub(crate) struct SharedQueues(Slab<Mutex<SharedQueue>>);

impl SharedQueues {
    pub(crate) fn new(limit: u32) -> Self {
        Self(Slab::new(limit))
    }

    /// Starts a queue; `false` beyond the limit.
    pub(crate) fn create(&self, setup: SrqSetup) -> bool {
        let slot = self.0.grow_to(slot_of(setup.srqn));
        slot.map(|slot| *lock(slot) = SharedQueue { setup, ..Default::default() }).is_some()
    }

    /// Ends a queue.
    pub(crate) fn destroy(&self, srqn: u32) {
        if let Some(slot) = self.0.find(slot_of(srqn)) {
            *lock(slot) = SharedQueue::default();
        }
    }

    /// Ends all queues.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|slot| *lock(slot) = SharedQueue::default());
    }

    /// Takes the next receive request, if there is one. An error means that the queue is lost; its driver was
    /// told.
    pub(crate) fn take(
        &self,
        port: &mut Port<'_>,
        events: &EventQueues,
        srqn: u32,
    ) -> Result<Option<Receiving>, AccessError> {
        self.with(srqn, |queue| {
            let taken = queue.take(port);
            let checked = taken.and_then(|taken| queue.watch_limit(port, events).map(|()| taken));
            queue.settled(port, events, checked)
        })
        .unwrap_or(Err(AccessError::Denied(Cause::Bounds)))
    }

    /// Tells when fewer than `limit` requests are left, which may be now; `None` if there is no such queue,
    /// `Some(false)` if it cannot hold so many.
    pub(crate) fn arm(
        &self,
        port: &mut Port<'_>,
        events: &EventQueues,
        srqn: u32,
        limit: u32,
    ) -> Option<bool> {
        self.with(srqn, |queue| {
            if limit > 1 << queue.setup.log {
                return false;
            }
            queue.limit = limit;
            let watched = queue.watch_limit(port, events);
            // A queue that is lost tells its driver so, not the command.
            let _ = queue.settled(port, events, watched);
            true
        })
    }

    /// The queue as its driver may see it.
    pub(crate) fn state(&self, srqn: u32) -> Option<SrqState> {
        self.with(srqn, |queue| SrqState { limit: queue.limit, consumer: queue.consumer, reserved: 0 })
    }

    fn with<R>(&self, srqn: u32, work: impl FnOnce(&mut SharedQueue) -> R) -> Option<R> {
        let mut queue = lock(self.0.find(slot_of(srqn))?);
        (srqn != 0 && queue.setup.srqn == srqn).then(|| work(&mut queue))
    }
}

impl SharedQueue {
    /// Takes the next request, copies it and gives its entry back to the driver.
    fn take(&mut self, port: &mut Port<'_>) -> Result<Option<Receiving>, AccessError> {
        if self.failed {
            return Err(AccessError::Denied(Cause::Bounds));
        }
        if self.known == 0 {
            self.known = self.waiting(port)?;
            if self.known == 0 {
                return Ok(None);
            }
        }
        let SrqSetup { pages, record_offset, pd, log, .. } = self.setup;
        let index = self.consumer;
        let at = u64::from(index & ((1 << log) - 1)) * u64::from(RQ_WQE_SIZE);
        let mut wqe = RqWqe::new_zeroed();
        port.pages_read(&pages, at, wqe.as_mut_bytes())?;
        let consumer = index.wrapping_add(1);
        let record = port.page(&pages, u64::from(record_offset) + CONSUMER, true)?.holding(4)?;
        port.fabric().memory.store_u32(record.gpa, consumer)?;
        self.consumer = consumer;
        self.known -= 1;
        Ok(Some(Receiving { wqe, index, pd, ticket: 0 }))
    }

    /// How many requests wait now.
    fn waiting(&self, port: &mut Port<'_>) -> Result<u32, AccessError> {
        let SrqSetup { pages, record_offset, log, .. } = self.setup;
        let producer = port.pages_load_u32(&pages, u64::from(record_offset))?;
        published(producer, self.consumer, log).map_err(AccessError::Denied)
    }

    /// Tells, once, that fewer requests are left than the limit.
    fn watch_limit(&mut self, port: &mut Port<'_>, events: &EventQueues) -> Result<(), AccessError> {
        if self.limit == 0 || self.failed {
            return Ok(());
        }
        self.known = self.waiting(port)?;
        if self.known < self.limit {
            self.limit = 0;
            self.tell(port, events, SRQ_EVENT_LIMIT_REACHED);
        }
        Ok(())
    }

    /// Whatever could not be reached: the queue is lost, and its driver hears of it once.
    fn settled<T>(
        &mut self,
        port: &mut Port<'_>,
        events: &EventQueues,
        result: Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        if result.is_err() && !std::mem::replace(&mut self.failed, true) {
            self.tell(port, events, SRQ_EVENT_ERROR);
        }
        result
    }

    fn tell(&self, port: &mut Port<'_>, events: &EventQueues, code: u8) {
        events.raise(port, self.setup.eqn, Event::of(EVENT_SRQ, code, self.setup.srqn));
    }
}
