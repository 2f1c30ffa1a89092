//! Address Translation Services: translation requests from a device to the IOMMU, and invalidation requests from the
//! IOMMU to a device (PCIe 6.0, 10.2 and 10.3).

use thiserror::Error;

use crate::pri::{PageGroupResponse, PageRequest};
use crate::{Bdf, Gpa, Iova, Pasid};

/// How an address is translated (the AT field of a request, PCIe 6.0, 10.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// An ATS translation request. A miss completes without rights; it is not an error.
    Translation,
    /// An untranslated access, which the IOMMU translates as it passes. A miss blocks it and is recorded as a fault.
    Untranslated,
}

/// One address to translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationRequest {
    /// Requester ID of the function.
    pub requester: Bdf,
    /// The address space, or `None` for the function's own (DMA API) space.
    pub pasid: Option<Pasid>,
    /// The address, of any alignment.
    pub iova: Iova,
    /// Write permission is wanted. A request without it carries the No Write flag: the completion grants no write,
    /// and no dirty bit is set.
    pub write: bool,
    /// Translation request or untranslated access.
    pub kind: RequestKind,
}

/// A naturally aligned block of address space, and where it is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// First guest-physical address of the block; not valid without rights.
    pub gpa: Gpa,
    /// log2 of the block's size in bytes: 12, 21 or 30; larger for pass-through.
    pub page_shift: u8,
    /// Reads are allowed.
    pub read: bool,
    /// Writes are allowed.
    pub write: bool,
}

impl Translation {
    /// No rights: nothing is mapped there now. Must not be cached, because the guest does not announce new mappings.
    pub const NONE: Self = Self { gpa: Gpa(0), page_shift: 12, read: false, write: false };

    /// Guest-physical address of `iova`, which must be inside the block.
    pub const fn gpa_of(&self, iova: Iova) -> Gpa {
        Gpa(self.gpa.0 + iova.offset_in(self.page_shift))
    }

    /// Number of bytes from `iova` to the end of the block.
    pub const fn bytes_from(&self, iova: Iova) -> u64 {
        (1 << self.page_shift) - iova.offset_in(self.page_shift)
    }

    /// Whether the rights suffice for a write (`true`) or a read (`false`).
    pub const fn allows(&self, write: bool) -> bool {
        if write { self.write } else { self.read }
    }
}

/// Why a request is not completed with a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TranslationError {
    /// The function may not translate: translation is off, or its context entry allows no ATS or no PASID.
    #[error("unsupported request: {requester} may not translate {iova} (PASID {pasid:?})")]
    UnsupportedRequest {
        /// Requester ID of the function.
        requester: Bdf,
        /// The address space, or `None` for the function's own.
        pasid: Option<Pasid>,
        /// The address that was to be translated.
        iova: Iova,
    },
    /// The IOMMU's tables are wrong for this function: reserved bits, tables outside memory.
    #[error("completer abort: tables of {requester} are invalid at {iova} (PASID {pasid:?})")]
    CompleterAbort {
        /// Requester ID of the function.
        requester: Bdf,
        /// The address space, or `None` for the function's own.
        pasid: Option<Pasid>,
        /// The address that was to be translated.
        iova: Iova,
    },
    /// An untranslated access was blocked; the IOMMU recorded the fault.
    #[error("blocked: {requester} at {iova} (PASID {pasid:?})")]
    Blocked {
        /// Requester ID of the function.
        requester: Bdf,
        /// The address space, or `None` for the function's own.
        pasid: Option<Pasid>,
        /// The address that was to be translated.
        iova: Iova,
    },
}

/// The IOMMU as a device sees it.
pub trait TranslationAgent: Send + Sync {
    /// Translates one address. With [`RequestKind::Translation`], a page that is not present or does not allow the
    /// access is `Ok`, without the rights that were requested.
    ///
    /// # Errors
    ///
    /// [`TranslationError::UnsupportedRequest`] or [`TranslationError::CompleterAbort`] for a translation request,
    /// [`TranslationError::Blocked`] for an untranslated access. The IOMMU has recorded the fault, if it records it.
    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError>;

    /// Asks the operating system for a page. The response comes through [`AtsEndpoint::page_group_response`]: later,
    /// or from inside this call if the queue is full or the function may not ask. So the caller must not hold a lock
    /// that its response handler takes.
    fn page_request(&self, request: PageRequest);
}

/// The translations that a device must discard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidationRequest {
    /// The address space; `None` is the function's own. With [`Self::everything`], `None` is all its address spaces:
    /// Linux before 7.x flushes a whole process that way.
    pub pasid: Option<Pasid>,
    /// First address of a naturally aligned block.
    pub iova: Iova,
    /// log2 of the block's size in bytes; 64 means everything.
    pub size_shift: u8,
}

impl InvalidationRequest {
    /// Whether the whole address space is meant.
    pub const fn everything(&self) -> bool {
        self.size_shift >= 63
    }
}

/// A device with a translation cache, as the IOMMU sees it.
pub trait AtsEndpoint: Send + Sync {
    /// Discards translations. Returns when every access that used them has landed: the return *is* the invalidation
    /// completion. Must not wait for a page request, because the guest waits for this with interrupts off and could
    /// not handle one. Works in every state of the device.
    fn invalidate(&self, request: InvalidationRequest);

    /// Returns when every untranslated access that the IOMMU has translated so far has landed. No message of PCI Express: a
    /// root complex drains such accesses itself, but here they do not pass through it. What holds for
    /// [`Self::invalidate`] holds here.
    fn drain(&self);

    /// Delivers the response to a page request group. A response that matches no open group is ignored.
    fn page_group_response(&self, response: PageGroupResponse);
}
