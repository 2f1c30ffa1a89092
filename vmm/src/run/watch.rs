//! Ends a machine that takes too long: by the user's limit, or after the command's end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine::MachineHandle;

/// What a guest may take to power off when the command has ended: this, and four times what it took to boot.
const GRACE: Duration = Duration::from_secs(20);
const GRACE_BOOTS: u32 = 4;

/// What happens to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The guest has booted; the command begins.
    Ready,
    /// The guest has told the exit status; it will power off.
    Told,
    /// The machine has ended.
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

    /// Starts the clock. The thread's result says whether the limit was exceeded.
    pub(super) fn start(self, handle: MachineHandle) -> JoinHandle<bool> {
        std::thread::spawn(move || self.wait(|| handle.stop()))
    }

    fn wait(&self, stop: impl Fn()) -> bool {
        let start = Instant::now();
        let mut boot = Duration::ZERO;
        loop {
            let left = self.limit.map(|limit| limit.saturating_sub(start.elapsed()));
            match next(&self.events, left) {
                Some(Event::Ready) => boot = start.elapsed(),
                Some(Event::Over) => return false,
                Some(Event::Told) => {
                    if next(&self.events, Some(GRACE.saturating_add(boot * GRACE_BOOTS))).is_none() {
                        stop();
                    }
                    return false;
                }
                None => {
                    stop();
                    return true;
                }
            }
        }
    }
}

/// The next event; none when the time is up first. Senders that are gone mean the end.
fn next(events: &Receiver<Event>, limit: Option<Duration>) -> Option<Event> {
    let end = limit.and_then(|limit| Instant::now().checked_add(limit));
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
        let stops = Cell::new(0);
        let late = watch.wait(|| stops.set(stops.get() + 1));
        (late, stops.get())
    }

    #[test]
    fn a_run_that_ends_in_time_is_left_alone() {
        assert_eq!(watch(Some(Duration::from_secs(60)), &[Event::Over]), (false, 0));
        assert_eq!(watch(None, &[Event::Told, Event::Over]), (false, 0));
    }

    #[test]
    fn booting_does_not_stop_the_clock() {
        assert_eq!(watch(Some(Duration::from_millis(5)), &[Event::Ready]), (true, 1));
        assert_eq!(watch(None, &[Event::Ready, Event::Told, Event::Over]), (false, 0));
    }

    #[test]
    fn a_run_that_takes_too_long_is_stopped() {
        assert_eq!(watch(Some(Duration::from_millis(5)), &[]), (true, 1));
    }
}
