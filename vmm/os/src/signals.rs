//! Signals that are waited for instead of handled.
#![expect(unsafe_code, reason = "the standard library knows no signals")]

use std::io;

use libc::c_int;

/// All that some thread of ours waits for.
const HELD: &[c_int] =
    &[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH, libc::SIGCONT];

/// Holds them back in this thread and all that it starts later, for the thread that waits for them. To be called before there are
/// other threads.
///
/// # Errors
/// The system refuses.
pub fn hold() -> io::Result<()> {
    mask(libc::SIG_BLOCK, HELD)
}

/// Holds back SIGTTIN in this thread: to read the terminal in the background is an error then (EIO).
///
/// # Errors
/// The system refuses.
pub(super) fn hold_background_reads() -> io::Result<()> {
    mask(libc::SIG_BLOCK, &[libc::SIGTTIN])
}

/// Lets them all through again: for a child between fork and exec, which would keep what is held back. Async-signal-safe.
pub(super) fn let_through() {
    let _ = mask(libc::SIG_UNBLOCK, HELD);
    let _ = mask(libc::SIG_UNBLOCK, &[libc::SIGTTIN]);
}

/// Waits until one of `signals` comes, which must be held back.
pub(super) fn wait(signals: &[c_int]) -> c_int {
    let (set, mut signal) = (set(signals), 0);
    // SAFETY: both point to values that live, of the types that the call wants.
    while unsafe { libc::sigwait(&raw const set, &raw mut signal) } == libc::EINTR {}
    signal
}

fn mask(how: c_int, signals: &[c_int]) -> io::Result<()> {
    let set = set(signals);
    // SAFETY: the kernel reads one signal set, which lives, and writes nothing.
    match unsafe { libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: a signal set is plain integers; `sigemptyset` makes it one before it is used.
    let mut set = unsafe { std::mem::zeroed() };
    // SAFETY: `set` lives, and the numbers are signals.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
    }
    set
}
