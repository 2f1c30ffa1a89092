//! Large pages for guest memory, where the host gives them only to those who ask.

#![expect(unsafe_code, reason = "there is no safe call to advise the kernel about a mapping")]

use tracing::debug;
use vm_memory::{GuestMemoryRegion, GuestRegionMmap};

/// Asks for large pages behind `region`. A host that has none is as good, only slower.
pub(super) fn advise(region: &GuestRegionMmap) {
    let len = region.len() as usize;
    // SAFETY: the region is a mapping of this address and length, and the advice changes nothing about what
    // it contains.
    let result = unsafe { libc::madvise(region.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    if result != 0 {
        debug!(error = %std::io::Error::last_os_error(), "no large pages for guest memory");
    }
}
