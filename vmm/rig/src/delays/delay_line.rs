//! A delay line: messages are delivered in the order in which they were sent, each no sooner than its time.
//!
//! The sender never waits for the delay: the line has a thread that delivers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use refault_bus::sync::lock;
use refault_os::syscalls::{ThreadKind, confine};

/// Messages in flight at most: a guest may ring doorbells faster than any timing lets them through. One more delivers the
/// oldest, before its time.
const MOST: usize = 1 << 16;

/// How long before a message is due the thread stops sleeping and spins: a sleep may end this much too late.
const SPIN: Duration = Duration::from_micros(80);

/// Messages in flight. Dropping the line discards those that have not been delivered.
pub(super) struct DelayLine<T> {
    shared: Arc<Shared<T>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<T> {
    /// Held while a message is delivered, so that a flush returns only after its delivery.
    waiting: Mutex<Waiting<T>>,
    changed: Condvar,
    deliver: Box<dyn Fn(T) + Send + Sync>,
}

struct Waiting<T> {
    messages: VecDeque<(Instant, T)>,
    stopped: bool,
}

impl<T: Send + 'static> DelayLine<T> {
    /// A line that passes its messages to `deliver`, which must not send on the same line: its lock is held.
    pub(super) fn new(name: &str, deliver: impl Fn(T) + Send + Sync + 'static) -> Result<Self> {
        let waiting = Mutex::new(Waiting { messages: VecDeque::new(), stopped: false });
        let shared = Arc::new(Shared { waiting, changed: Condvar::new(), deliver: Box::new(deliver) });
        let line = shared.clone();
        let thread = thread::Builder::new().name(format!("delay-{name}")).spawn(move || {
            confine(ThreadKind::Device);
            line.run();
        });
        Ok(Self { shared, thread: Some(thread.context("cannot start a thread for delays")?) })
    }

    /// Sends a message, which is delivered after `delay_ns`, and after all messages sent before; sooner if too many follow.
    pub(super) fn send(&self, delay_ns: u64, message: T) {
        let due = Instant::now() + Duration::from_nanos(delay_ns);
        let mut waiting = self.shared.lock();
        if waiting.messages.len() >= MOST
            && let Some((_, oldest)) = waiting.messages.pop_front()
        {
            (self.shared.deliver)(oldest);
        }
        let due = waiting.messages.back().map_or(due, |&(last, _)| due.max(last));
        waiting.messages.push_back((due, message));
        drop(waiting);
        self.shared.changed.notify_one();
    }
}

impl<T> DelayLine<T> {
    /// Delivers all messages in flight, on this thread. None is in flight when it returns.
    pub(super) fn flush(&self) {
        let mut waiting = self.shared.lock();
        while let Some((_, message)) = waiting.messages.pop_front() {
            (self.shared.deliver)(message);
        }
    }

    /// Discards all messages in flight. None is in flight when it returns.
    pub(super) fn clear(&self) {
        self.shared.lock().messages.clear();
    }
}

impl<T> Drop for DelayLine<T> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_one();
        // A thread that panicked has already reported it on stderr.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl<T> fmt::Debug for DelayLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayLine")
            .field("waiting", &self.shared.lock().messages.len())
            .finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        lock(&self.waiting)
    }

    fn run(&self) {
        let mut waiting = self.lock();
        while !waiting.stopped {
            let Some(&(due, _)) = waiting.messages.front() else {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if left > SPIN {
                let slept = self.changed.wait_timeout(waiting, left - SPIN);
                waiting = slept.unwrap_or_else(PoisonError::into_inner).0;
            } else if left.is_zero() {
                if let Some((_, message)) = waiting.messages.pop_front() {
                    (self.deliver)(message);
                }
            } else {
                drop(waiting);
                spin_until(due);
                waiting = self.lock();
            }
        }
    }
}

/// Spins until `due`.
pub(super) fn spin_until(due: Instant) {
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::unbounded;

    use super::*;

    /// A line of numbers, and the receiver of each with its time of delivery.
    fn line() -> (DelayLine<u32>, crossbeam::channel::Receiver<(u32, Instant)>) {
        let (sender, receiver) = unbounded();
        let line = DelayLine::new("test", move |number| sender.send((number, Instant::now())).unwrap());
        (line.unwrap(), receiver)
    }

    #[test]
    fn messages_arrive_in_order_and_not_before_their_time() {
        let (line, arrived) = line();
        let start = Instant::now();
        for (number, delay) in [(0, 3_000_000), (1, 0), (2, 4_000_000), (3, 20_000)] {
            line.send(delay, number);
        }
        for (number, least) in [(0, 3), (1, 3), (2, 4), (3, 4)] {
            let (got, at) = arrived.recv().unwrap();
            assert_eq!(got, number);
            assert!(at - start >= Duration::from_millis(least), "{number} after {:?}", at - start);
        }
    }

    #[test]
    fn a_flush_delivers_immediately_and_in_order() {
        let (line, arrived) = line();
        (0..5).for_each(|number| line.send(3_600_000_000_000, number));
        line.flush();
        assert_eq!(arrived.try_iter().map(|(number, _)| number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_sender_that_never_stops_fills_no_memory_and_loses_no_message() {
        let (line, arrived) = line();
        let sent = u32::try_from(MOST).unwrap() + 3;
        (0..sent).for_each(|number| line.send(3_600_000_000_000, number));
        assert_eq!(arrived.try_iter().map(|(number, _)| number).collect::<Vec<_>>(), [0, 1, 2]);
        line.flush();
        assert_eq!(arrived.try_iter().count(), MOST);
    }

    #[test]
    fn messages_cleared_or_left_when_the_line_is_dropped_never_arrive() {
        let (line, arrived) = line();
        line.send(1_000_000, 1);
        line.clear();
        line.send(3_600_000_000_000, 2);
        drop(line);
        assert!(arrived.recv().is_err(), "the line is gone, and so is its sender");
    }
}
