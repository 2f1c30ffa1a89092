//! Address Translation Services: what a device asks the IOMMU, and what the IOMMU tells a device to forget
//! (PCIe 6.0, 10.2 and 10.3).

use thiserror::Error;

use crate::pri::{PageGroupResponse, PageRequest};
use crate::{Bdf, Gpa, Iova, Pasid};

/// How an address travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// An ATS translation request: a miss is an answer without rights, not an error.
    Translation,
    /// An untranslated access: the IOMMU translates it on its way, and a miss is a recorded fault.
    Untranslated,
}

/// One address to translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationRequest {
    /// Who asks.
    pub requester: Bdf,
    /// The address space, or `None` for the function's own (DMA API) space.
    pub pasid: Option<Pasid>,
    /// The address.
    pub iova: Iova,
    /// Whether write permission is wanted. A request without it carries the No-Write flag: the answer
    /// grants no write, and no dirty bit is set.
    pub write: bool,
    /// Translation request or untranslated access.
    pub kind: RequestKind,
}

/// A naturally aligned block of address space and where it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// First guest-physical address of the block; meaningless without rights.
    pub gpa: Gpa,
    /// log2 of the block's size in bytes: 12, 21, 30 - or larger for pass-through.
    pub page_shift: u8,
    /// Reads are allowed.
    pub read: bool,
    /// Writes are allowed.
    pub write: bool,
}

impl Translation {
    /// An answer without rights: nothing is mapped there now. Never to be cached.
    pub const NONE: Self = Self { gpa: Gpa(0), page_shift: 12, read: false, write: false };

    /// Where `iova` lies, given that it is inside the block.
    pub const fn gpa_of(&self, iova: Iova) -> Gpa {
        Gpa(self.gpa.0 + iova.offset_in(self.page_shift))
    }

    /// How many bytes of the block follow `iova`, itself included.
    pub const fn bytes_from(&self, iova: Iova) -> u64 {
        (1 << self.page_shift) - iova.offset_in(self.page_shift)
    }

    /// Whether the rights suffice for a write (`true`) or a read (`false`).
    pub const fn allows(&self, write: bool) -> bool {
        if write { self.write } else { self.read }
    }
}

/// Why a request got no translation at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TranslationError {
    /// The function may not ask: translation off for it, ATS or PASID not enabled in its context entry.
    #[error("unsupported request: {requester} may not translate {iova} (PASID {pasid:?})")]
    UnsupportedRequest {
        /// Who asked.
        requester: Bdf,
        /// In which address space.
        pasid: Option<Pasid>,
        /// What.
        iova: Iova,
    },
    /// The IOMMU's tables are wrong for this function: reserved bits, tables outside memory.
    #[error("completer abort: tables of {requester} are invalid at {iova} (PASID {pasid:?})")]
    CompleterAbort {
        /// Who asked.
        requester: Bdf,
        /// In which address space.
        pasid: Option<Pasid>,
        /// What.
        iova: Iova,
    },
    /// An untranslated access was blocked; the IOMMU recorded the fault.
    #[error("blocked: {requester} at {iova} (PASID {pasid:?})")]
    Blocked {
        /// Who asked.
        requester: Bdf,
        /// In which address space.
        pasid: Option<Pasid>,
        /// What.
        iova: Iova,
    },
}

/// The IOMMU as a device sees it.
pub trait TranslationAgent: Send + Sync {
    /// Translates one address. With [`RequestKind::Translation`], a page that is absent or forbidden is
    /// `Ok` without the rights that were asked for.
    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError>;

    /// Asks the operating system for a page. The answer comes later through
    /// [`AtsEndpoint::page_group_response`] - or at once, from inside this call, when the queue is full or
    /// the function may not ask: so the caller must hold no lock that its response handler takes.
    fn page_request(&self, request: PageRequest);
}

/// Which translations a device must forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidationRequest {
    /// The address space; `None` means the function's own space - and, together with [`Self::everything`],
    /// all its address spaces: Linux before 7.x flushes a whole process that way.
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
    /// The function's requester id.
    fn requester(&self) -> Bdf;

    /// Forgets translations. Returns when every access that used them has landed: returning *is* the
    /// invalidation completion. Never waits for a page request, for the guest waits for this with
    /// interrupts off. Works whatever state the device is in.
    fn invalidate(&self, request: InvalidationRequest);

    /// Takes the answer to a page request group. An answer to no open group is ignored.
    fn page_group_response(&self, response: PageGroupResponse);
}
