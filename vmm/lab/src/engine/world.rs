//! What all parts of an experiment share: the clock, the agenda, and how long each step takes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand_pcg::Pcg64Mcg;
use refault_bus::clock::Clock;

use super::agenda::{Agenda, Event, VirtualClock};
use super::dice::{Stream, dice};
use refault_timing::{Delay, Timing};

/// Shared by the seams and the engine; all of it is used by one thread.
pub(super) struct World {
    pub(super) clock: Arc<VirtualClock>,
    pub(super) timing: Timing,
    agenda: Mutex<Agenda>,
    dice: Mutex<Pcg64Mcg>,
    /// Off while the machine is set up, and whenever something shall take no time.
    live: AtomicBool,
    /// Nobody hears of what happens: it is no part of the experiment.
    unseen: AtomicBool,
    /// A worker of the NIC is at work, not somebody else on its registers.
    working: AtomicBool,
    /// Until when copies are under way at the NIC.
    copying_until: AtomicU64,
}

impl World {
    pub(super) fn new(timing: Timing, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::default(),
            timing,
            agenda: Mutex::default(),
            dice: Mutex::new(dice(seed, Stream::Timing)),
            live: AtomicBool::new(false),
            unseen: AtomicBool::new(true),
            working: AtomicBool::new(false),
            copying_until: AtomicU64::new(0),
        })
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// How long a step takes this time.
    pub(super) fn draw(&self, delay: &Delay) -> u64 {
        match delay {
            Delay::Constant(ns) => *ns,
            delay => delay.sample(&mut lock(&self.dice)),
        }
    }

    /// A step takes its time.
    pub(super) fn pass(&self, delay: &Delay) {
        if self.is_live() {
            self.clock.advance(self.draw(delay));
        }
    }

    /// Something happens in `ns` nanoseconds.
    pub(super) fn note(&self, in_ns: u64, event: Event) {
        lock(&self.agenda).note(self.now_ns().saturating_add(in_ns), event);
    }

    /// Something happens when a step is over that begins now.
    pub(super) fn note_after(&self, delay: &Delay, event: Event) {
        self.note(self.draw(delay), event);
    }

    /// Something happens then.
    pub(super) fn note_at(&self, at_ns: u64, event: Event) {
        lock(&self.agenda).note(at_ns, event);
    }

    /// The next event; the clock shows its time.
    pub(super) fn next(&self) -> Option<Event> {
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

    /// The experiment begins.
    pub(super) fn begin(&self) {
        self.set_live(true);
        self.unseen.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_unseen(&self) -> bool {
        self.unseen.load(Ordering::Relaxed)
    }

    pub(super) fn is_working(&self) -> bool {
        self.working.load(Ordering::Relaxed)
    }

    /// A worker does something.
    pub(super) fn work<R>(&self, work: impl FnOnce() -> R) -> R {
        self.working.store(true, Ordering::Relaxed);
        let result = work();
        self.working.store(false, Ordering::Relaxed);
        result
    }

    /// Does something in no time that is no part of the experiment.
    pub(super) fn unseen<R>(&self, work: impl FnOnce() -> R) -> R {
        let was = self.unseen.swap(true, Ordering::Relaxed);
        let result = self.at_once(work);
        self.unseen.store(was, Ordering::Relaxed);
        result
    }

    /// Takes what is on its way between device and guest out of the agenda.
    pub(super) fn take_traffic(&self) -> Vec<Event> {
        let traffic =
            |event: &Event| matches!(event, Event::PageRequest(_) | Event::Response(_) | Event::Handler(_));
        lock(&self.agenda).take(traffic)
    }

    /// Does something in no time.
    pub(super) fn at_once<R>(&self, work: impl FnOnce() -> R) -> R {
        let was = self.is_live();
        self.set_live(false);
        let result = work();
        self.set_live(was);
        result
    }

    /// Copies of the NIC last until then.
    pub(super) fn set_copying_until(&self, ns: u64) {
        self.copying_until.fetch_max(ns, Ordering::Relaxed);
    }

    /// How long the copies still last that are under way now.
    pub(super) fn copies_last_ns(&self) -> u64 {
        self.copying_until.load(Ordering::Relaxed).saturating_sub(self.now_ns())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
