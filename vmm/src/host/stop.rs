//! Waiting for the user's word to stop: Ctrl-C, or a polite kill.
#![expect(unsafe_code, reason = "the standard library knows no signals")]

use std::io;

/// Holds SIGINT, SIGTERM and SIGHUP back in this thread and all that it starts later, so that [`wait`] gets them. To be
/// called before there are other threads.
///
/// # Errors
/// The system refuses.
pub fn hold() -> io::Result<()> {
    let set = signals();
    // SAFETY: the kernel reads one signal set, which lives, and writes nothing.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Waits until one of them comes; its name.
pub fn wait() -> &'static str {
    let (set, mut signal) = (signals(), 0);
    // SAFETY: both point to values that live, of the types that the call wants.
    while unsafe { libc::sigwait(&raw const set, &raw mut signal) } == libc::EINTR {}
    match signal {
        libc::SIGINT => "SIGINT",
        libc::SIGHUP => "SIGHUP",
        _ => "SIGTERM",
    }
}

fn signals() -> libc::sigset_t {
    // SAFETY: a signal set is plain integers; `sigemptyset` makes it one before it is used.
    let mut set = unsafe { std::mem::zeroed() };
    // SAFETY: `set` lives, and the numbers are signals.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
    }
    set
}
