//! Ends a machine that takes too long: by the user's limit, or after the command's end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use refault_machine::MachineHandle;

/// What a guest may take to power off when the command has ended: this, and four times what it took to boot.
const GRACE: Duration = Duration::from_secs(20);
const GRACE_BOOTS: u32 = 4;
/// For its kernel to log what it does, when the time is up.
const REPORT: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 5000 });

/// What happens to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The guest has booted; the command begins.
    Ready,
    /// The guest has told the exit status; it will power off.
    Ended,
    /// The machine has ended, and what the guest wrote has been read.
    Over,
}

/// Watches over one run.
#[derive(Debug)]
pub(super) struct Watch {
    events: Receiver<Event>,
    limit: Option<Duration>,
}

impl Watch {
    pub(super) fn new(limit: Option<Duration>) -> (Self, Sender<Event>) {
        let (sender, events) = channel();
        (Self { events, limit }, sender)
    }

    /// Starts the clock. At the user's limit a guest whose command still runs is asked, by `ask`, to log what it does; then
    /// the machine is stopped and `hurry` is called, once. The thread's result says whether that happened.
    pub(super) fn start(
        self,
        handle: MachineHandle,
        ask: impl Fn() + Send + 'static,
        hurry: impl Fn() + Send + 'static,
    ) -> JoinHandle<bool> {
        std::thread::spawn(move || self.wait(|| handle.stop(), ask, hurry))
    }

    fn wait(&self, stop: impl Fn(), ask: impl Fn(), hurry: impl Fn()) -> bool {
        let start = Instant::now();
        let limit = self.limit.and_then(|limit| start.checked_add(limit));
        let (mut boot, mut grace, mut runs) = (Duration::ZERO, None, false);
        loop {
            match next(&self.events, [limit, grace].into_iter().flatten().min()) {
                Some(Event::Ready) => (boot, runs) = (start.elapsed(), true),
                Some(Event::Over) => return false,
                Some(Event::Ended) => {
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
                // What the guest wrote is still waited for.
                None => {
                    stop();
                    grace = None;
                }
            }
        }
    }
}

/// The next event; none when it is `end` first. Senders that are gone mean the end of the run.
fn next(events: &Receiver<Event>, end: Option<Instant>) -> Option<Event> {
    let received = match end {
        Some(end) => events.recv_timeout(end.saturating_duration_since(Instant::now())),
        None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match received {
        Ok(event) => Some(event),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Event::Over),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn watch(limit: Option<Duration>, events: &[Event]) -> (bool, u32) {
        let (watch, sender) = Watch::new(limit);
        events.iter().for_each(|event| sender.send(*event).expect("it listens"));
        let (stops, asks, hurries) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let count = |counter: &Cell<u32>| counter.set(counter.get() + 1);
        let late = watch.wait(|| count(&stops), || count(&asks), || count(&hurries));
        assert_eq!(hurries.get(), u32::from(late));
        let runs = events.contains(&Event::Ready) && !events.contains(&Event::Ended);
        assert_eq!(asks.get(), u32::from(late && runs), "only a command that runs is asked about");
        (late, stops.get())
    }

    #[test]
    fn a_run_that_ends_in_time_is_left_alone() {
        assert_eq!(watch(Some(Duration::from_secs(60)), &[Event::Over]), (false, 0));
        assert_eq!(watch(None, &[Event::Ended, Event::Over]), (false, 0));
    }

    #[test]
    fn booting_does_not_stop_the_clock() {
        assert_eq!(watch(Some(Duration::from_millis(5)), &[Event::Ready]), (true, 1));
        assert_eq!(watch(None, &[Event::Ready, Event::Ended, Event::Over]), (false, 0));
    }

    #[test]
    fn a_run_that_takes_too_long_is_stopped() {
        assert_eq!(watch(Some(Duration::from_millis(5)), &[]), (true, 1));
        assert_eq!(
            watch(Some(Duration::from_millis(5)), &[Event::Ready, Event::Ended]),
            (true, 1),
            "no reader"
        );
    }
}
