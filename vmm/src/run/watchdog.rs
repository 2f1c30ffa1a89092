//! Ends a machine that exceeds the user's limit, or takes too long to power off after the command's end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use refault_machine::MachineHandle;
use refault_os::syscalls::{ThreadKind, confine};

/// Time to power off after the command's end: this, and [`GRACE_BOOTS`] times the boot time.
const GRACE: Duration = Duration::from_secs(20);
const GRACE_BOOTS: u32 = 4;
/// Time for the guest's kernel to log its state when the limit is reached.
const REPORT: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 5000 });

/// A step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEvent {
    /// The guest has booted; the command begins.
    Ready,
    /// The guest has reported the exit status; it will power off.
    CommandEnded,
    /// The machine has ended, and the guest's output has been read.
    MachineEnded,
}

/// The timeouts of one run.
#[derive(Debug)]
pub(super) struct Watchdog {
    events: Receiver<RunEvent>,
    limit: Option<Duration>,
}

impl Watchdog {
    pub(super) fn new(limit: Option<Duration>) -> (Self, Sender<RunEvent>) {
        let (sender, events) = channel();
        (Self { events, limit }, sender)
    }

    /// Starts the clock, in a thread. At the user's limit, `ask` requests a log of the guest's state if the command still
    /// runs; then the machine is stopped and `hurry` is called. The thread returns whether the limit was reached.
    pub(super) fn start(
        self,
        handle: MachineHandle,
        ask: impl Fn() + Send + 'static,
        hurry: impl Fn() + Send + 'static,
    ) -> JoinHandle<bool> {
        std::thread::spawn(move || {
            confine(ThreadKind::Other);
            self.wait(|| handle.stop(), ask, hurry)
        })
    }

    fn wait(&self, stop: impl Fn(), ask: impl Fn(), hurry: impl Fn()) -> bool {
        let start = Instant::now();
        let limit = self.limit.and_then(|limit| start.checked_add(limit));
        let (mut boot, mut grace, mut runs) = (Duration::ZERO, None, false);
        loop {
            match next(&self.events, [limit, grace].into_iter().flatten().min()) {
                Some(RunEvent::Ready) => (boot, runs) = (start.elapsed(), true),
                Some(RunEvent::MachineEnded) => return false,
                Some(RunEvent::CommandEnded) => {
                    runs = false;
                    grace = Instant::now().checked_add(GRACE.saturating_add(boot * GRACE_BOOTS))
                }
                None if limit.is_some_and(|limit| limit <= Instant::now()) => {
                    if runs {
                        ask();
                        let _ = next(&self.events, Instant::now().checked_add(REPORT));
                    }
                    stop();
                    hurry();
                    return true;
                }
                // Do not return yet: the guest's output may not have been read.
                None => {
                    stop();
                    grace = None;
                }
            }
        }
    }
}

/// The next event, or none at `end`. Disconnected senders mean that the run is over.
fn next(events: &Receiver<RunEvent>, end: Option<Instant>) -> Option<RunEvent> {
    let received = match end {
        Some(end) => events.recv_timeout(end.saturating_duration_since(Instant::now())),
        None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match received {
        Ok(event) => Some(event),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(RunEvent::MachineEnded),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn watch(limit: Option<Duration>, events: &[RunEvent]) -> (bool, u32) {
        let (watch, sender) = Watchdog::new(limit);
        events.iter().for_each(|event| sender.send(*event).expect("it receives"));
        let (stops, asks, hurries) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let count = |counter: &Cell<u32>| counter.set(counter.get() + 1);
        let late = watch.wait(|| count(&stops), || count(&asks), || count(&hurries));
        assert_eq!(hurries.get(), u32::from(late));
        let runs = events.contains(&RunEvent::Ready) && !events.contains(&RunEvent::CommandEnded);
        assert_eq!(asks.get(), u32::from(late && runs), "state is requested only of a running command");
        (late, stops.get())
    }

    #[test]
    fn a_run_that_ends_in_time_is_not_stopped() {
        assert_eq!(watch(Some(Duration::from_secs(60)), &[RunEvent::MachineEnded]), (false, 0));
        assert_eq!(watch(None, &[RunEvent::CommandEnded, RunEvent::MachineEnded]), (false, 0));
    }

    #[test]
    fn booting_does_not_stop_the_clock() {
        assert_eq!(watch(Some(Duration::from_millis(5)), &[RunEvent::Ready]), (true, 1));
        assert_eq!(
            watch(None, &[RunEvent::Ready, RunEvent::CommandEnded, RunEvent::MachineEnded]),
            (false, 0)
        );
    }

    #[test]
    fn a_run_that_takes_too_long_is_stopped() {
        assert_eq!(watch(Some(Duration::from_millis(5)), &[]), (true, 1));
        assert_eq!(
            watch(Some(Duration::from_millis(5)), &[RunEvent::Ready, RunEvent::CommandEnded]),
            (true, 1),
            "no reader"
        );
    }
}
