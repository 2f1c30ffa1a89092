//! The DMA port: how everything in the device reaches memory.
//!
//! A [`Port`] exists only while its worker's guard is held, so a translation cannot outlive its guard, and
//! translate-and-copy is one step that an invalidation waits for.

use std::sync::MutexGuard;

use refault_bus::ats::{RequestKind, Translation, TranslationRequest};
use refault_bus::dma::CopyPiece;
use refault_bus::guard::Guarded;
use refault_bus::{AddressSpace, Iova, Pasid};

use crate::cause::Cause;
use crate::fabric::Fabric;
use crate::memory::access::{AccessError, Extent, PageMiss};
use crate::memory::atc::Atc;
use crate::memory::publish::publish;
use crate::memory::region::{RegionCache, RegionTable};
use crate::observe::RequestStamps;
use crate::stats::ShardStats;

/// What belongs to one worker and lies under its guard.
pub(crate) struct Shard {
    pub(crate) atc: Atc,
    pub(crate) regions: RegionCache,
    pub(crate) stats: ShardStats,
    /// Room for the pieces of a copy, kept from one to the next.
    pub(crate) pieces: Vec<CopyPiece>,
}

impl Shard {
    pub(crate) fn new(atc_entries: usize) -> Self {
        Self {
            atc: Atc::new(atc_entries),
            regions: RegionCache::default(),
            stats: ShardStats::default(),
            pieces: Vec::new(),
        }
    }
}

/// Access to memory, under a worker's guard.
pub(crate) struct Port<'a> {
    fabric: &'a Fabric,
    pub(super) regions: &'a RegionTable,
    guard: &'a Guarded<Shard>,
    shard: MutexGuard<'a, Shard>,
    /// Set only while a sampled request is served.
    pub(crate) stamps: Option<RequestStamps>,
}

impl<'a> Port<'a> {
    /// Enters the guard.
    pub(crate) fn enter(fabric: &'a Fabric, regions: &'a RegionTable, guard: &'a Guarded<Shard>) -> Self {
        Self { fabric, regions, guard, shard: guard.enter(), stamps: None }
    }

    /// Whether an invalidation waits: at most one chunk may be copied before the guard is left.
    pub(crate) fn is_wanted(&self) -> bool {
        self.guard.is_wanted()
    }

    pub(crate) fn fabric(&self) -> &'a Fabric {
        self.fabric
    }

    pub(crate) fn shard(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// Memory was found; nothing is copied yet.
    #[inline]
    pub(crate) fn note_translated(&mut self) {
        if let Some(stamps) = &mut self.stamps {
            stamps.stamp_translated(self.fabric.now_ns(), &self.shard.stats);
        }
    }

    /// A completion is in memory; no interrupt was sent yet.
    #[inline]
    pub(crate) fn note_written(&mut self) {
        if let Some(stamps) = &mut self.stamps {
            stamps.stamp_written(self.fabric.now_ns());
        }
    }

    /// Whether translations may be cached: only what ATS answered may be.
    pub(crate) fn may_use_atc(&self) -> bool {
        let controls = self.fabric.endpoint.controls();
        controls.ats() && controls.bus_master()
    }

    /// Whether requests may carry a PASID.
    pub(crate) fn may_use_pasid(&self) -> bool {
        self.fabric.endpoint.controls().pasid()
    }

    /// Translates one address of the function's own space or of a process.
    pub(crate) fn translate(
        &mut self,
        pasid: Option<Pasid>,
        iova: Iova,
        write: bool,
    ) -> Result<Extent, AccessError> {
        let controls = self.fabric.endpoint.controls();
        if !controls.bus_master() || pasid.is_some() && !controls.pasid() {
            return Err(AccessError::Denied(Cause::Blocked));
        }
        if !controls.ats() {
            let answer = ask(self.fabric, pasid, iova, write, RequestKind::Untranslated)?;
            return Ok(Extent::of(answer, iova));
        }
        let fabric = self.fabric;
        let Shard { atc, stats, .. } = &mut *self.shard;
        let translation = atc.translate(pasid, iova, write, || {
            stats.atc_misses += 1;
            ask(fabric, pasid, iova, write, RequestKind::Translation)
        })?;
        Ok(Extent::of(translation, iova))
    }

    /// Consumes a 64-bit word in one piece.
    pub(crate) fn load_u64(&mut self, pasid: Option<Pasid>, iova: Iova) -> Result<u64, AccessError> {
        let extent = self.translate(pasid, iova, false)?.holding(8)?;
        Ok(self.fabric.memory.load_u64(extent.gpa)?)
    }

    /// Fills `buffer`, which must not cross a page.
    pub(crate) fn read(
        &mut self,
        pasid: Option<Pasid>,
        iova: Iova,
        buffer: &mut [u8],
    ) -> Result<(), AccessError> {
        let extent = self.translate(pasid, iova, false)?.holding(buffer.len() as u64)?;
        Ok(self.fabric.memory.read(extent.gpa, buffer)?)
    }

    /// Writes `bytes`, which must not cross a page, and then publishes `word` at `word_at`, in the same page.
    pub(crate) fn publish(
        &mut self,
        iova: Iova,
        bytes: &[u8],
        word_at: Iova,
        word: u32,
    ) -> Result<(), AccessError> {
        let extent = self.translate(None, iova, true)?.holding(bytes.len() as u64)?;
        let word_at = self.translate(None, word_at, true)?.holding(4)?;
        Ok(publish(&*self.fabric.memory, extent.gpa, bytes, word_at.gpa, word)?)
    }
}

/// Asks the IOMMU. For a process, an answer without the right that is needed is a miss.
fn ask(
    fabric: &Fabric,
    pasid: Option<Pasid>,
    iova: Iova,
    write: bool,
    kind: RequestKind,
) -> Result<Translation, AccessError> {
    let request = TranslationRequest { requester: fabric.bdf, pasid, iova, write, kind };
    let answer = fabric.agent.translate(&request);
    let miss = match (answer, pasid, kind) {
        (Ok(answer), _, _) if answer.allows(write) => return Ok(answer),
        (Ok(_), Some(pasid), RequestKind::Translation) => {
            let space = AddressSpace::Process(pasid);
            AccessError::Miss(PageMiss { space, owner: pasid.get(), page: iova.align_down(12), write })
        }
        _ => AccessError::Denied(Cause::Blocked),
    };
    Err(miss)
}
