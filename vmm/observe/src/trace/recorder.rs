//! The probe of a running machine.
//!
//! Recording reads the clock and pushes onto a lock-free queue, so the fault path never blocks. The thread that ends a
//! fault drains the queue after it has stamped the end: assembly adds no time to a measured fault and needs no thread.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use crossbeam::queue::ArrayQueue;
use refault_bus::clock::Clock;
use refault_bus::probe::{Probe, ProbeEvent, RequestEvent, Stage};
use refault_bus::sync::lock;

use super::collect::{Collector, Observed, Records};
use super::invalidations::Invalidation;
use super::record::FaultRecord;
use super::request::RequestRecord;
use super::stats::FaultSummary;

/// Most events that wait for assembly, of 48 bytes each.
const QUEUE: usize = 16 * 1024;

/// Most sampled requests that wait for assembly, of 112 bytes each.
const REQUESTS: usize = 1024;

/// Most events that one caller assembles.
const BATCH: usize = 64;

/// Divisor of the free space that a scenario may fill, so that a long one leaves enough for later ones.
const SHARE: usize = 8;

/// Timestamps events, assembles them into faults, and keeps statistics by scenario.
pub struct Recorder {
    clock: Arc<dyn Clock>,
    origin: u64,
    /// Only one thread records, on a virtual clock: events need no queue.
    alone: bool,
    queue: ArrayQueue<(u64, ProbeEvent)>,
    lost: AtomicU64,
    requests: ArrayQueue<RequestEvent>,
    requests_lost: AtomicU64,
    collector: Mutex<Collector>,
}

impl Recorder {
    /// Faults kept by default: 7 MiB of the 40 MiB that a VMM may use beyond its guest's memory. With queues, histograms,
    /// invalidations and sampled requests, a new recorder has 1.6 MiB, and at most 16 MiB after 18 scenarios.
    pub const DEFAULT_BOUND: usize = 96 * 1024;

    /// A recorder that keeps records of at most `bound` faults, a quarter as many invalidations, and an eighth as many
    /// sampled requests; further ones are only counted, and enter the histograms. `clock` must be the device's, which timestamps sampled
    /// requests itself. Record times count from now.
    pub fn new(clock: Arc<dyn Clock>, bound: usize) -> Arc<Self> {
        Self::with(clock, bound, false)
    }

    /// As [`Self::new`], for a single scenario on one thread's virtual clock, which may fill the whole store.
    pub fn single_threaded(clock: Arc<dyn Clock>, bound: usize) -> Arc<Self> {
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

    /// Clock reading that record times count from.
    pub fn origin_ns(&self) -> u64 {
        self.origin
    }

    /// Begins a scenario, to which faults from now on belong, and ends the one before. A pair of names that was used before
    /// is continued.
    pub fn begin(&self, scenario: &str, mode: &str) {
        let now = self.now();
        self.drained().begin(now, scenario, mode);
    }

    /// Ends the scenario: faults from now on belong to none.
    pub fn end(&self) {
        let now = self.now();
        self.drained().end(now);
    }

    /// The kept faults, in the order of their ends.
    pub fn faults(&self) -> Vec<FaultRecord> {
        self.drained().faults().iter().collect()
    }

    /// The kept invalidations, in the order of their completion.
    pub fn invalidations(&self) -> Vec<Invalidation> {
        self.drained().invalidations().to_vec()
    }

    /// The kept sampled requests, in the order of their ends.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.drained().requests().to_vec()
    }

    /// Statistics of a scenario's faults; zeroes if it never began.
    pub fn scenario_summary(&self, scenario: &str, mode: &str) -> FaultSummary {
        self.drained().summary(scenario, mode)
    }

    /// Counts of what was observed, kept and lost.
    pub fn observed(&self) -> Observed {
        let observed = self.drained().observed();
        self.with_losses(observed)
    }

    fn with_losses(&self, observed: Observed) -> Observed {
        Observed {
            events_lost: self.lost.load(Ordering::Relaxed),
            requests_lost: self.requests_lost.load(Ordering::Relaxed),
            ..observed
        }
    }

    /// A copy of all records.
    pub fn records(&self) -> Records {
        let now = self.now();
        let records = self.drained().records(now);
        Records { observed: self.with_losses(records.observed), ..records }
    }

    /// As [`Self::records`], but moves the records out; the recorder keeps no more faults afterwards.
    pub fn take_records(&self) -> Records {
        let now = self.now();
        let records = self.drained().take_records(now);
        Records { observed: self.with_losses(records.observed), ..records }
    }

    /// The collector, after it has taken all events that were recorded before the call.
    fn drained(&self) -> MutexGuard<'_, Collector> {
        let mut collector = self.collector();
        self.assemble(&mut collector, QUEUE);
        collector
    }

    fn collector(&self) -> MutexGuard<'_, Collector> {
        lock(&self.collector)
    }

    /// Assembles up to `limit` events, unless another thread is doing so.
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

    /// Runs `work` while assembly is blocked.
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

    /// The device has finished the request, so work done here delays only the next one.
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
