//! Memory that the device reaches: buffers of the function's own address space, and page tables that name
//! them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use refault_abi::command::PageTable;
use refault_bus::{Gpa, Iova};

use crate::memory::FRAME;
use crate::paging::{PageSize, PageTables, Rights};
use crate::vtd::Function;
use crate::{GuestMemory, ModelError};

/// The DMA API: how frames get addresses that the function may use without a PASID.
pub trait DmaDomain: Send + Sync {
    /// Makes `bytes` at `gpa` reachable; both are whole frames.
    fn map(&self, gpa: Gpa, bytes: u64) -> Result<Iova, ModelError>;

    /// Takes it back; afterwards no access reaches it.
    fn unmap(&self, iova: Iova, bytes: u64) -> Result<(), ModelError>;
}

/// Addresses are guest-physical: no IOMMU, or a pass-through entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassThrough;

impl DmaDomain for PassThrough {
    fn map(&self, gpa: Gpa, _bytes: u64) -> Result<Iova, ModelError> {
        Ok(Iova(gpa.0))
    }

    fn unmap(&self, _iova: Iova, _bytes: u64) -> Result<(), ModelError> {
        Ok(())
    }
}

/// A translated domain, as Linux uses by default.
pub struct TranslatedDomain {
    space: PageTables,
    function: Mutex<Option<Arc<Function>>>,
    next: AtomicU64,
}

/// Where the first buffer comes to lie.
const FIRST_IOVA: u64 = 0x1_0000_0000;

impl TranslatedDomain {
    /// An empty domain.
    pub fn new(memory: Arc<GuestMemory>) -> Result<Arc<Self>, ModelError> {
        let (space, next) = (PageTables::new(memory)?, AtomicU64::new(FIRST_IOVA));
        Ok(Arc::new(Self { space, function: Mutex::default(), next }))
    }

    /// Makes it the domain of `function`, under domain id `domain` (2 or more).
    pub fn attach(&self, function: &Arc<Function>, domain: u16) -> Result<(), ModelError> {
        function.attach_domain(&self.space, domain)?;
        *self.function.lock().unwrap_or_else(PoisonError::into_inner) = Some(function.clone());
        Ok(())
    }

    /// Its tables.
    pub fn space(&self) -> &PageTables {
        &self.space
    }
}

impl DmaDomain for TranslatedDomain {
    fn map(&self, gpa: Gpa, bytes: u64) -> Result<Iova, ModelError> {
        let start = self.next.fetch_add(bytes, Ordering::Relaxed);
        for offset in (0..bytes).step_by(FRAME as usize) {
            self.space.map(Iova(start + offset), Gpa(gpa.0 + offset), PageSize::Small, Rights::Write)?;
        }
        Ok(Iova(start))
    }

    fn unmap(&self, iova: Iova, bytes: u64) -> Result<(), ModelError> {
        for offset in (0..bytes).step_by(FRAME as usize) {
            self.space.unmap(Iova(iova.0 + offset))?;
        }
        let function = self.function.lock().unwrap_or_else(PoisonError::into_inner).clone();
        function.map_or(Ok(()), |function| function.flush_own(iova, Iova(iova.0 + bytes - 1)))
    }
}

/// A run of frames, contiguous for the device too.
pub struct Buffer {
    memory: Arc<GuestMemory>,
    domain: Arc<dyn DmaDomain>,
    gpa: Gpa,
    iova: Iova,
    bytes: u64,
}

impl Buffer {
    /// Allocates and maps `bytes`, rounded up to frames.
    pub fn new(
        memory: &Arc<GuestMemory>,
        domain: &Arc<dyn DmaDomain>,
        bytes: u64,
    ) -> Result<Self, ModelError> {
        let bytes = bytes.max(1).next_multiple_of(FRAME);
        let gpa = memory.allocate(bytes, 12)?;
        let iova = domain.map(gpa, bytes)?;
        Ok(Self { memory: memory.clone(), domain: domain.clone(), gpa, iova, bytes })
    }

    /// Where the driver finds it.
    pub fn gpa(&self) -> Gpa {
        self.gpa
    }

    /// Where the device finds it.
    pub fn iova(&self) -> Iova {
        self.iova
    }

    /// The memory it is part of.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Unmaps the buffer before its time; its frames then stay allocated.
    pub(crate) fn unmap_early(&self) -> Result<(), ModelError> {
        self.domain.unmap(self.iova, self.bytes)
    }

    /// The buffer as a command names it: one run.
    pub fn table(&self) -> PageTable {
        let pages = (self.bytes / FRAME) as u32;
        PageTable { root: self.iova.0, pages, page_shift: 12, ..PageTable::default() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A device that is gone cannot be flushed; then the frames stay allocated rather than be reused.
        if self.domain.unmap(self.iova, self.bytes).is_ok() {
            let freed = self.memory.free(self.gpa, self.bytes);
            debug_assert!(freed.is_ok(), "{freed:?}");
        }
    }
}

/// A page table of as many levels as `pages` need (at least one), for pages that do not lie in one run. The
/// buffers hold its tables.
pub fn page_table(
    memory: &Arc<GuestMemory>,
    domain: &Arc<dyn DmaDomain>,
    pages: &[Iova],
    size: PageSize,
) -> Result<(PageTable, Vec<Buffer>), ModelError> {
    let mut addresses = pages.to_vec();
    let mut buffers = Vec::new();
    let mut levels = 0;
    while addresses.len() > 1 || levels == 0 {
        let mut above = Vec::new();
        for chunk in addresses.chunks(512) {
            let table = Buffer::new(memory, domain, FRAME)?;
            for (iova, offset) in chunk.iter().zip((0..).step_by(8)) {
                memory.dma().store_u64(Gpa(table.gpa().0 + offset), iova.0)?;
            }
            above.push(table.iova());
            buffers.push(table);
        }
        addresses = above;
        levels += 1;
    }
    let root = addresses.first().map_or(0, |table| table.0);
    let table = PageTable { root, pages: pages.len() as u32, levels, page_shift: size.shift(), reserved: 0 };
    Ok((table, buffers))
}
