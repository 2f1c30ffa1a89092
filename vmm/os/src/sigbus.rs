//! Last words when a file behind guest memory has lost the bytes that somebody needs.
//!
//! A file that is mapped may be made shorter by its owner, and one with holes may not find room on its disk: then an
//! access to the mapping is a signal that ends the process without a word. There is no way back from it: the guest's
//! memory is gone.
#![expect(unsafe_code, reason = "a signal handler is installed, and calls what is safe inside of one")]

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, c_void, siginfo_t};

use crate::bug::FAILED;

const LAST_WORDS: [&[u8]; 2] = [
    b"refault: ",
    b" was truncated while it was guest memory, or its disk is full: what the guest had there is gone, so this ends \
      here; give the file its size back or make room on the disk, and start again\n",
];
const NO_NAME: &[u8] = b"a file";

/// Where a file is mapped. These are never freed, for the handler may come at any time; there is one for each mapping.
struct Mapped {
    addresses: Range<usize>,
    name: Vec<u8>,
    before: *const Mapped,
}

/// The last one.
static LAST: AtomicPtr<Mapped> = AtomicPtr::new(std::ptr::null_mut());

/// From now on an access to bytes that `file` has lost, where it is mapped at `addresses`, says so and ends the process
/// with status 125.
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

/// What is mapped at `address`: of several the latest, as the others are gone.
fn name_at(address: usize) -> &'static [u8] {
    let mut next: *const Mapped = LAST.load(Ordering::Acquire);
    // SAFETY: a pointer in this list is null, or to one that lives for ever and does not change.
    while let Some(mapped) = unsafe { next.as_ref() } {
        if mapped.addresses.contains(&address) {
            return &mapped.name;
        }
        next = mapped.before;
    }
    NO_NAME
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid record, with an address for this code; write, _exit,
    // signal and raise are async-signal-safe, and the texts live for ever.
    unsafe {
        if (*info).si_code == libc::BUS_ADRERR {
            let [first, last] = LAST_WORDS;
            for part in [first, name_at((*info).si_addr() as usize), last] {
                libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len());
            }
            libc::_exit(FAILED.into());
        }
        // Broken hardware, or somebody's kill: what it would have been without us, as soon as this returns.
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mapped_last_at_an_address_is_named() {
        let files = [tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap()];
        // Addresses that no mapping has.
        let at = usize::MAX - (1 << 20);
        explain(files[0].as_file(), at..at + 8192);
        explain(files[1].as_file(), at..at + 4096);
        let path = |file: &tempfile::NamedTempFile| file.path().as_os_str().as_bytes().to_vec();
        assert_eq!(name_at(at), path(&files[1]));
        assert_eq!(name_at(at + 4096), path(&files[0]));
        assert_eq!(name_at(at + 8192), NO_NAME);
    }
}
