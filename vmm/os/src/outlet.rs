//! Output to a reader that may stall: a thread of its own writes it, and writers can be released.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::signals;

/// Bytes that wait to be written. Whoever has more waits too.
const BOUND: usize = 256 << 10;
/// Most bytes of one write.
const PIECE: usize = 16 << 10;
/// How long an unfinished line waits for its next byte: a guest's console comes byte by byte.
const GATHERING: Duration = Duration::from_millis(5);
/// How long a reader may take for a piece when there is no time left.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bounded queue in front of something that is written to. Clones share it. What is written is on its way; [`finish`]
/// waits for it.
///
/// [`finish`]: Self::finish
pub struct Outlet(Arc<Inner>);

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
    /// Pieces that were written.
    pieces: u64,
    /// There is no time to wait for the reader.
    hurried: bool,
    /// Something was dropped because of that.
    lost: bool,
    /// It cannot be written to: what comes is dropped.
    failed: bool,
    /// Outlets that share this.
    outlets: usize,
}

impl Outlet {
    /// Writes to `to`. The first error goes to `failed`; after it everything is dropped.
    pub fn new(to: impl Write + Send + 'static, failed: impl FnOnce(io::Error) + Send + 'static) -> Self {
        let inner = Arc::<Inner>::default();
        inner.lock().outlets = 1;
        let own = Arc::clone(&inner);
        std::thread::spawn(move || {
            // It may be older than the thread that waits for signals. A system that refuses would have refused that one.
            let _ = signals::hold();
            own.serve(to, failed);
        });
        Self(inner)
    }

    /// From now on no writer waits long for the reader.
    pub fn hurry(&self) {
        self.0.change(|state| state.hurried = true);
    }

    /// Waits until everything is written, or cannot be. With [`Self::hurry`] no more than two seconds for each piece, and for
    /// the last time once one has taken longer. Whether nothing was dropped for want of time.
    pub fn finish(&self) -> bool {
        let mut state = self.0.lock();
        while state.busy || !state.waiting.is_empty() {
            if !state.hurried {
                state = self.0.wait(state);
                continue;
            }
            if state.lost {
                // Its patience was used up before.
                break;
            }
            let seen = state.pieces;
            let stalled =
                |state: &mut State| state.pieces == seen && (state.busy || !state.waiting.is_empty());
            let (next, waited) = self
                .0
                .changed
                .wait_timeout_while(state, PATIENCE, stalled)
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

impl Clone for Outlet {
    fn clone(&self) -> Self {
        self.0.lock().outlets += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.change(|state| state.outlets -= 1);
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        while state.waiting.len() >= BOUND && !state.hurried && !state.failed {
            state = self.0.wait(state);
        }
        if state.failed {
            return Ok(bytes.len());
        }
        let room = BOUND.saturating_sub(state.waiting.len()).min(bytes.len());
        if room == 0 {
            state.lost |= !bytes.is_empty();
            return Ok(bytes.len());
        }
        state.waiting.extend(bytes.get(..room).unwrap_or_default());
        self.0.changed.notify_all();
        Ok(room)
    }

    /// Nothing: the thread does not wait to be asked.
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
                // Before whoever waits for the end goes on: they ask what came of it.
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

    /// Waits for something to write; none once no writer is left.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.outlets == 0 {
                return None;
            }
            state = self.wait(state);
        }
        let unfinished = |state: &mut State| {
            let line = state.waiting.ends_with(b"\n") || state.waiting.len() >= PIECE;
            !line && state.outlets > 0
        };
        state = self
            .changed
            .wait_timeout_while(state, GATHERING, unfinished)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let count = state.waiting.len().min(PIECE);
        let rest = state.waiting.split_off(count);
        state.busy = true;
        Some(std::mem::replace(&mut state.waiting, rest))
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

    /// Takes a write for each word from the test, and keeps what came.
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
        let mut outlet = Outlet::new(to, |_| {});
        // The reader takes nothing before all is there.
        let text = "a console that comes byte by byte\n".repeat(100);
        text.bytes().for_each(|byte| outlet.write_all(&[byte]).expect("there is room"));
        (0..2).for_each(|_| takes.send(()).expect("it takes"));
        assert!(outlet.finish());
        let writes = writes.lock().expect("not poisoned");
        assert_eq!(writes.concat(), text.as_bytes());
        assert!(writes.len() <= 2, "{} writes", writes.len());
    }

    #[test]
    fn a_stalled_reader_holds_writers_up_until_there_is_no_time() {
        let (to, takes, _writes) = reader();
        let outlet = Outlet::new(to, |_| {});
        let mut other = outlet.clone();
        let writer = std::thread::spawn(move || {
            // More than is kept, however much of it is with the reader.
            other.write_all(&vec![b'y'; 2 * BOUND]).expect("never fails");
        });
        while outlet.0.lock().waiting.len() < BOUND {
            std::thread::yield_now();
        }
        assert!(!writer.is_finished(), "memory is bounded");
        outlet.hurry();
        writer.join().expect("no panic");
        assert!(!outlet.finish());
        drop(takes);
    }

    #[test]
    fn an_error_is_reported_once_and_delays_no_writer() {
        let (to, takes, _writes) = reader();
        drop(takes);
        let (sender, errors) = channel();
        let mut outlet = Outlet::new(to, move |error| sender.send(error.to_string()).expect("it listens"));
        outlet.write_all(b"one\n").expect("dropped");
        assert_eq!(errors.recv().expect("an error"), "the reader left");
        outlet.write_all(&vec![0; 2 * BOUND]).expect("dropped");
        assert!(outlet.finish());
        assert!(errors.recv().is_err());
    }
}
