//! The machine on threads, as the VMM runs it: one for each worker of the NIC, and one for the guest's page request
//! thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use refault_bus::clock::Clock;
use refault_nic::Worker;

use crate::machine::Machine;
use crate::platform::PAGE_REQUEST_VECTOR;

/// Longest sleep of an idle thread, and so the longest delay of its end.
const NAP: Duration = Duration::from_millis(1);

/// Runs `body` while the machine's workers and its page request thread run on threads of their own. `clock` must be
/// the NIC's.
pub fn run<R>(machine: &Machine, clock: &dyn Clock, body: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    let workers = machine.take_workers();
    let result = thread::scope(|scope| {
        let ends = StopOnDrop(&stop);
        let workers: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let stop = &stop;
                scope.spawn(move || work(worker, clock, stop))
            })
            .collect();
        scope.spawn(|| serve_faults(machine, &stop));
        let result = body();
        drop(ends);
        (result, workers.into_iter().map(|worker| worker.join().expect("a worker")).collect())
    });
    machine.put_back(result.1);
    result.0
}

/// Stops the threads even if the body panics: a scope waits for them.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn work(mut worker: Worker, clock: &dyn Clock, stop: &AtomicBool) -> Worker {
    while !stop.load(Ordering::Acquire) {
        let deadline = worker.next_deadline_ns().unwrap_or(u64::MAX);
        let nap = NAP.min(Duration::from_nanos(deadline.saturating_sub(clock.now_ns())));
        if let Ok(work) = worker.receiver().recv_timeout(nap) {
            worker.process(work);
        }
        if clock.now_ns() >= deadline {
            worker.expire();
        }
    }
    worker
}

fn serve_faults(machine: &Machine, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        if machine.interrupts.take(PAGE_REQUEST_VECTOR) > 0 {
            machine.serve_faults();
        } else {
            thread::sleep(NAP / 20);
        }
    }
}
