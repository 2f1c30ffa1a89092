//! Signals that a thread waits for, in place of handlers.
#![expect(unsafe_code, reason = "the standard library knows no signals")]

use std::io;

use libc::c_int;

/// Every signal that one of our threads waits for.
const WAITED_FOR: &[c_int] =
    &[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH, libc::SIGCONT];

/// Blocks them in this thread and in all that it starts later, so that only the waiting thread receives them. Call it
/// before there are other threads.
///
/// # Errors
/// The system refuses to change the signal mask.
pub fn block() -> io::Result<()> {
    mask(libc::SIG_BLOCK, WAITED_FOR)
}

/// Blocks SIGTTIN in this thread, so that reading the terminal in the background fails with EIO.
///
/// # Errors
/// The system refuses to change the signal mask.
pub(super) fn block_background_reads() -> io::Result<()> {
    mask(libc::SIG_BLOCK, &[libc::SIGTTIN])
}

/// Unblocks all of them: for a child between fork and exec, which would inherit the mask. Async-signal-safe.
pub(super) fn unblock() {
    let _ = mask(libc::SIG_UNBLOCK, WAITED_FOR);
    let _ = mask(libc::SIG_UNBLOCK, &[libc::SIGTTIN]);
}

/// Waits for one of `signals`, which must be blocked.
pub(super) fn wait(signals: &[c_int]) -> c_int {
    let (set, mut signal) = (set(signals), 0);
    // SAFETY: both pointers are to live values of the right types.
    while unsafe { libc::sigwait(&raw const set, &raw mut signal) } == libc::EINTR {}
    signal
}

fn mask(how: c_int, signals: &[c_int]) -> io::Result<()> {
    let set = set(signals);
    // SAFETY: the kernel reads one signal set, which is alive, and writes nothing.
    match unsafe { libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: a signal set is plain integers; `sigemptyset` initialises it before use.
    let mut set = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is alive, and the numbers are signals.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
    }
    set
}
