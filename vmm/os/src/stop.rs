//! The user's word to stop: Ctrl-C, a terminal that is closed, a polite kill.
#![expect(unsafe_code, reason = "the standard library sends no signals")]

use std::io;
use std::sync::{Mutex, Once, PoisonError};

use libc::c_int;

use super::say::{hurry, note};
use super::{signals, terminal};

/// Signals that ask for an end.
const SIGNALS: [(c_int, &str); 4] = [
    (libc::SIGINT, "SIGINT"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGQUIT, "SIGQUIT"),
];

/// What the first signal does, as long as there is something to end in good order.
type Ending = Box<dyn Fn(Stop) + Send>;
static ENDING: Mutex<Option<Ending>> = Mutex::new(None);

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop(c_int);

impl Stop {
    /// SIGINT.
    pub const INTERRUPT: Self = Self(libc::SIGINT);

    /// Its name.
    pub fn name(self) -> &'static str {
        SIGNALS.iter().find(|(signal, _)| *signal == self.0).map_or("a signal", |(_, name)| name)
    }

    /// The exit status of a program that it ended.
    pub fn code(self) -> u8 {
        128 + self.0.to_le_bytes()[0]
    }
}

/// As long as this lives the first signal does as it was said, and the program goes on to its end; another one ends it
/// at once.
#[derive(Debug)]
pub struct Orderly(());

impl Orderly {
    /// From now on. To be called before there are threads that could get the signals instead.
    ///
    /// # Errors
    /// The system refuses.
    pub fn begin(end: impl Fn(Stop) + Send + 'static) -> io::Result<Self> {
        static LISTENING: Once = Once::new();
        *ending() = Some(Box::new(end));
        signals::hold()?;
        LISTENING.call_once(|| {
            std::thread::spawn(|| {
                loop {
                    let stop = wait();
                    match ending().take() {
                        Some(end) => end(stop),
                        None => leave(stop),
                    }
                }
            });
        });
        Ok(Self(()))
    }
}

impl Drop for Orderly {
    fn drop(&mut self) {
        *ending() = None;
    }
}

/// Ends the program as the signal would have.
pub fn leave(stop: Stop) -> ! {
    terminal::restore();
    hurry();
    note(&format!("{}: ended", stop.name()));
    std::process::exit(stop.code().into())
}

fn ending() -> std::sync::MutexGuard<'static, Option<Ending>> {
    ENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until one of them comes; they must be held back.
pub fn wait() -> Stop {
    Stop(signals::wait(&SIGNALS.map(|(signal, _)| signal)))
}

/// Has SIGTERM sent to ourselves.
pub fn request() {
    // SAFETY: a call with two integers.
    let _ = unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_has_a_name_and_the_shells_status() {
        assert_eq!((Stop(libc::SIGINT).name(), Stop(libc::SIGINT).code()), ("SIGINT", 130));
        assert_eq!((Stop(libc::SIGTERM).name(), Stop(libc::SIGTERM).code()), ("SIGTERM", 143));
    }
}
