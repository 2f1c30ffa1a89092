//! Last words when a file behind guest memory has lost the bytes that somebody needs.
//!
//! A file that is mapped may be made shorter by its owner, and one with holes may not find room on its disk: then an
//! access to the mapping is a signal that ends the process without a word. There is no way back from it: the guest's
//! memory is gone.
#![expect(unsafe_code, reason = "a signal handler is installed, and calls what is safe inside of one")]

use std::sync::Once;

use libc::{c_int, c_void, siginfo_t};

use crate::run::FAILED;

const LAST_WORDS: &str = "refault: a file behind guest memory was truncated while in use, or its disk is full: what the \
    guest had there is gone, so this ends here; give the file its size back or make room on the disk, and start again\n";

/// From now on such an access says so and ends the process with status 125. Does nothing the second time.
pub fn explain() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: all zeroes is an empty mask and no flags; the handler has the signature that SA_SIGINFO asks for, and
        // calls nothing that is not async-signal-safe. The runtime's own handler, which this one replaces, tells of
        // stack overflows, and these are another signal on Linux.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    });
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid record; write, _exit, signal and raise are
    // async-signal-safe, and the text is a constant.
    unsafe {
        if (*info).si_code == libc::BUS_ADRERR {
            libc::write(libc::STDERR_FILENO, LAST_WORDS.as_ptr().cast(), LAST_WORDS.len());
            libc::_exit(FAILED.into());
        }
        // Broken hardware, or somebody's kill: what it would have been without us, as soon as this returns.
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
