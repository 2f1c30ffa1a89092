//! The guard: what makes translate-and-copy one step that an invalidation cannot split.
//!
//! A worker holds its guard while it translates and copies a bounded chunk. An invalidation passes through every guard in
//! turn. A requester is guarded in the same way, between a worker's turns and commands. A mutex that is released and taken
//! again at once may never be handed over, and the guest waits for invalidations with interrupts off. So an interrupter
//! announces itself first; after its chunk a worker leaves the guard, and queues behind the interrupter on a second mutex.

use refault_bus::sync::atomic::{AtomicU32, Ordering};
use refault_bus::sync::{Mutex, MutexGuard, lock};

/// State that one worker uses most of the time, and others may interrupt.
#[derive(Debug, Default)]
pub(crate) struct Guarded<T> {
    /// Interrupters that wait or are inside.
    wanted: AtomicU32,
    /// Held by the interrupter at work. Lock order: before `inner`, and never while holding it.
    turnstile: Mutex<()>,
    inner: Mutex<T>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { wanted: AtomicU32::new(0), turnstile: Mutex::new(()), inner: Mutex::new(inner) }
    }

    /// Enters, after every interrupter that is waiting.
    pub(crate) fn enter(&self) -> MutexGuard<'_, T> {
        if self.is_wanted() {
            drop(lock(&self.turnstile));
        }
        lock(&self.inner)
    }

    /// Whether an interrupter waits: the holder should leave soon, and enter again.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != 0
    }

    /// Runs `work` inside, as soon as the holder leaves.
    pub(crate) fn interrupt<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // Announced before the turnstile is taken, so that a worker that enters from here on queues up behind it.
        self.wanted.fetch_add(1, Ordering::SeqCst);
        let turn = lock(&self.turnstile);
        let result = work(&mut lock(&self.inner));
        self.wanted.fetch_sub(1, Ordering::SeqCst);
        drop(turn);
        result
    }
}

/// The guards of all workers.
pub(crate) struct Guards<T>(Box<[Guarded<T>]>);

impl<T> Guards<T> {
    /// A guard around each of `all`.
    pub(crate) fn new(all: impl Iterator<Item = T>) -> Self {
        Self(all.map(Guarded::new).collect())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The guard of a worker.
    pub(crate) fn of(&self, worker: usize) -> &Guarded<T> {
        &self.0[worker]
    }

    /// Interrupts every worker in turn. On return each of them has left its guard since the call, or was outside: what it
    /// had found inside before is used no longer.
    pub(crate) fn pass(&self, mut work: impl FnMut(&mut T)) {
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
