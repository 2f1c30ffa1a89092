//! The probe of a running machine.
//!
//! Recording is a clock reading and a push onto a lock-free queue, so that the fault path does not wait and
//! threads do not meet. Who ends a fault also empties the queue for everybody, after the end was stamped:
//! so assembly costs no measured fault anything, needs no thread, and an idle machine does nothing at all.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crossbeam::queue::ArrayQueue;
use refault_bus::clock::Clock;
use refault_bus::probe::{Probe, ProbeEvent, RequestEvent, Stage};

use super::collect::{Collector, Observed, Records};
use super::invalidations::Invalidation;
use super::record::FaultRecord;
use super::request::RequestRecord;
use super::stats::FaultSummary;

/// Events that can wait for assembly, 48 bytes each.
const QUEUE: usize = 16 * 1024;

/// Watched requests that can wait for the same, 112 bytes each.
const REQUESTS: usize = 1024;

/// Events that one caller assembles for all before it goes on.
const BATCH: usize = 64;

/// A scenario may fill this part of the room that is left when it begins: a long one leaves enough to the next.
const SHARE: usize = 8;

/// Stamps events, assembles them to faults, and keeps the tally by scenario.
pub struct Recorder {
    clock: Arc<dyn Clock>,
    origin: u64,
    /// Only one thread records, in no measured time: events need no queue.
    alone: bool,
    queue: ArrayQueue<(u64, ProbeEvent)>,
    lost: AtomicU64,
    requests: ArrayQueue<RequestEvent>,
    requests_lost: AtomicU64,
    collector: Mutex<Collector>,
}

impl Recorder {
    /// Faults kept by default: 7 MiB of them, of the 40 MiB that a VMM may have beyond its guest's memory. With
    /// queues, histograms, invalidations and watched requests a recorder has 1.6 MiB when it is new, and 16 MiB at
    /// most when 18 scenarios have filled it.
    pub const DEFAULT_BOUND: usize = 96 * 1024;

    /// A recorder that keeps at most `bound` faults (and a quarter as many invalidations, an eighth as many watched
    /// requests) one by one. What is beyond counts in the histograms only. `clock` must be the device's, which stamps
    /// watched requests itself. Time begins now.
    pub fn new(clock: Arc<dyn Clock>, bound: usize) -> Arc<Self> {
        Self::with(clock, bound, false)
    }

    /// As [`Self::new`], for one scenario, which may fill all of the room, on one thread's virtual time.
    pub fn of_one(clock: Arc<dyn Clock>, bound: usize) -> Arc<Self> {
        Self::with(clock, bound, true)
    }

    fn with(clock: Arc<dyn Clock>, bound: usize, alone: bool) -> Arc<Self> {
        let (origin, share) = (clock.now_ns(), if alone { 1 } else { SHARE });
        Arc::new(Self {
            clock,
            origin,
            alone,
            queue: ArrayQueue::new(QUEUE),
            lost: AtomicU64::new(0),
            requests: ArrayQueue::new(REQUESTS),
            requests_lost: AtomicU64::new(0),
            collector: Mutex::new(Collector::new(bound, share)),
        })
    }

    /// What the clock showed when time began.
    pub fn origin_ns(&self) -> u64 {
        self.origin
    }

    /// Begins a scenario in a mode: faults that miss from now on are its own. Ends the one before. A pair of
    /// names used before is continued.
    pub fn begin(&self, scenario: &str, mode: &str) {
        let now = self.now();
        self.settled().begin(now, scenario, mode);
    }

    /// Ends the scenario: faults that miss from now on belong to none.
    pub fn end(&self) {
        let now = self.now();
        self.settled().end(now);
    }

    /// The faults kept, in the order in which they ended.
    pub fn faults(&self) -> Vec<FaultRecord> {
        self.settled().faults().iter().collect()
    }

    /// The invalidations kept, in the order in which they completed.
    pub fn invalidations(&self) -> Vec<Invalidation> {
        self.settled().invalidations().to_vec()
    }

    /// The watched requests kept, in the order in which they ended.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.settled().requests().to_vec()
    }

    /// What the faults of a scenario in a mode come to; zeroes if it never began.
    pub fn scenario_summary(&self, scenario: &str, mode: &str) -> FaultSummary {
        self.settled().summary(scenario, mode)
    }

    /// How much was seen, kept and lost.
    pub fn observed(&self) -> Observed {
        let observed = self.settled().observed();
        self.with_losses(observed)
    }

    fn with_losses(&self, observed: Observed) -> Observed {
        Observed {
            events_lost: self.lost.load(Ordering::Relaxed),
            requests_lost: self.requests_lost.load(Ordering::Relaxed),
            ..observed
        }
    }

    /// A copy of everything, for the report.
    pub fn records(&self) -> Records {
        let now = self.now();
        let records = self.settled().records(now);
        Records { observed: self.with_losses(records.observed), ..records }
    }

    /// As [`Self::records`], but moved out of the recorder, which keeps no more faults one by one.
    pub fn take_records(&self) -> Records {
        let now = self.now();
        let records = self.settled().take_records(now);
        Records { observed: self.with_losses(records.observed), ..records }
    }

    /// The collector with all events in it that were recorded before the call.
    fn settled(&self) -> MutexGuard<'_, Collector> {
        let mut collector = self.collector();
        self.assemble(&mut collector, QUEUE);
        collector
    }

    fn collector(&self) -> MutexGuard<'_, Collector> {
        self.collector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves up to `limit` events on, unless somebody else is doing so.
    fn help(&self, limit: usize) {
        match self.collector.try_lock() {
            Ok(mut collector) => self.assemble(&mut collector, limit),
            Err(TryLockError::Poisoned(poisoned)) => self.assemble(&mut poisoned.into_inner(), limit),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn assemble(&self, collector: &mut Collector, limit: usize) {
        for (at, event) in std::iter::from_fn(|| self.queue.pop()).take(limit) {
            collector.take(at, &event);
        }
        for event in std::iter::from_fn(|| self.requests.pop()).take(limit) {
            collector.take_request(&event, self.origin);
        }
    }

    /// Runs `work` while nobody can assemble.
    #[cfg(test)]
    pub(super) fn while_busy(&self, work: impl FnOnce()) {
        let _collector = self.collector.lock();
        work();
    }

    fn now(&self) -> u64 {
        self.clock.now_ns().saturating_sub(self.origin)
    }
}

impl Probe for Recorder {
    fn record(&self, event: &ProbeEvent) {
        let stamped = (self.now(), *event);
        if self.alone {
            return self.collector().take(stamped.0, event);
        }
        if let Err(stamped) = self.queue.push(stamped) {
            self.help(BATCH);
            if self.queue.push(stamped).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        if matches!(event.stage, Stage::Copied | Stage::Failed | Stage::Invalidated) {
            self.help(BATCH);
        }
    }

    /// The device is done with the request: whatever is done here delays only the next one.
    fn request(&self, event: &RequestEvent) {
        if let Err(event) = self.requests.push(*event) {
            self.help(BATCH);
            if self.requests.push(event).is_err() {
                self.requests_lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.help(BATCH);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("waiting", &self.queue.len()).field("lost", &self.lost).finish()
    }
}
