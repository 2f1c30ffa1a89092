//! A last message when a file behind guest memory has lost bytes that are needed.
//!
//! The owner of a mapped file may truncate it, and a sparse file may find its disk full. An access to the mapping then
//! raises SIGBUS, which would end the process without a message. It cannot be recovered from: the guest's memory is lost.
#![expect(unsafe_code, reason = "a signal handler is installed, and calls what is safe inside of one")]

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, c_void, siginfo_t};

use crate::FAILED;

const LAST_WORDS: [&[u8]; 2] = [
    b"refault: ",
    b" was truncated while it was guest memory, or its disk is full: the guest's data there is lost, so \
      refault ends; restore the file's size or free space on the disk, and start again\n",
];
const NO_NAME: &[u8] = b"a file";

/// A mapping of a file. Never freed, since the handler may run at any time; there is one for each mapping.
struct Mapped {
    addresses: Range<usize>,
    name: Vec<u8>,
    before: *const Mapped,
}

/// The newest mapping; each points to the one before it.
static LAST: AtomicPtr<Mapped> = AtomicPtr::new(std::ptr::null_mut());

/// From now on an access to bytes that `file` has lost, where it is mapped at `addresses`, prints a message and ends the
/// process with status 125.
pub fn explain(file: &File, addresses: Range<usize>) {
    install();
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let name = link.map_or_else(|_| NO_NAME.to_vec(), |path| path.as_os_str().as_bytes().to_vec());
    let new = Box::leak(Box::new(Mapped { addresses, name, before: std::ptr::null() }));
    let _ = LAST.fetch_update(Ordering::Release, Ordering::Relaxed, |last| {
        new.before = last;
        Some(&raw mut *new)
    });
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: all zeroes is an empty mask and no flags; the handler has the signature that SA_SIGINFO requires, and
        // calls only async-signal-safe functions. It replaces the runtime's handler, which reports stack overflows; on
        // Linux those raise another signal, SIGSEGV.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    });
}

/// The name of the newest file mapped at `address`; older mappings there have been replaced.
fn name_at(address: usize) -> &'static [u8] {
    let mut next: *const Mapped = LAST.load(Ordering::Acquire);
    // SAFETY: a pointer in this list is null, or points to a `Mapped` that is never freed or changed.
    while let Some(mapped) = unsafe { next.as_ref() } {
        if mapped.addresses.contains(&address) {
            return &mapped.name;
        }
        next = mapped.before;
    }
    NO_NAME
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid record, which has an address for this code; write, _exit, signal
    // and raise are async-signal-safe, and the texts are static.
    unsafe {
        if (*info).si_code == libc::BUS_ADRERR {
            let [first, last] = LAST_WORDS;
            for part in [first, name_at((*info).si_addr() as usize), last] {
                libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len());
            }
            libc::_exit(FAILED.into());
        }
        // A hardware error, or a signal sent with kill: the default action takes effect when this returns.
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_mapping_at_an_address_is_named() {
        let files = [tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap()];
        // Addresses that no mapping can have.
        let at = usize::MAX - (1 << 20);
        explain(files[0].as_file(), at..at + 8192);
        explain(files[1].as_file(), at..at + 4096);
        let path = |file: &tempfile::NamedTempFile| file.path().as_os_str().as_bytes().to_vec();
        assert_eq!(name_at(at), path(&files[1]));
        assert_eq!(name_at(at + 4096), path(&files[0]));
        assert_eq!(name_at(at + 8192), NO_NAME);
    }
}
