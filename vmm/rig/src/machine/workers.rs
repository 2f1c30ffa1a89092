//! The NIC's workers, on whichever thread asks them to work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refault_model::Pause;
use refault_nic::{Nic, Worker};

/// Polls of a wait, in each of which the NIC works, after which it counts as stuck.
pub const POLLS_MAX: u64 = 100_000;

/// Workers of one NIC. All copies share them.
#[derive(Clone)]
pub struct Workers(Arc<Mutex<Vec<Worker>>>);

impl Workers {
    /// All workers of `nic`.
    pub fn of(nic: &Arc<Nic>) -> Self {
        Self(Arc::new(Mutex::new((0..nic.worker_count()).map(|index| nic.worker(index)).collect())))
    }

    /// Does one piece of work. False if there is none.
    pub fn step(&self) -> bool {
        self.lock().iter_mut().any(Worker::poll)
    }

    /// Does all the work there is. False if there was none.
    pub fn poll(&self) -> bool {
        let mut worked = false;
        for worker in self.lock().iter_mut() {
            while worker.poll() {
                worked = true;
            }
        }
        worked
    }

    /// The next moment at which a worker has to act, in nanoseconds of the NIC's clock.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.lock().iter().filter_map(Worker::next_deadline_ns).min()
    }

    /// Lets each worker act on deadlines that have passed.
    pub fn expire(&self) {
        self.lock().iter_mut().for_each(Worker::expire);
    }

    /// Takes the workers, for another owner to run. Until [`Self::put_back`] no work is done here.
    pub fn take(&self) -> Vec<Worker> {
        std::mem::take(&mut *self.lock())
    }

    /// Gives workers back.
    pub fn put_back(&self, workers: Vec<Worker>) {
        *self.lock() = workers;
    }

    /// Whether the workers have been taken.
    pub fn are_taken(&self) -> bool {
        self.lock().is_empty()
    }

    /// A wait of the driver during which the NIC works, for `polls` polls at most.
    pub fn pause(&self, polls: u64) -> Pause {
        let workers = self.clone();
        Pause::new(move |polled| {
            workers.poll();
            polled < polls
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
