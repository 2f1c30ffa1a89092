//! The IOMMU driver's view of a function: context entry, PASID table entries, and TLB flushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use refault_bus::{Bdf, Gpa, Iova, Pasid};

use crate::ModelError;
use crate::paging::PageTables;
use crate::vtd::context::{ContextBits, FAULT_DISABLED, PRESENT, PasidEntry, PasidTables};
use crate::vtd::{Descriptor, RemappingUnit, covering_block};

/// The PASID table entry for requests without a PASID (RID_PASID).
const OWN_SPACE: Pasid = Pasid::truncated(0);
/// The domain id that Linux uses for all SVA and pass-through entries.
const SHARED_DOMAIN: u16 = 1;

/// Arguments of [`RemappingUnit::probe`]: the capabilities of a function.
#[derive(Clone, Copy, Debug)]
pub struct FunctionSetup {
    /// Requester id of the function.
    pub requester: Bdf,
    /// Width of its PASIDs in bits.
    pub pasid_bits: u32,
    /// Whether it has ATS.
    pub ats: bool,
    /// Whether it has PASID.
    pub pasid: bool,
    /// Whether it has PRI.
    pub page_requests: bool,
}

impl FunctionSetup {
    /// A function with all capabilities and 20-bit PASIDs.
    pub const fn capable(requester: Bdf) -> Self {
        Self { requester, pasid_bits: Pasid::BITS, ats: true, pasid: true, page_requests: true }
    }
}

/// A function that was probed.
pub struct Function {
    pub(crate) unit: Arc<RemappingUnit>,
    pub(crate) requester: Bdf,
    pub(crate) pasids: PasidTables,
    /// Address of its context entry.
    context: Gpa,
    /// Domain id of requests without a PASID.
    own_domain: AtomicU16,
    /// Whether ATS is enabled in config space: only then is the device TLB flushed.
    ats_enabled: AtomicBool,
}

impl Function {
    pub(crate) fn new(unit: Arc<RemappingUnit>, setup: FunctionSetup) -> Result<Arc<Self>, ModelError> {
        let memory = &unit.setup.memory;
        let bits = if setup.pasid { setup.pasid_bits } else { 0 };
        let pasids = PasidTables::new(memory.clone(), bits)?;
        let context = unit.contexts.context(setup.requester)?;
        let [low, high] = pasids.context_entry(ContextBits {
            device_tlb: setup.ats,
            pasid: setup.pasid,
            page_requests: setup.page_requests,
        });
        memory.dma().store_u64(Gpa(context.0 + 8), high)?;
        memory.dma().store_u64(context, low)?;
        Ok(Arc::new(Self {
            requester: setup.requester,
            pasids,
            context,
            own_domain: AtomicU16::new(SHARED_DOMAIN),
            ats_enabled: AtomicBool::new(false),
            unit,
        }))
    }

    /// Requester id of the function.
    pub fn requester(&self) -> Bdf {
        self.requester
    }

    /// The IOMMU that translates its requests.
    pub fn unit(&self) -> &Arc<RemappingUnit> {
        &self.unit
    }

    /// Addresses of its context entry and PASID directory, for tests that corrupt them.
    pub fn tables(&self) -> (Gpa, Gpa) {
        (self.context, self.pasids.directory())
    }

    /// Address of the PASID table entry of `pasid`.
    ///
    /// # Errors
    ///
    /// [`ModelError::PasidBusy`] beyond the directory; [`ModelError::OutOfMemory`].
    pub fn pasid_entry(&self, pasid: Pasid) -> Result<Gpa, ModelError> {
        self.pasids.entry(pasid)?.ok_or(self.busy(pasid))
    }

    /// Must be called when ATS was enabled or disabled in config space.
    pub fn set_ats_enabled(&self, on: bool) {
        self.ats_enabled.store(on, Ordering::Release);
    }

    /// Sets pass-through for requests without a PASID.
    ///
    /// # Errors
    ///
    /// [`ModelError::PasidBusy`] if another domain is attached.
    pub fn attach_pass_through(&self) -> Result<(), ModelError> {
        self.own_domain.store(SHARED_DOMAIN, Ordering::Release);
        self.set_entry(OWN_SPACE, PasidEntry::PassThrough { domain: SHARED_DOMAIN })
    }

    /// Sets translation by `space` for requests without a PASID, under domain id `domain`, which must be at least 2.
    ///
    /// # Errors
    ///
    /// [`ModelError::PasidBusy`] if another domain is attached.
    pub fn attach_domain(&self, space: &PageTables, domain: u16) -> Result<(), ModelError> {
        self.own_domain.store(domain, Ordering::Release);
        self.set_entry(OWN_SPACE, PasidEntry::FirstStage { root: space.root(), domain })
    }

    /// Blocks requests without a PASID.
    ///
    /// # Errors
    ///
    /// As [`InvalidationQueue::submit`](crate::vtd::InvalidationQueue::submit).
    pub fn detach_domain(&self) -> Result<(), ModelError> {
        self.clear_entry(OWN_SPACE, false)
    }

    /// Binds `pasid` to an address space, which only writes the PASID table entry: the absence of an entry is not
    /// cached.
    ///
    /// # Errors
    ///
    /// [`ModelError::PasidBusy`] if it is bound, or beyond the directory; [`ModelError::OutOfMemory`].
    pub fn bind(&self, pasid: Pasid, space: &PageTables) -> Result<(), ModelError> {
        self.set_entry(pasid, PasidEntry::FirstStage { root: space.root(), domain: SHARED_DOMAIN })
    }

    /// Flushes `first..=last` of a PASID from IOTLB and device TLB, and waits. To be called after its page tables
    /// changed.
    ///
    /// # Errors
    ///
    /// As [`InvalidationQueue::submit`](crate::vtd::InvalidationQueue::submit).
    pub fn flush(&self, pasid: Pasid, first: Iova, last: Iova) -> Result<(), ModelError> {
        let (iova, shift) = covering_block(first, last);
        let device = Descriptor::pasid_device_tlb(self.requester, pasid, iova, shift);
        self.flush_pair(Descriptor::pasid_iotlb_block(SHARED_DOMAIN, pasid, iova, shift), device)
    }

    /// Flushes `first..=last` for requests without a PASID, and waits.
    ///
    /// # Errors
    ///
    /// As [`InvalidationQueue::submit`](crate::vtd::InvalidationQueue::submit).
    pub fn flush_own(&self, first: Iova, last: Iova) -> Result<(), ModelError> {
        let (iova, shift) = covering_block(first, last);
        let device = Descriptor::device_tlb(self.requester, iova, shift);
        self.flush_pair(Descriptor::pasid_iotlb_block(self.own_domain(), OWN_SPACE, iova, shift), device)
    }

    pub(crate) fn own_domain(&self) -> u16 {
        self.own_domain.load(Ordering::Acquire)
    }

    /// The descriptor that flushes a whole PASID from the device TLB; PASID 0 is for requests without one.
    pub(crate) fn device_tlb_of(&self, pasid: Pasid) -> Descriptor {
        if pasid == OWN_SPACE {
            Descriptor::device_tlb(self.requester, Iova(0), 64)
        } else {
            Descriptor::pasid_device_tlb(self.requester, pasid, Iova(0), 64)
        }
    }

    /// Tears down an entry as `intel_pasid_tear_down_entry` does: clears P, flushes PASID cache, IOTLB and device TLB
    /// with a wait after each, then clears the rest. The flushes come before that, so that hardware never uses an entry
    /// that is partly cleared. With `keep_quiet`, FPD stays set and no faults are reported.
    pub(crate) fn clear_entry(&self, pasid: Pasid, keep_quiet: bool) -> Result<(), ModelError> {
        let dma = self.unit.setup.memory.dma();
        let at = self.pasid_entry(pasid)?;
        let low = dma.load_u64(at)?;
        if low & PRESENT != 0 {
            let [low_byte, high_byte, ..] = dma.load_u64(Gpa(at.0 + 8))?.to_le_bytes();
            let domain = u16::from_le_bytes([low_byte, high_byte]);
            dma.store_u64(at, low & !PRESENT)?;
            self.unit.queue.submit(&[Descriptor::pasid_entry(domain, pasid)], false)?;
            self.unit.queue.submit(&[Descriptor::pasid_iotlb(domain, pasid)], false)?;
            if self.ats_enabled.load(Ordering::Acquire) {
                self.unit.queue.submit(&[self.device_tlb_of(pasid)], false)?;
            }
        }
        dma.store_u64(at, if keep_quiet { FAULT_DISABLED } else { 0 })?;
        for offset in (8..64).step_by(8) {
            dma.store_u64(Gpa(at.0 + offset), 0)?;
        }
        Ok(())
    }

    /// Writes an entry that is not present. P comes last, so that hardware never sees a partial entry. No flush is
    /// needed, as the absence of an entry is not cached.
    fn set_entry(&self, pasid: Pasid, entry: PasidEntry) -> Result<(), ModelError> {
        let dma = self.unit.setup.memory.dma();
        let at = self.pasids.entry(pasid)?.ok_or(self.busy(pasid))?;
        if dma.load_u64(at)? & PRESENT != 0 {
            return Err(self.busy(pasid));
        }
        let [low, domain, root] = entry.quadwords();
        dma.store_u64(Gpa(at.0 + 8), domain)?;
        dma.store_u64(Gpa(at.0 + 16), root)?;
        Ok(dma.store_u64(at, low)?)
    }

    fn flush_pair(&self, iotlb: Descriptor, device: Descriptor) -> Result<(), ModelError> {
        let count = if self.ats_enabled.load(Ordering::Acquire) { 2 } else { 1 };
        self.unit.queue.submit(&[iotlb, device][..count], false)
    }

    fn busy(&self, pasid: Pasid) -> ModelError {
        ModelError::PasidBusy { requester: self.requester, pasid }
    }
}
