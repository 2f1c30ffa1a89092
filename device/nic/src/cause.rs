//! Why an access failed.

use refault_abi::codes::{
    CAUSE_ALIGNMENT, CAUSE_BLOCKED, CAUSE_BOUNDS, CAUSE_KEY, CAUSE_NOT_MEMORY, CAUSE_NOT_PERSISTENT,
    CAUSE_PAGE_FAILURE, CAUSE_PAGE_REFUSED, CAUSE_PAGE_RETRIES, CAUSE_PAGE_TIMEOUT, CAUSE_REVOKED,
    CAUSE_RIGHTS,
};

/// Why an access to memory failed. Travels in completions as `vendor_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The key names no region, or one of another protection domain.
    Key,
    /// Outside the region.
    Bounds,
    /// The region, or the queue pair, does not allow it.
    Rights,
    /// The region was revoked.
    Revoked,
    /// The operating system refused the page.
    PageRefused,
    /// The operating system failed to handle page requests.
    PageFailure,
    /// No answer to a page request in time.
    PageTimeout,
    /// Answered with success too often, and still missing.
    PageRetries,
    /// The IOMMU or a switch in config space does not let it through.
    Blocked,
    /// Translated to something that is not memory.
    NotMemory,
    /// Atomic operand not aligned.
    Alignment,
    /// The memory is not persistent.
    NotPersistent,
}

impl Cause {
    /// The CAUSE_* number.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Key => CAUSE_KEY,
            Self::Bounds => CAUSE_BOUNDS,
            Self::Rights => CAUSE_RIGHTS,
            Self::Revoked => CAUSE_REVOKED,
            Self::PageRefused => CAUSE_PAGE_REFUSED,
            Self::PageFailure => CAUSE_PAGE_FAILURE,
            Self::PageTimeout => CAUSE_PAGE_TIMEOUT,
            Self::PageRetries => CAUSE_PAGE_RETRIES,
            Self::Blocked => CAUSE_BLOCKED,
            Self::NotMemory => CAUSE_NOT_MEMORY,
            Self::Alignment => CAUSE_ALIGNMENT,
            Self::NotPersistent => CAUSE_NOT_PERSISTENT,
        }
    }
}
