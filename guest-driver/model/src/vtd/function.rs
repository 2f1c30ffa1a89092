//! A function as the IOMMU driver knows it: its context entry, what each PASID translates by, and flushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use refault_bus::{Bdf, Gpa, Iova, Pasid};

use crate::ModelError;
use crate::paging::PageTables;
use crate::vtd::context::{ContextBits, FAULT_DISABLED, PRESENT, PasidEntry, PasidTables};
use crate::vtd::{Descriptor, Unit, covering_block};

/// The function's own address space in the PASID table: accesses without a PASID.
const OWN_SPACE: Pasid = Pasid::truncated(0);
/// The domain that Linux gives all SVA and pass-through entries.
const SHARED_DOMAIN: u16 = 1;

/// What the driver found out about a function before it gives it a context entry.
#[derive(Clone, Copy, Debug)]
pub struct FunctionSetup {
    /// Its place on the bus.
    pub requester: Bdf,
    /// Width of the PASIDs it can use.
    pub pasid_bits: u32,
    /// It has ATS.
    pub ats: bool,
    /// It has PASIDs.
    pub pasid: bool,
    /// It has page requests.
    pub page_requests: bool,
}

impl FunctionSetup {
    /// A function that can do everything, with 20 bits of PASID.
    pub const fn capable(requester: Bdf) -> Self {
        Self { requester, pasid_bits: Pasid::BITS, ats: true, pasid: true, page_requests: true }
    }
}

/// A probed function.
pub struct Function {
    pub(crate) unit: Arc<Unit>,
    pub(crate) requester: Bdf,
    pub(crate) pasids: PasidTables,
    /// Where its context entry lies.
    context: Gpa,
    /// Domain of its own space.
    own_domain: AtomicU16,
    /// ATS is on in its config space: only then is its TLB flushed.
    ats_enabled: AtomicBool,
}

impl Function {
    pub(crate) fn new(unit: Arc<Unit>, setup: FunctionSetup) -> Result<Arc<Self>, ModelError> {
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

    /// Its place on the bus.
    pub fn requester(&self) -> Bdf {
        self.requester
    }

    /// The unit it is behind.
    pub fn unit(&self) -> &Arc<Unit> {
        &self.unit
    }

    /// Where its context entry and PASID directory lie, for tests that spoil them.
    pub fn tables(&self) -> (Gpa, Gpa) {
        (self.context, self.pasids.directory())
    }

    /// Where the PASID entry of `pasid` lies, for tests that spoil it.
    pub fn pasid_entry(&self, pasid: Pasid) -> Result<Gpa, ModelError> {
        self.pasids.entry(pasid)?.ok_or(self.busy(pasid))
    }

    /// Notes that ATS was switched on or off in config space.
    pub fn set_ats_enabled(&self, on: bool) {
        self.ats_enabled.store(on, Ordering::Release);
    }

    /// Accesses without a PASID go untranslated.
    pub fn attach_pass_through(&self) -> Result<(), ModelError> {
        self.own_domain.store(SHARED_DOMAIN, Ordering::Release);
        self.set_entry(OWN_SPACE, PasidEntry::PassThrough { domain: SHARED_DOMAIN })
    }

    /// Accesses without a PASID are translated by `space`, under domain id `domain` (2 or more).
    pub fn attach_domain(&self, space: &PageTables, domain: u16) -> Result<(), ModelError> {
        self.own_domain.store(domain, Ordering::Release);
        self.set_entry(OWN_SPACE, PasidEntry::FirstStage { root: space.root(), domain })
    }

    /// Accesses without a PASID are blocked.
    pub fn detach_domain(&self) -> Result<(), ModelError> {
        self.clear_entry(OWN_SPACE, false)
    }

    /// Binds `pasid` to an address space: nothing but a table entry, and no flush.
    pub fn bind(&self, pasid: Pasid, space: &PageTables) -> Result<(), ModelError> {
        self.set_entry(pasid, PasidEntry::FirstStage { root: space.root(), domain: SHARED_DOMAIN })
    }

    /// Flushes `first..=last` of a PASID after its tables changed, and waits: the notifier's call.
    pub fn flush(&self, pasid: Pasid, first: Iova, last: Iova) -> Result<(), ModelError> {
        let (iova, shift) = covering_block(first, last);
        let device = Descriptor::pasid_device_tlb(self.requester, pasid, iova, shift);
        self.flush_pair(Descriptor::pasid_iotlb_block(SHARED_DOMAIN, pasid, iova, shift), device)
    }

    /// Flushes `first..=last` of the function's own space.
    pub fn flush_own(&self, first: Iova, last: Iova) -> Result<(), ModelError> {
        let (iova, shift) = covering_block(first, last);
        let device = Descriptor::device_tlb(self.requester, iova, shift);
        self.flush_pair(Descriptor::pasid_iotlb_block(self.own_domain(), OWN_SPACE, iova, shift), device)
    }

    pub(crate) fn own_domain(&self) -> u16 {
        self.own_domain.load(Ordering::Acquire)
    }

    /// The descriptor that empties the device's TLB of one PASID; 0 is its own space.
    pub(crate) fn device_tlb_of(&self, pasid: Pasid) -> Descriptor {
        if pasid == OWN_SPACE {
            Descriptor::device_tlb(self.requester, Iova(0), 64)
        } else {
            Descriptor::pasid_device_tlb(self.requester, pasid, Iova(0), 64)
        }
    }

    /// Clears a present entry: P first, three flushes with a wait each, then the rest - or all but the bit
    /// that keeps faults quiet.
    pub(crate) fn clear_entry(&self, pasid: Pasid, keep_quiet: bool) -> Result<(), ModelError> {
        let dma = self.unit.setup.memory.dma();
        let at = self.pasid_entry(pasid)?;
        let low = dma.load_u64(at)?;
        if low & PRESENT != 0 {
            let domain = dma.load_u64(Gpa(at.0 + 8))? as u16;
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

    /// Writes an entry that is not in use, P last. Nothing is flushed: absence is never cached.
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
