//! Why an access failed: one enum, one place where it becomes the ABI's number.

use refault_abi::codes::*;

/// Why an access to memory failed. Travels in completions as `vendor_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No further cause.
    None,
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
    /// Answered with success again and again, and never there.
    PageRetries,
    /// The IOMMU or a switch in config space does not let it through.
    Blocked,
    /// Translated to something that is not memory.
    NotMemory,
    /// Atomic operand not aligned.
    Alignment,
    /// The memory is none that survives the machine.
    NotPersistent,
}

impl Cause {
    /// The CAUSE_* number.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::None => CAUSE_NONE,
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
