//! Output to a reader that may stall: a thread per queue does the writing, so that writers can be released from waiting.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::signals;
use super::syscalls::{ThreadKind, confine};

/// Bytes queued at most; writers with more wait.
const CAPACITY: usize = 256 << 10;
/// Bytes written in one call at most.
const PIECE: usize = 16 << 10;
/// How long an unfinished line waits for its next byte: a guest's console arrives byte by byte.
const LINE_TIMEOUT: Duration = Duration::from_millis(5);
/// How long the reader may take for one piece once waits are limited.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

/// A bounded queue in front of a writer. Clones share it. A write only queues its bytes; [`finish`] waits until they are
/// written.
///
/// [`finish`]: Self::finish
pub struct OutputQueue(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread is writing a piece.
    busy: bool,
    /// Pieces written so far.
    pieces: u64,
    /// Waits for the reader are limited.
    limited: bool,
    /// Bytes were dropped because of that limit.
    lost: bool,
    /// Writing failed: all further bytes are dropped.
    failed: bool,
    /// Handles that share this queue; the thread ends with the last one.
    handles: usize,
}

impl OutputQueue {
    /// Starts a thread that writes to `to`. An error is passed to `failed`, and all bytes after it are dropped.
    pub fn new(to: impl Write + Send + 'static, failed: impl FnOnce(io::Error) + Send + 'static) -> Self {
        let inner = Arc::<Inner>::default();
        inner.lock().handles = 1;
        let own = Arc::clone(&inner);
        std::thread::spawn(move || {
            // This thread may be older than the one that waits for signals. If the system refused here, it also refused
            // there, where the error is reported.
            let _ = signals::block();
            confine(ThreadKind::Output);
            own.serve(to, failed);
        });
        Self(inner)
    }

    /// From now on no writer waits for the reader, and [`Self::finish`] waits for a limited time.
    pub fn limit_waits(&self) {
        self.0.change(|state| state.limited = true);
    }

    /// Waits until everything is written or writing has failed. After [`Self::limit_waits`], waits at most two seconds for each
    /// piece, and not at all once a piece has taken longer. Returns false if bytes were dropped because of that limit.
    pub fn finish(&self) -> bool {
        let mut state = self.0.lock();
        while state.busy || !state.waiting.is_empty() {
            if !state.limited {
                state = self.0.wait(state);
                continue;
            }
            if state.lost {
                // The timeout has expired once already.
                break;
            }
            let seen = state.pieces;
            let stalled =
                |state: &mut State| state.pieces == seen && (state.busy || !state.waiting.is_empty());
            let (next, waited) = self
                .0
                .changed
                .wait_timeout_while(state, STALL_TIMEOUT, stalled)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() {
                state.waiting.clear();
                state.lost = true;
                break;
            }
        }
        !state.lost
    }
}

impl Clone for OutputQueue {
    fn clone(&self) -> Self {
        self.0.lock().handles += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for OutputQueue {
    fn drop(&mut self) {
        self.0.change(|state| state.handles -= 1);
    }
}

impl Write for OutputQueue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        while state.waiting.len() >= CAPACITY && !state.limited && !state.failed {
            state = self.0.wait(state);
        }
        if state.failed {
            return Ok(bytes.len());
        }
        let room = CAPACITY.saturating_sub(state.waiting.len()).min(bytes.len());
        if room == 0 {
            state.lost |= !bytes.is_empty();
            return Ok(bytes.len());
        }
        state.waiting.extend(bytes.get(..room).unwrap_or_default());
        self.0.changed.notify_all();
        Ok(room)
    }

    /// Does nothing: the thread writes without being asked to.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inner {
    fn serve(&self, mut to: impl Write, failed: impl FnOnce(io::Error)) {
        while let Some(piece) = self.next() {
            if let Err(error) = to.write_all(&piece).and_then(|()| to.flush()) {
                self.change(|state| {
                    state.failed = true;
                    state.waiting.clear();
                });
                // Report the error before `finish` returns: its caller then asks what went wrong.
                failed(error);
                self.change(|state| state.busy = false);
                return;
            }
            self.change(|state| {
                state.busy = false;
                state.pieces += 1;
            });
        }
    }

    /// Waits for bytes to write and takes a piece; `None` once the queue is empty and no handle is left.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.handles == 0 {
                return None;
            }
            state = self.wait(state);
        }
        let unfinished = |state: &mut State| {
            let line = state.waiting.ends_with(b"\n") || state.waiting.len() >= PIECE;
            !line && state.handles > 0
        };
        state = self
            .changed
            .wait_timeout_while(state, LINE_TIMEOUT, unfinished)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let count = state.waiting.len().min(PIECE);
        let rest = state.waiting.split_off(count);
        state.busy = true;
        let piece = std::mem::replace(&mut state.waiting, rest);
        // A writer that waits may use the room at once: the reader may take long for this piece.
        self.changed.notify_all();
        Some(piece)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Accepts one write for each message from the test, and keeps the bytes.
    struct Reader {
        takes: Receiver<()>,
        writes: Writes,
    }

    type Writes = Arc<Mutex<Vec<Vec<u8>>>>;

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.takes.recv().map_err(|_| io::Error::other("the reader left"))?;
            self.writes.lock().expect("not poisoned").push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reader() -> (Reader, Sender<()>, Writes) {
        let (sender, takes) = channel();
        let writes = Writes::default();
        (Reader { takes, writes: Arc::clone(&writes) }, sender, writes)
    }

    #[test]
    fn bytes_that_wait_are_written_together() {
        let (to, takes, writes) = reader();
        let mut queue = OutputQueue::new(to, |_| {});
        // The reader accepts nothing until everything is queued.
        let text = "a console that comes byte by byte\n".repeat(100);
        text.bytes().for_each(|byte| queue.write_all(&[byte]).expect("there is room"));
        (0..2).for_each(|_| takes.send(()).expect("it takes"));
        assert!(queue.finish());
        let writes = writes.lock().expect("not poisoned");
        assert_eq!(writes.concat(), text.as_bytes());
        assert!(writes.len() <= 2, "{} writes", writes.len());
    }

    #[test]
    fn a_stalled_reader_blocks_writers_until_waits_are_limited() {
        let (to, takes, _writes) = reader();
        let queue = OutputQueue::new(to, |_| {});
        let mut other = queue.clone();
        let writer = std::thread::spawn(move || {
            // More than the queue holds, plus what the reader has taken.
            other.write_all(&vec![b'y'; 2 * CAPACITY]).expect("never fails");
        });
        while queue.0.lock().waiting.len() < CAPACITY {
            std::thread::yield_now();
        }
        assert!(!writer.is_finished(), "memory is bounded");
        queue.limit_waits();
        writer.join().expect("no panic");
        assert!(!queue.finish());
        drop(takes);
    }

    #[test]
    fn an_error_is_reported_once_and_delays_no_writer() {
        let (to, takes, _writes) = reader();
        drop(takes);
        let (sender, errors) = channel();
        let mut queue =
            OutputQueue::new(to, move |error| sender.send(error.to_string()).expect("it listens"));
        queue.write_all(b"one\n").expect("dropped");
        assert_eq!(errors.recv().expect("an error"), "the reader left");
        queue.write_all(&vec![0; 2 * CAPACITY]).expect("dropped");
        assert!(queue.finish());
        assert!(errors.recv().is_err());
    }
}
