//! The translation state: whether translation is on, the root table, and the caches.
//!
//! All of it is behind one lock, which is held for a whole walk and the insertion into the cache that follows. An
//! invalidation takes the lock too, and has the right of way: devices may walk without end. So it runs either before the walk, which then reads the new tables, or after the
//! insertion, which it then removes. A generation number would keep stale entries out as well, but it would not stop a
//! walk: once the invalidation has completed, the guest may free its page tables, and a walk still in flight would set
//! accessed bits in memory that is used for something else.

use std::collections::BTreeSet;

use refault_bus::ats::{RequestKind, Translation, TranslationRequest};
use refault_bus::dma::DmaMemory;
use refault_bus::pri::PageRequest;
use refault_bus::{Bdf, Gpa, Iova, Pasid};

use crate::cache::{Caches, Tag};
use crate::fault::FaultReason;
use crate::interrupt_range;
use crate::spec::HOST_ADDRESS_WIDTH;
use crate::spec::context::ContextEntry;
use crate::spec::invalidation::PasidCacheScope;
use crate::spec::registers::RootTableAddress;
use crate::walk::first_stage::Permission;
use crate::walk::pasid::{PasidEntry, TranslationType};
use crate::walk::{WalkFault, context, first_stage, pasid};

/// The PASID of requests without PASID: RID_PASID is zero, because ECAP.RPS is clear.
const RID_PASID: Pasid = Pasid::truncated(0);

/// Why a request is neither translated nor queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemappingError {
    /// Translation is off, and the request needs it.
    Disabled,
    /// A walk of the tables ended in a fault.
    Fault(WalkFault),
}

impl From<WalkFault> for RemappingError {
    fn from(fault: WalkFault) -> Self {
        Self::Fault(fault)
    }
}

/// Translation state and caches.
#[derive(Debug)]
pub(crate) struct Remapping {
    enabled: bool,
    root: RootTableAddress,
    caches: Caches,
    /// Who made untranslated accesses since the last flush of the IOTLB, of whatever part: a flush that names other
    /// mappings waits for more than it must, but the set is no larger than the number of devices. A requester is added
    /// before its translation is returned, under the same lock as a flush: a flush that comes after it finds it here.
    untranslated: BTreeSet<Bdf>,
    /// First-stage walks so far.
    walks: u64,
}

impl Remapping {
    pub(crate) fn new(caches: Caches) -> Self {
        let (root, untranslated) = (RootTableAddress::new(), BTreeSet::new());
        Self { enabled: false, root, caches, untranslated, walks: 0 }
    }

    /// Resets to translation off, no root table, empty caches.
    pub(crate) fn reset(&mut self) {
        self.configure(Some(RootTableAddress::new()), false);
    }

    /// Sets the root table, if there is a new one, and turns translation on or off. Flushes everything that was read before
    /// (CAP.ESRTPS).
    pub(crate) fn configure(&mut self, root: Option<RootTableAddress>, enabled: bool) {
        self.root = root.unwrap_or(self.root);
        self.enabled = enabled;
        self.caches.flush_all();
    }

    /// Translates one request.
    ///
    /// # Errors
    ///
    /// If translation is off and the request needs it, or a walk ends in a fault.
    pub(crate) fn translate(
        &mut self,
        memory: &dyn DmaMemory,
        request: &TranslationRequest,
    ) -> Result<Translation, RemappingError> {
        let is_plain = request.kind == RequestKind::Untranslated && request.pasid.is_none();
        // Not noted: turning translation on waits for all devices.
        if !self.enabled {
            return if is_plain { Ok(identity(request.iova)) } else { Err(RemappingError::Disabled) };
        }
        // Without PASID, writes to the interrupt range are interrupts and not translated (§3.14). A translation request
        // gets no rights there: a translated write would bypass the interrupt logic.
        if request.pasid.is_none() && interrupt_range::contains(request.iova.0) {
            return Ok(if is_plain { identity(request.iova) } else { Translation::NONE });
        }
        let in_legacy_mode = match request.pasid {
            Some(_) => FaultReason::PasidInLegacyMode,
            None => FaultReason::RootMode,
        };
        let context = self.context(memory, request.requester, in_legacy_mode)?;
        if request.kind == RequestKind::Translation && !context.dte() {
            return Err(WalkFault::new(FaultReason::DeviceTlbDisabled, context.fpd()).into());
        }
        let pasid = pasid_of(context, request.pasid)?;
        let entry = self.pasid_entry(memory, context, request.requester, pasid)?;
        let tag = Tag { did: entry.did, pasid };
        if request.kind == RequestKind::Untranslated {
            self.untranslated.insert(request.requester);
        }
        let translated = match entry.translation {
            TranslationType::PassThrough => pass_through(request),
            TranslationType::FirstStage(root) => self.first_stage(memory, root, tag, request),
        };
        translated.map_err(|reason| WalkFault::new(reason, entry.fpd).into())
    }

    /// Checks that a page request may be queued, and flushes its page from the IOTLB (§6.5.3.1): after the response the
    /// device translates again, and must not hit an entry that lacks the rights.
    ///
    /// # Errors
    ///
    /// If translation is off, or the tables do not allow the request.
    pub(crate) fn admit(
        &mut self,
        memory: &dyn DmaMemory,
        request: &PageRequest,
    ) -> Result<(), RemappingError> {
        if !self.enabled {
            return Err(RemappingError::Disabled);
        }
        let context = self.context(memory, request.requester, FaultReason::PageRequestInLegacyMode)?;
        if !context.pre() {
            return Err(WalkFault::new(FaultReason::PageRequestDisabled, context.fpd()).into());
        }
        let pasid = pasid_of(context, request.pasid)?;
        let entry = self.pasid_entry(memory, context, request.requester, pasid)?;
        self.caches.flush_tag(Tag { did: entry.did, pasid }, Some((request.page, 12)));
        Ok(())
    }

    /// Context-cache invalidation; see [`Caches::flush_contexts`].
    pub(crate) fn flush_contexts(&mut self, device: Option<(Bdf, u16)>) {
        self.caches.flush_contexts(device);
    }

    /// PASID-cache invalidation; see [`Caches::flush_pasid_entries`].
    pub(crate) fn flush_pasid_entries(&mut self, scope: PasidCacheScope) {
        self.caches.flush_pasid_entries(scope);
    }

    /// IOTLB invalidation of one domain or of all. Returns the requesters to drain, which are noted again with their next
    /// untranslated access.
    pub(crate) fn flush_domain(&mut self, did: Option<u16>) -> BTreeSet<Bdf> {
        self.caches.flush_domain(did);
        std::mem::take(&mut self.untranslated)
    }

    /// IOTLB invalidation in one address space. Returns the requesters to drain; see [`Self::flush_domain`].
    pub(crate) fn flush_tag(&mut self, tag: Tag, block: Option<(Iova, u8)>) -> BTreeSet<Bdf> {
        self.caches.flush_tag(tag, block);
        std::mem::take(&mut self.untranslated)
    }

    /// Number of first-stage walks so far.
    pub(crate) fn walks(&self) -> u64 {
        self.walks
    }

    /// The context entry of `requester`, from the cache or by a walk, which ends with `in_legacy_mode` if RTADDR says so.
    fn context(
        &mut self,
        memory: &dyn DmaMemory,
        requester: Bdf,
        in_legacy_mode: FaultReason,
    ) -> Result<ContextEntry, WalkFault> {
        if let Some(entry) = self.caches.context(requester) {
            return Ok(entry);
        }
        let entry = context::walk(memory, self.root, requester, in_legacy_mode)?;
        self.caches.insert_context(requester, entry);
        Ok(entry)
    }

    /// The PASID entry of `pasid`, from the cache or by a walk.
    fn pasid_entry(
        &mut self,
        memory: &dyn DmaMemory,
        context: ContextEntry,
        requester: Bdf,
        pasid: Pasid,
    ) -> Result<PasidEntry, WalkFault> {
        if let Some(entry) = self.caches.pasid_entry(requester, pasid) {
            return Ok(entry);
        }
        let entry = pasid::walk(memory, context, pasid)?;
        self.caches.insert_pasid_entry(requester, pasid, entry);
        Ok(entry)
    }

    /// A first-stage translation, from the IOTLB or by a walk of the tables at `root`.
    fn first_stage(
        &mut self,
        memory: &dyn DmaMemory,
        root: Gpa,
        tag: Tag,
        request: &TranslationRequest,
    ) -> Result<Translation, FaultReason> {
        // A hit marks nothing: an entry is cached with write permission only after its dirty bit was set. A read-only
        // entry does not serve a write, which walks again and sets it.
        if let Some(hit) = self.caches.translation(tag, request.iova)
            && hit.allows(request.write)
        {
            return Ok(Translation { write: hit.write && request.write, ..hit });
        }
        self.walks += 1;
        let permission = match (request.write, request.kind) {
            (false, _) => Permission::Read,
            (true, RequestKind::Translation) => Permission::WriteIfAllowed,
            (true, RequestKind::Untranslated) => Permission::Write,
        };
        let block = first_stage::walk(memory, root, request.iova, permission)?;
        let part = interrupt_range::part_outside(block, request.iova);
        // Only whole blocks are cached: a flush of one page of a block must take all of it, and so all of its parts.
        if part == block {
            self.caches.insert_translation(tag, request.iova, block);
        }
        Ok(part)
    }
}

/// The PASID that a request is translated with (§9.4). A request with PASID must not name RID_PASID, or a process could
/// reach the address space of the device's own DMA.
fn pasid_of(context: ContextEntry, pasid: Option<Pasid>) -> Result<Pasid, WalkFault> {
    match pasid {
        None => Ok(RID_PASID),
        Some(_) if !context.paside() => Err(WalkFault::new(FaultReason::PasidDisabled, context.fpd())),
        Some(RID_PASID) => Err(WalkFault::new(FaultReason::PasidIsRidPasid, context.fpd())),
        Some(pasid) => Ok(pasid),
    }
}

/// Pass-through: the address is a physical one (§3.9).
fn pass_through(request: &TranslationRequest) -> Result<Translation, FaultReason> {
    if request.iova.0 >> HOST_ADDRESS_WIDTH != 0 {
        return Err(FaultReason::BeyondHostWidth);
    }
    if interrupt_range::contains(request.iova.0) {
        return Err(FaultReason::InterruptRange);
    }
    Ok(Translation { write: request.write, ..identity(request.iova) })
}

/// The largest block around `iova`, mapped to itself, that does not overlap the interrupt range.
fn identity(iova: Iova) -> Translation {
    let block = Translation { gpa: Gpa(iova.0).align_down(30), page_shift: 30, read: true, write: true };
    interrupt_range::part_outside(block, iova)
}
