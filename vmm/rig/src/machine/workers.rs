//! The NIC's workers, run by the thread that polls them.

use std::sync::{Arc, Mutex};

use refault_bus::sync::lock;
use refault_model::Pause;
use refault_nic::{Nic, Worker};

/// Most polls of the NIC in one wait of a driver: a longer wait counts as stuck.
pub const POLLS_MAX: u64 = 100_000;

/// Workers of one NIC. All copies share them.
#[derive(Clone)]
pub struct Workers(Arc<Mutex<Vec<Worker>>>);

impl Workers {
    /// All workers of `nic`.
    pub fn of(nic: &Arc<Nic>) -> Self {
        Self(Arc::new(Mutex::new((0..nic.worker_count()).map(|index| nic.worker(index)).collect())))
    }

    /// Does one piece of work. Returns false if there was none.
    pub fn step(&self) -> bool {
        lock(&self.0).iter_mut().any(Worker::poll)
    }

    /// Does all pending work. Returns false if there was none.
    pub fn poll(&self) -> bool {
        let mut worked = false;
        for worker in lock(&self.0).iter_mut() {
            while worker.poll() {
                worked = true;
            }
        }
        worked
    }

    /// The earliest deadline of any worker, in nanoseconds of the NIC's clock.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        lock(&self.0).iter().filter_map(Worker::next_deadline_ns).min()
    }

    /// Lets each worker act on deadlines that have passed.
    pub fn expire(&self) {
        lock(&self.0).iter_mut().for_each(Worker::expire);
    }

    /// Takes the workers, for another owner to run. Until [`Self::put_back`] no work is done here.
    pub fn take(&self) -> Vec<Worker> {
        std::mem::take(&mut *lock(&self.0))
    }

    /// Returns workers that were taken with [`Self::take`].
    pub fn put_back(&self, workers: Vec<Worker>) {
        *lock(&self.0) = workers;
    }

    /// Whether the workers have been taken.
    pub fn are_taken(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// A wait of the driver in which the NIC works, of at most `polls` polls.
    pub fn pause(&self, polls: u64) -> Pause {
        let workers = self.clone();
        Pause::new(move |polled| {
            workers.poll();
            polled < polls
        })
    }
}
