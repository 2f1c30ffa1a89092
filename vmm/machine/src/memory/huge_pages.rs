//! Huge pages for guest memory, where the host gives them only on request.

#![expect(unsafe_code, reason = "there is no safe call to advise the kernel about a mapping")]

use tracing::debug;
use vm_memory::GuestRegionMmap;

/// Requests huge pages for `region`. Without them everything works, only slower.
pub(super) fn advise(region: &GuestRegionMmap) {
    // SAFETY: the region is a mapping with this address and length, and the advice does not change its contents.
    let result = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) };
    if result != 0 {
        debug!(error = %std::io::Error::last_os_error(), "no huge pages for guest memory");
    }
}
