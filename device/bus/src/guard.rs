//! A lock with a right of way: what a flush waits for is bounded, however busy those are that it interrupts.
//!
//! A device's copies and lookups are each a guarded step, one after the other without end, and an invalidation must get in
//! between: the guest waits for it with interrupts off. But a mutex that is released and taken again at once may never be
//! handed over. So there is a second one, the turnstile. An interrupter takes it, says so, and waits for the first; all
//! others queue up at the turnstile from then on. Each of them may have looked before that, and go in once more.

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, lock};

/// State that some threads use most of the time, and that others may interrupt.
#[derive(Debug, Default)]
pub struct Guarded<T> {
    /// An interrupter holds the turnstile.
    wanted: AtomicBool,
    /// Held by the interrupter at work. Lock order: before `inner`, and never while holding it.
    turnstile: Mutex<()>,
    inner: Mutex<T>,
}

impl<T> Guarded<T> {
    /// A guard around `inner`.
    pub fn new(inner: T) -> Self {
        Self { wanted: AtomicBool::new(false), turnstile: Mutex::new(()), inner: Mutex::new(inner) }
    }

    /// Enters, after the interrupter that is waiting.
    pub fn enter(&self) -> MutexGuard<'_, T> {
        if self.is_wanted() {
            drop(lock(&self.turnstile));
        }
        lock(&self.inner)
    }

    /// Whether an interrupter waits: the holder should leave soon, and enter again.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Runs `work` inside, as soon as those leave who are inside or have looked for an interrupter already.
    pub fn interrupt<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // Announced with the turnstile held: those that come by earlier must not pass it, for they would take it from
        // this interrupter again and again.
        let turn = lock(&self.turnstile);
        self.wanted.store(true, Ordering::SeqCst);
        let result = work(&mut lock(&self.inner));
        self.wanted.store(false, Ordering::SeqCst);
        drop(turn);
        result
    }
}

/// The guards of several workers.
pub struct Guards<T>(Box<[Guarded<T>]>);

impl<T> Guards<T> {
    /// A guard around each of `all`.
    pub fn new(all: impl Iterator<Item = T>) -> Self {
        Self(all.map(Guarded::new).collect())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The guard of a worker.
    ///
    /// # Panics
    ///
    /// There is no such worker.
    pub fn of(&self, worker: usize) -> &Guarded<T> {
        &self.0[worker]
    }

    /// Interrupts every worker in turn. On return each of them has left its guard since the call, or was outside: what it
    /// had found inside before is used no longer.
    pub fn pass(&self, mut work: impl FnMut(&mut T)) {
        for guard in &self.0 {
            guard.interrupt(&mut work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn those_that_come_after_an_interrupter_enter_after_it() {
        const LATER: usize = 4;
        let guarded = Guarded::new(Vec::new());
        let inside = guarded.enter();
        std::thread::scope(|scope| {
            scope.spawn(|| guarded.interrupt(|order| order.push("interrupter")));
            while !guarded.is_wanted() {
                std::thread::yield_now();
            }
            for _ in 0..LATER {
                scope.spawn(|| guarded.enter().push("later"));
            }
            drop(inside);
        });
        let order = guarded.enter();
        assert_eq!((order[0], order.len()), ("interrupter", 1 + LATER));
    }

    #[test]
    fn a_busy_worker_does_not_starve_an_interrupter() {
        let guarded = Arc::new(Guarded::new(0u64));
        let stop = Arc::new(AtomicBool::new(false));
        let worker = std::thread::spawn({
            let (guarded, stop) = (guarded.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut inside = guarded.enter();
                    while !guarded.is_wanted() && !stop.load(Ordering::Relaxed) {
                        *inside += 1;
                    }
                }
            }
        });
        for _ in 0..1000 {
            guarded.interrupt(|count| *count += 1);
        }
        stop.store(true, Ordering::Relaxed);
        worker.join().unwrap();
    }
}
