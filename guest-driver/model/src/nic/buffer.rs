//! Memory for DMA: buffers in the function's own address space, and the page tables that commands pass to the device.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use refault_abi::command::PageTable;
use refault_bus::sync::lock;
use refault_bus::{Gpa, Iova};

use crate::memory::{FRAME, FRAME_LEN};
use crate::paging::{PageSize, PageTables, Rights};
use crate::vtd::Function;
use crate::{GuestMemory, ModelError};

/// The kernel's DMA API: gives frames addresses that the function uses without a PASID.
pub trait DmaDomain: Send + Sync {
    /// Maps the `bytes` at `gpa`, both multiples of a frame, and returns their DMA address.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`] if a page table cannot be allocated.
    fn map(&self, gpa: Gpa, bytes: u64) -> Result<Iova, ModelError>;

    /// Unmaps the `bytes` at `iova`. When it returns, no access to them is in flight.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if a page is not mapped; any error of the flush.
    fn unmap(&self, iova: Iova, bytes: u64) -> Result<(), ModelError>;
}

/// The domain without an IOMMU, or with a pass-through entry: DMA addresses are guest-physical.
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

/// A domain with first-stage translation, the default of Linux.
pub struct TranslatedDomain {
    space: PageTables,
    function: Mutex<Option<Arc<Function>>>,
    next: AtomicU64,
}

/// DMA address of the first mapping. Later ones follow; addresses are not reused.
const FIRST_IOVA: u64 = 0x1_0000_0000;

impl TranslatedDomain {
    /// Creates an empty domain.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`].
    pub fn new(memory: Arc<GuestMemory>) -> Result<Arc<Self>, ModelError> {
        let (space, next) = (PageTables::new(memory)?, AtomicU64::new(FIRST_IOVA));
        Ok(Arc::new(Self { space, function: Mutex::default(), next }))
    }

    /// Attaches it to `function` under domain id `domain`, which must be at least 2.
    ///
    /// # Errors
    ///
    /// As [`Function::attach_domain`].
    pub fn attach(&self, function: &Arc<Function>, domain: u16) -> Result<(), ModelError> {
        function.attach_domain(&self.space, domain)?;
        *lock(&self.function) = Some(function.clone());
        Ok(())
    }

    /// The page tables of the domain.
    pub fn space(&self) -> &PageTables {
        &self.space
    }
}

impl DmaDomain for TranslatedDomain {
    fn map(&self, gpa: Gpa, bytes: u64) -> Result<Iova, ModelError> {
        let start = self.next.fetch_add(bytes, Ordering::Relaxed);
        for offset in (0..bytes).step_by(FRAME_LEN) {
            self.space.map(Iova(start + offset), Gpa(gpa.0 + offset), PageSize::Small, Rights::Write)?;
        }
        Ok(Iova(start))
    }

    fn unmap(&self, iova: Iova, bytes: u64) -> Result<(), ModelError> {
        for offset in (0..bytes).step_by(FRAME_LEN) {
            self.space.unmap(Iova(iova.0 + offset))?;
        }
        let function = lock(&self.function).clone();
        function.map_or(Ok(()), |function| function.flush_own(iova, Iova(iova.0 + bytes - 1)))
    }
}

/// A coherent DMA buffer: frames that are contiguous for the driver and for the device.
pub struct Buffer {
    memory: Arc<GuestMemory>,
    domain: Arc<dyn DmaDomain>,
    gpa: Gpa,
    iova: Iova,
    bytes: u64,
}

impl Buffer {
    /// Allocates and maps `bytes`, rounded up to whole frames, all zero.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`].
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

    /// Guest-physical address.
    pub fn gpa(&self) -> Gpa {
        self.gpa
    }

    /// DMA address.
    pub fn iova(&self) -> Iova {
        self.iova
    }

    /// The guest memory that it is allocated from.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Unmaps the buffer while it is in use. Dropping it then fails to unmap, and leaks its frames.
    pub(crate) fn unmap_early(&self) -> Result<(), ModelError> {
        self.domain.unmap(self.iova, self.bytes)
    }

    /// The buffer as the argument of a command: a single contiguous run.
    pub fn table(&self) -> PageTable {
        let pages = u32::try_from(self.bytes / FRAME).unwrap_or(u32::MAX);
        PageTable { root: self.iova.0, pages, page_shift: 12, ..PageTable::default() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // If the flush fails, the device may still access the frames: better leak them than reuse them.
        if self.domain.unmap(self.iova, self.bytes).is_ok() {
            let freed = self.memory.free(self.gpa, self.bytes);
            debug_assert!(freed.is_ok(), "{freed:?}");
        }
    }
}

/// Builds a page table for `pages` that are not contiguous, with as many levels as needed but at least one. The
/// returned buffers are its tables, and must live as long as the device uses it.
///
/// # Errors
///
/// [`ModelError::OutOfMemory`].
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
    let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
    let table = PageTable { root, pages: count, levels, page_shift: size.shift(), reserved: 0 };
    Ok((table, buffers))
}
