//! The last words of a process that made a system call outside its filter.
#![expect(unsafe_code, reason = "a signal handler is installed, and calls what is safe inside of one")]

use std::cell::Cell;

use libc::{c_int, c_void, siginfo_t};

use super::lists::name_of;
use crate::FAILED;

/// Offset of `si_syscall` in the kernel's siginfo (include/uapi/asm-generic/siginfo.h, `_sigsys`).
const SI_SYSCALL: usize = 24;

thread_local! {
    static WHO: Cell<&'static str> = const { Cell::new("a thread") };
}

/// Names the calling thread in its last words.
pub(super) fn call_this_thread(name: &'static str) {
    WHO.set(name);
}

/// From now on a forbidden system call ends the process with a message and status 125.
pub(super) fn install() {
    // SAFETY: all zeroes is an empty mask and no flags; the handler has the signature that SA_SIGINFO requires, and calls
    // only async-signal-safe functions.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn handler(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a record of 128 bytes, which for this signal has the number at this offset.
    let number = unsafe { info.cast::<u8>().add(SI_SYSCALL).cast::<c_int>().read_unaligned() };
    let mut digits = [0; 11];
    let parts: [&[u8]; 7] = [
        b"refault: the sandbox does not let ",
        WHO.get().as_bytes(),
        b" use system call ",
        decimal(number, &mut digits),
        b" (",
        name_of(number.into()).as_bytes(),
        b"): a bug in refault, or a guest that took it over; --no-sandbox turns the sandbox off\n",
    ];
    for part in parts {
        // SAFETY: write is async-signal-safe, and the text is alive.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(FAILED.into()) };
}

/// The digits of a number, without an allocation.
fn decimal(number: c_int, digits: &mut [u8; 11]) -> &[u8] {
    let (mut rest, mut at) = (number.unsigned_abs(), digits.len());
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (rest % 10).to_le_bytes()[0];
        }
        rest /= 10;
        if rest == 0 || at == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_in_decimal() {
        for (number, text) in [(0, "0"), (59, "59"), (-1, "1"), (i32::MAX, "2147483647")] {
            assert_eq!(decimal(number, &mut [0; 11]), text.as_bytes());
        }
    }
}
