//! What an access to memory finds: an extent, a page that is missing, or a refusal.

use refault_bus::ats::Translation;
use refault_bus::dma::MemoryError;
use refault_bus::{AddressSpace, Gpa, Iova};

use crate::cause::Cause;
use crate::verbs::End;

/// Why an access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessError {
    /// A page of a process, or of an on-demand region, is missing or does not allow the access now: the operating
    /// system can be asked for it.
    Miss(PageMiss),
    /// The access is refused for good.
    Denied(Cause),
}

/// A page to ask the operating system for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PageMiss {
    /// A process' or a region's.
    pub(crate) space: AddressSpace,
    /// Whose page it is, and whose credit it takes: the PASID, or the region's context.
    pub(crate) owner: u32,
    /// First address that is missing: of a process, 4 KiB aligned.
    pub(crate) page: Iova,
    pub(crate) write: bool,
}

/// A cause denies the access.
impl From<Cause> for AccessError {
    fn from(cause: Cause) -> Self {
        Self::Denied(cause)
    }
}

impl From<MemoryError> for AccessError {
    fn from(_: MemoryError) -> Self {
        Self::Denied(Cause::NotMemory)
    }
}

/// A piece of memory without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) gpa: Gpa,
    pub(crate) bytes: u64,
}

impl Extent {
    /// From `iova` to the end of its block.
    pub(crate) fn of(translation: Translation, iova: Iova) -> Self {
        Self { gpa: translation.gpa_of(iova), bytes: translation.bytes_from(iova) }
    }

    /// The same, provided that `bytes` fit.
    pub(crate) fn holding(self, bytes: u64) -> Result<Self, AccessError> {
        if bytes <= self.bytes { Ok(self) } else { Err(AccessError::Denied(Cause::Bounds)) }
    }

    /// Its bytes, but `most` at most.
    pub(crate) fn within(self, most: usize) -> usize {
        usize::try_from(self.bytes).unwrap_or(most).min(most)
    }

    /// The address `bytes` further on, which must lie inside.
    pub(crate) fn after(self, bytes: u64) -> Gpa {
        Gpa(self.gpa.0.wrapping_add(bytes))
    }
}

/// A copy stopped at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    pub(crate) end: End,
    pub(crate) error: AccessError,
}
