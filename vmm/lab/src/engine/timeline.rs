//! Shared by all parts of an experiment: the virtual clock, future events, and the durations of steps.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rand_pcg::Pcg64Mcg;
use refault_bus::clock::Clock;
use refault_bus::sync::lock;

use super::agenda::{Agenda, SimEvent, VirtualClock};
use super::dice::{Stream, dice};
use refault_timing::{Delay, Timing};

/// The time of an experiment. Used by one thread; atomics and locks only make it [`Sync`], as the seams require.
pub(super) struct Timeline {
    pub(super) clock: Arc<VirtualClock>,
    pub(super) timing: Timing,
    agenda: Mutex<Agenda>,
    dice: Mutex<Pcg64Mcg>,
    /// Whether steps take time: not during setup, nor in [`Self::at_once`].
    live: AtomicBool,
    /// Whether stages are not recorded.
    untraced: AtomicBool,
    /// Whether a worker of the NIC is running.
    working: AtomicBool,
    /// Virtual time at which the NIC's copies in flight end.
    copying_until: AtomicU64,
}

impl Timeline {
    pub(super) fn new(timing: Timing, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::default(),
            timing,
            agenda: Mutex::default(),
            dice: Mutex::new(dice(seed, Stream::Timing)),
            live: AtomicBool::new(false),
            untraced: AtomicBool::new(true),
            working: AtomicBool::new(false),
            copying_until: AtomicU64::new(0),
        })
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Draws the duration of a step.
    pub(super) fn draw(&self, delay: &Delay) -> u64 {
        match delay {
            Delay::Constant(ns) => *ns,
            delay => delay.sample(&mut lock(&self.dice)),
        }
    }

    /// Lets the time of a step pass.
    pub(super) fn pass(&self, delay: &Delay) {
        if self.is_live() {
            self.clock.advance(self.draw(delay));
        }
    }

    /// Schedules an event in `in_ns` nanoseconds.
    pub(super) fn schedule(&self, in_ns: u64, event: SimEvent) {
        lock(&self.agenda).schedule(self.now_ns().saturating_add(in_ns), event);
    }

    /// Schedules an event at the end of a step that starts now.
    pub(super) fn schedule_after(&self, delay: &Delay, event: SimEvent) {
        self.schedule(self.draw(delay), event);
    }

    /// Schedules an event at a time.
    pub(super) fn schedule_at(&self, at_ns: u64, event: SimEvent) {
        lock(&self.agenda).schedule(at_ns, event);
    }

    /// Removes the next event and sets the clock to its time.
    pub(super) fn next(&self) -> Option<SimEvent> {
        let (at_ns, event) = lock(&self.agenda).next()?;
        self.clock.set(at_ns);
        Some(event)
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::Relaxed);
    }

    /// Starts the experiment.
    pub(super) fn begin(&self) {
        self.set_live(true);
        self.untraced.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_untraced(&self) -> bool {
        self.untraced.load(Ordering::Relaxed)
    }

    pub(super) fn is_working(&self) -> bool {
        self.working.load(Ordering::Relaxed)
    }

    /// Runs a worker of the NIC.
    pub(super) fn work<R>(&self, work: impl FnOnce() -> R) -> R {
        self.working.store(true, Ordering::Relaxed);
        let result = work();
        self.working.store(false, Ordering::Relaxed);
        result
    }

    /// Does work that takes no time and is not recorded.
    pub(super) fn untraced<R>(&self, work: impl FnOnce() -> R) -> R {
        let was = self.untraced.swap(true, Ordering::Relaxed);
        let result = self.at_once(work);
        self.untraced.store(was, Ordering::Relaxed);
        result
    }

    /// Removes the fault messages in flight between device and guest from the agenda.
    pub(super) fn take_traffic(&self) -> Vec<SimEvent> {
        let traffic = |event: &SimEvent| {
            matches!(event, SimEvent::PageRequest(_) | SimEvent::Response(_) | SimEvent::Handler(_))
        };
        lock(&self.agenda).take(traffic)
    }

    /// Does work that takes no time.
    pub(super) fn at_once<R>(&self, work: impl FnOnce() -> R) -> R {
        let was = self.is_live();
        self.set_live(false);
        let result = work();
        self.set_live(was);
        result
    }

    /// Notes that copies of the NIC last until a time.
    pub(super) fn set_copying_until(&self, ns: u64) {
        self.copying_until.fetch_max(ns, Ordering::Relaxed);
    }

    /// Nanoseconds until the NIC's copies in flight end.
    pub(super) fn copying_left_ns(&self) -> u64 {
        self.copying_until.load(Ordering::Relaxed).saturating_sub(self.now_ns())
    }
}
