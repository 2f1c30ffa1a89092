//! Signals that ask the program to stop: from Ctrl-C, a closed terminal, or kill (but for SIGKILL).
#![expect(unsafe_code, reason = "the standard library sends no signals")]

use std::io;
use std::sync::{Mutex, Once, PoisonError};

use libc::c_int;

use super::message::{limit_waits, note};
use super::syscalls::{ThreadKind, confine};
use super::{signals, terminal};

/// Signals that ask the program to end.
const SIGNALS: [(c_int, &str); 4] = [
    (libc::SIGINT, "SIGINT"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGQUIT, "SIGQUIT"),
];

/// What the first signal does while a graceful end is possible.
type Ending = Box<dyn Fn(StopSignal) + Send>;
static ENDING: Mutex<Option<Ending>> = Mutex::new(None);

/// A signal that asked the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(c_int);

impl StopSignal {
    /// SIGINT, as from Ctrl-C.
    pub const INTERRUPT: Self = Self(libc::SIGINT);

    /// The signal's name, such as `SIGINT`.
    pub fn name(self) -> &'static str {
        SIGNALS.iter().find(|(signal, _)| *signal == self.0).map_or("a signal", |(_, name)| name)
    }

    /// The exit status that a shell reports for a program ended by this signal.
    pub fn code(self) -> u8 {
        128 + self.0.to_le_bytes()[0]
    }
}

/// While this is alive, the first signal calls the given function and the program continues to its end; a second signal
/// ends it at once.
#[derive(Debug)]
pub struct GracefulStop(());

impl GracefulStop {
    /// Starts catching signals. Call it before there are threads that could receive the signals instead.
    ///
    /// # Errors
    /// Signals cannot be blocked.
    pub fn begin(end: impl Fn(StopSignal) + Send + 'static) -> io::Result<Self> {
        static LISTENING: Once = Once::new();
        *ending() = Some(Box::new(end));
        signals::block()?;
        LISTENING.call_once(|| {
            std::thread::spawn(|| {
                confine(ThreadKind::Other);
                loop {
                    let stop = wait();
                    match ending().take() {
                        Some(end) => end(stop),
                        None => exit(stop),
                    }
                }
            });
        });
        Ok(Self(()))
    }
}

impl Drop for GracefulStop {
    fn drop(&mut self) {
        *ending() = None;
    }
}

/// Ends the program with the status that the signal would have given it.
pub fn exit(stop: StopSignal) -> ! {
    terminal::restore();
    limit_waits();
    note(&format!("{}: ended", stop.name()));
    std::process::exit(stop.code().into())
}

fn ending() -> std::sync::MutexGuard<'static, Option<Ending>> {
    ENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for one of these signals; they must be blocked.
pub fn wait() -> StopSignal {
    StopSignal(signals::wait(&SIGNALS.map(|(signal, _)| signal)))
}

/// Sends SIGTERM to this process.
pub fn terminate() {
    // SAFETY: the call takes two integers.
    let _ = unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_and_a_shells_exit_status() {
        assert_eq!((StopSignal(libc::SIGINT).name(), StopSignal(libc::SIGINT).code()), ("SIGINT", 130));
        assert_eq!((StopSignal(libc::SIGTERM).name(), StopSignal(libc::SIGTERM).code()), ("SIGTERM", 143));
    }
}
