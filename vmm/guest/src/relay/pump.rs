//! Sends standard input to the command, no faster than the command consumes it.

use std::io::Read;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::frame::{Frame, PAYLOAD_MAX};

/// Flow control: limits the bytes in flight, because a slow reader must not fill queues that drop what does not
/// fit.
#[derive(Debug)]
pub struct Credit {
    state: Mutex<State>,
    changed: Condvar,
    window: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The receiver is not ready yet.
    Waiting,
    /// This many bytes may be sent.
    Open(usize),
    /// The receiver is gone.
    Closed,
}

impl Credit {
    /// A window of `window` bytes, closed until the receiver is ready.
    pub fn new(window: usize) -> Self {
        Self { state: Mutex::new(State::Waiting), changed: Condvar::new(), window }
    }

    /// Opens the window, if it has not been opened before.
    pub fn open(&self) {
        self.change(|state, window| {
            if *state == State::Waiting {
                *state = State::Open(window);
            }
        });
    }

    /// Returns `count` bytes that the receiver has consumed. The credit never exceeds the window, whatever the
    /// receiver claims.
    pub fn give(&self, count: usize) {
        self.change(|state, window| {
            if let State::Open(left) = state {
                *left = left.saturating_add(count).min(window);
            }
        });
    }

    /// Closes the window for good and wakes all waiters.
    pub fn close(&self) {
        self.change(|state, _| *state = State::Closed);
    }

    /// Waits until the window is open; false if it is closed for good.
    pub fn wait_open(&self) -> bool {
        self.wait(|state| state != State::Waiting) != State::Closed
    }

    /// Waits for credit and takes at most `wanted` bytes of it; `None` once the window is closed.
    fn take(&self, wanted: usize) -> Option<usize> {
        // Only one thread takes credit, so it cannot shrink in between.
        let State::Open(left) = self.wait(|state| !matches!(state, State::Waiting | State::Open(0))) else {
            return None;
        };
        let count = left.min(wanted);
        self.change(|state, _| {
            if let State::Open(left) = state {
                *left -= count;
            }
        });
        Some(count)
    }

    fn wait(&self, until: impl Fn(State) -> bool) -> State {
        let state = self.lock();
        *self.changed.wait_while(state, |state| !until(*state)).unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State, usize)) {
        change(&mut self.lock(), self.window);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads `input` to its end and passes it to `send` in frames, followed by an empty frame. Returns early when the
/// credit is closed or `send` refuses.
pub fn pump_input(mut input: impl Read, credit: &Credit, mut send: impl FnMut(&Frame) -> bool) {
    let mut buffer = [0u8; PAYLOAD_MAX];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // A read error counts as the end of the input.
            Err(_) => 0,
        };
        if count == 0 {
            // Not before the window is open: data sent to a port that is not set up is lost.
            if credit.wait_open() {
                send(&Frame::Input(Vec::new()));
            }
            return;
        }
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            let Some(granted) = credit.take(rest.len()) else { return };
            let (now, later) = rest.split_at(granted);
            if !send(&Frame::Input(now.to_vec())) {
                return;
            }
            rest = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(window: usize) -> Credit {
        let credit = Credit::new(window);
        credit.open();
        credit
    }

    #[test]
    fn a_receiver_cannot_enlarge_the_window() {
        let credit = open(100);
        credit.give(usize::MAX);
        credit.open();
        assert_eq!(credit.take(1000), Some(100));
        credit.give(7);
        assert_eq!(credit.take(1000), Some(7));
    }

    #[test]
    fn input_waits_until_the_window_opens() {
        let credit = Credit::new(1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| credit.wait_open());
            credit.open();
            assert!(waiting.join().expect("no panic"));
        });
        let closed = Credit::new(1);
        closed.close();
        closed.open();
        assert!(!closed.wait_open());
    }

    #[test]
    fn never_more_than_the_credit_is_in_flight() {
        let input = vec![7u8; 10_000];
        let credit = open(1000);
        let (mut sent, mut largest, mut ended) = (0, 0, false);
        pump_input(input.as_slice(), &credit, |frame| {
            let Frame::Input(bytes) = frame else { return false };
            largest = largest.max(bytes.len());
            sent += bytes.len();
            ended = bytes.is_empty();
            credit.give(bytes.len());
            true
        });
        assert_eq!((sent, largest, ended), (10_000, 1000, true));
    }

    #[test]
    fn an_empty_input_ends_when_the_receiver_is_ready() {
        let credit = Credit::new(10);
        let (sender, frames) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pump_input([].as_slice(), &credit, move |frame| sender.send(frame.clone()).is_ok())
            });
            let early = frames.recv_timeout(std::time::Duration::from_millis(50));
            credit.open();
            assert!(early.is_err(), "sent to a port that is not set up: {early:?}");
            assert_eq!(frames.recv(), Ok(Frame::Input(Vec::new())));
        });
    }

    #[test]
    fn a_closed_credit_ends_the_pump() {
        let credit = open(10);
        credit.close();
        let mut frames = 0;
        pump_input([1u8; 20].as_slice(), &credit, |_| {
            frames += 1;
            true
        });
        assert_eq!(frames, 0);
    }

    #[test]
    fn a_waiting_pump_is_woken_by_the_end() {
        let credit = open(5);
        std::thread::scope(|scope| {
            scope.spawn(|| pump_input([1u8; 20].as_slice(), &credit, |_| true));
            std::thread::sleep(std::time::Duration::from_millis(20));
            credit.close();
        });
    }
}
