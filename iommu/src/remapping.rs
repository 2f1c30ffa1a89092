//! The translation state: whether translation is on, where the tables are, and what is cached of them.
//!
//! All of it sits behind one lock, which is held over a whole walk and the insertion that follows. So an
//! invalidation, which takes the lock too, comes either before the walk, which then reads the new tables, or
//! after the insertion, which it then removes. A generation number would keep stale entries out as well,
//! but not this: once the invalidation is done the guest may free its page tables, and a walk still under
//! way would set accessed bits in memory that is someone else's.

use refault_bus::ats::{RequestKind, Translation, TranslationRequest};
use refault_bus::dma::DmaMemory;
use refault_bus::pri::PageRequest;
use refault_bus::{Bdf, Gpa, Iova, Pasid};
use rustc_hash::FxHashSet;

use crate::cache::{Caches, Tag};
use crate::fault::FaultReason;
use crate::spec::HOST_ADDRESS_WIDTH;
use crate::spec::context::ContextEntry;
use crate::spec::invalidation::PasidCacheScope;
use crate::spec::registers::RootTableAddress;
use crate::walk::first_stage::Permission;
use crate::walk::pasid::{PasidEntry, TranslationType};
use crate::walk::{WalkFault, context, first_stage, pasid};

/// The PASID of requests without one: ECAP.RPS is clear.
const RID_PASID: Pasid = Pasid::truncated(0);

/// Frame number of the interrupt range, 0xfee0_0000..0xfef0_0000, in units of 1 MiB.
const INTERRUPT_MEGABYTE: u64 = 0xfee;

/// Beyond so many users of untranslated accesses, all of them count as users of everything.
const UNTRANSLATED_LIMIT: usize = 4096;

/// Who made untranslated accesses to what, and must be waited for when that is invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UntranslatedUse {
    pub(crate) tag: Tag,
    pub(crate) requester: Bdf,
    pub(crate) pasid: Option<Pasid>,
}

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
    untranslated: FxHashSet<UntranslatedUse>,
    walks: u64,
}

impl Remapping {
    pub(crate) fn new(caches: Caches) -> Self {
        let (root, untranslated) = (RootTableAddress::new(), FxHashSet::default());
        Self { enabled: false, root, caches, untranslated, walks: 0 }
    }

    /// Translation off, no root table, nothing cached.
    pub(crate) fn reset(&mut self) {
        self.enabled = false;
        self.root = RootTableAddress::new();
        self.caches.flush_all();
        self.untranslated.clear();
    }

    pub(crate) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
        self.caches.flush_all();
    }

    /// Takes a new root table, and forgets everything read through the old one (CAP.ESRTPS).
    pub(crate) fn set_root(&mut self, root: RootTableAddress) {
        self.root = root;
        self.caches.flush_all();
    }

    /// Translates one request.
    pub(crate) fn translate(
        &mut self,
        memory: &dyn DmaMemory,
        request: &TranslationRequest,
    ) -> Result<Translation, RemappingError> {
        let is_plain = request.kind == RequestKind::Untranslated && request.pasid.is_none();
        if !self.enabled {
            return if is_plain { Ok(identity(request.iova)) } else { Err(RemappingError::Disabled) };
        }
        // Without PASID the interrupt range is no address space at all (§3.14): writes there are interrupts,
        // and a device must not get a translated address for them.
        if request.pasid.is_none() && is_interrupt(request.iova.0) {
            return Ok(if is_plain { identity(request.iova) } else { Translation::NONE });
        }
        let context = self.context(memory, request.requester)?;
        if request.kind == RequestKind::Translation && !context.dte() {
            return Err(WalkFault::new(FaultReason::DeviceTlbDisabled, context.fpd()).into());
        }
        let pasid = pasid_of(context, request.pasid)?;
        let entry = self.pasid_entry(memory, context, request.requester, pasid)?;
        let tag = Tag { did: entry.did, pasid };
        if request.kind == RequestKind::Untranslated {
            self.note_untranslated(UntranslatedUse {
                tag,
                requester: request.requester,
                pasid: request.pasid,
            });
        }
        let translated = match entry.translation {
            TranslationType::PassThrough => pass_through(request),
            TranslationType::FirstStage(root) => self.first_stage(memory, root, tag, request),
        };
        translated.map_err(|reason| WalkFault::new(reason, entry.fpd).into())
    }

    /// Whether a page request may be queued; `Ok` has dropped the page from the IOTLB (§6.5.3.1).
    pub(crate) fn admit(
        &mut self,
        memory: &dyn DmaMemory,
        request: &PageRequest,
    ) -> Result<(), RemappingError> {
        if !self.enabled {
            return Err(RemappingError::Disabled);
        }
        let context = self.context(memory, request.requester)?;
        if !context.pre() {
            return Err(WalkFault::new(FaultReason::PageRequestDisabled, context.fpd()).into());
        }
        let pasid = pasid_of(context, request.pasid)?;
        let entry = self.pasid_entry(memory, context, request.requester, pasid)?;
        self.caches.flush_tag(Tag { did: entry.did, pasid }, Some((request.page, 12)));
        Ok(())
    }

    /// Context cache invalidation.
    pub(crate) fn flush_contexts(&mut self, device: Option<(Bdf, u16)>) {
        self.caches.flush_contexts(device);
    }

    /// PASID cache invalidation.
    pub(crate) fn flush_pasid_entries(&mut self, scope: PasidCacheScope) {
        self.caches.flush_pasid_entries(scope);
    }

    /// IOTLB invalidation of a domain or all: tells whose untranslated accesses must land.
    pub(crate) fn flush_domain(&mut self, did: Option<u16>) -> Vec<UntranslatedUse> {
        self.caches.flush_domain(did);
        self.take_untranslated(|tag| did.is_none_or(|did| did == tag.did))
    }

    /// IOTLB invalidation in one address space: tells whose untranslated accesses must land.
    pub(crate) fn flush_tag(&mut self, tag: Tag, block: Option<(Iova, u8)>) -> Vec<UntranslatedUse> {
        self.caches.flush_tag(tag, block);
        self.take_untranslated(|used| used == tag)
    }

    /// How many first-stage walks there were.
    pub(crate) fn walks(&self) -> u64 {
        self.walks
    }

    fn context(&mut self, memory: &dyn DmaMemory, requester: Bdf) -> Result<ContextEntry, WalkFault> {
        if let Some(entry) = self.caches.context(requester) {
            return Ok(entry);
        }
        let entry = context::walk(memory, self.root, requester)?;
        self.caches.insert_context(requester, entry);
        Ok(entry)
    }

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

    fn first_stage(
        &mut self,
        memory: &dyn DmaMemory,
        root: Gpa,
        tag: Tag,
        request: &TranslationRequest,
    ) -> Result<Translation, FaultReason> {
        // A cached entry with write permission has its dirty bit set already.
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
        let translation = first_stage::walk(memory, root, request.iova, permission)?;
        if overlaps_interrupts(&translation) {
            return Err(FaultReason::InterruptRange);
        }
        self.caches.insert_translation(tag, request.iova, translation);
        Ok(translation)
    }

    fn note_untranslated(&mut self, used: UntranslatedUse) {
        if self.untranslated.len() < UNTRANSLATED_LIMIT {
            self.untranslated.insert(used);
        }
    }

    fn take_untranslated(&mut self, matches: impl Fn(Tag) -> bool) -> Vec<UntranslatedUse> {
        if self.untranslated.is_empty() {
            return Vec::new();
        }
        let everything = self.untranslated.len() >= UNTRANSLATED_LIMIT;
        let taken: Vec<_> =
            self.untranslated.iter().filter(|used| everything || matches(used.tag)).copied().collect();
        taken.iter().for_each(|used| {
            self.untranslated.remove(used);
        });
        taken
    }
}

/// The PASID that a request is translated with (§9.4).
fn pasid_of(context: ContextEntry, pasid: Option<Pasid>) -> Result<Pasid, WalkFault> {
    match pasid {
        None => Ok(RID_PASID),
        Some(_) if !context.paside() => Err(WalkFault::new(FaultReason::PasidDisabled, context.fpd())),
        Some(RID_PASID) => Err(WalkFault::new(FaultReason::PasidIsRidPasid, context.fpd())),
        Some(pasid) => Ok(pasid),
    }
}

/// Pass-through: the address is physical already (§3.9).
fn pass_through(request: &TranslationRequest) -> Result<Translation, FaultReason> {
    if request.iova.0 >> HOST_ADDRESS_WIDTH != 0 {
        return Err(FaultReason::BeyondHostWidth);
    }
    match request.kind {
        RequestKind::Untranslated if is_interrupt(request.iova.0) => Err(FaultReason::InterruptRange),
        RequestKind::Translation if is_interrupt(request.iova.0) => Ok(Translation::NONE),
        _ => Ok(Translation { write: request.write, ..identity(request.iova) }),
    }
}

/// The largest block around `iova` that is itself, without the interrupt range.
fn identity(iova: Iova) -> Translation {
    let clear = |shift: &u8| iova.0 >> shift != INTERRUPT_MEGABYTE << 20 >> shift;
    let page_shift = [30, 21, 12].into_iter().find(clear).unwrap_or(12);
    Translation { gpa: Gpa(iova.0).align_down(page_shift), page_shift, read: true, write: true }
}

const fn is_interrupt(address: u64) -> bool {
    address >> 20 == INTERRUPT_MEGABYTE
}

/// Whether the block touches the interrupt range (SGN.8).
const fn overlaps_interrupts(translation: &Translation) -> bool {
    let shift = if translation.page_shift > 20 { translation.page_shift } else { 20 };
    translation.gpa.0 >> shift == INTERRUPT_MEGABYTE << 20 >> shift
}
