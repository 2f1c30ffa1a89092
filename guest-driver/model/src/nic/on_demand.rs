//! The driver's side of on-demand regions with a table: filled on page faults of the NIC, emptied when the kernel takes
//! pages away (docs/nic.md, "On-demand regions"; `guest-driver/linux/odp*.c`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_abi::codes::AccessRights;
use refault_abi::command::{
    CMD_CREATE_MR, CMD_DESTROY_MR, CMD_INVALIDATE_MR, CMD_RESUME_FAULT, CreateMr, FAULT_REFUSED,
    FAULT_RESOLVED, InvalidateMr, MR_ODP, ODP_PRESENT, ODP_TABLE, ODP_WRITABLE, PageTable, ResumeFault,
    STATUS_NO_OBJECT,
};
use refault_abi::event::{EVENT_PAGE_FAULT, Eqe, FAULT_WRITE};
use refault_bus::sync::lock;
use refault_bus::{Gpa, Iova};

use crate::ModelError;
use crate::memory::FRAME;
use crate::nic::{Buffer, Driver, EventQueue, MemoryRegion};
use crate::paging::Rights;

/// log2 of the words in a table.
const WORDS_SHIFT: u32 = 9;
/// Alignment of the table's first address: what one table of pages covers.
const BLOCK: u64 = 2 << 20;

/// An on-demand region and its table.
pub struct OnDemandRegion {
    driver: Arc<Driver>,
    region: MemoryRegion,
    start: Iova,
    length: u64,
    levels: u32,
    table: Mutex<SparseTable>,
}

/// The tables, which the NIC may read at any time, and the pages in them.
struct SparseTable {
    /// Tables by level (0 for tables of pages) and position within the level.
    tables: BTreeMap<(u32, u64), Buffer>,
    /// Pages that are present, by their index from the start of the table.
    pages: BTreeMap<u64, MappedPage>,
}

/// A page that is present in the table, and mapped for DMA.
#[derive(Clone, Copy)]
struct MappedPage {
    gpa: Gpa,
    dma: Iova,
    rights: Rights,
}

impl OnDemandRegion {
    /// Registers `length` bytes from `start` on with access flags `access`, `ACCESS_*`. No page is present yet; the NIC
    /// sends page faults to `faults`.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`], or the command fails.
    pub fn create(
        driver: &Arc<Driver>,
        pd: u32,
        (start, length): (Iova, u64),
        access: AccessRights,
        faults: &PageFaultQueue,
    ) -> Result<Arc<Self>, ModelError> {
        let first_offset = u32::try_from(start.0 % BLOCK).unwrap_or_default();
        let mut levels = 1u8;
        while u64::from(first_offset) + length > FRAME << (WORDS_SHIFT * u32::from(levels)) {
            levels += 1;
        }
        let top = driver.buffer(FRAME)?;
        let body = CreateMr {
            start: start.0,
            length,
            table: PageTable { root: top.iova().0, levels, page_shift: 12, ..PageTable::default() },
            first_offset,
            pd,
            access,
            mode: MR_ODP,
            fault_eqn: faults.number(),
            ..CreateMr::default()
        };
        let region = MemoryRegion { key: driver.create(CMD_CREATE_MR, &body)? };
        let levels = u32::from(levels);
        let tables = BTreeMap::from([((levels - 1, 0), top)]);
        let table = Mutex::new(SparseTable { tables, pages: BTreeMap::new() });
        Ok(Arc::new(Self { driver: driver.clone(), region, start, length, levels, table }))
    }

    /// The key of the region.
    pub fn region(&self) -> MemoryRegion {
        self.region
    }

    /// The first address, as requests use it.
    pub fn start(&self) -> Iova {
        self.start
    }

    /// The length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Sets the word of the page around `at` to the page that `page` returns, if any. `page` is called with the
    /// region's lock held, as is the notifier's invalidation: a page that it finds is either still valid when the word
    /// is set, or its invalidation follows and clears the word.
    ///
    /// # Errors
    ///
    /// [`ModelError::Mapped`] if another page is present; [`ModelError::OutOfMemory`]; any error of `page`.
    pub fn fill(
        &self,
        at: Iova,
        page: impl FnOnce() -> Result<Option<(Gpa, Rights)>, ModelError>,
    ) -> Result<(), ModelError> {
        let index = self.index(at);
        let mut table = self.lock();
        let Some((gpa, rights)) = page()? else { return Ok(()) };
        let entry = match table.pages.get(&index) {
            Some(known) if known.gpa != gpa => return Err(ModelError::Mapped { iova: at }),
            Some(known) if known.rights == Rights::Write => *known,
            Some(known) => MappedPage { rights, ..*known },
            None => MappedPage { gpa, dma: self.driver.domain().map(gpa, FRAME)?, rights },
        };
        let word = self.word(&mut table, index)?;
        let writable = if entry.rights == Rights::Write { ODP_WRITABLE } else { 0 };
        self.driver.memory().dma().store_u64(word, entry.dma.0 | ODP_PRESENT | writable)?;
        table.pages.insert(index, entry);
        Ok(())
    }

    /// Clears the words of the pages in the `bytes` at `start`, and unmaps the pages. When it returns, no access to
    /// them is in flight.
    ///
    /// # Errors
    ///
    /// If the invalidation command or the DMA unmapping fails.
    pub fn forget(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let (from, to) = (start.0.max(self.start.0), (start.0 + bytes).min(self.start.0 + self.length));
        if from >= to {
            return Ok(());
        }
        let mut table = self.lock();
        let range = self.index(Iova(from))..=self.index(Iova(to - 1));
        let gone: Vec<(u64, MappedPage)> =
            table.pages.range(range).map(|(&index, &page)| (index, page)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        // The words first, so that the NIC cannot read them again; then its caches; only then the DMA mappings.
        for &(index, _) in &gone {
            let word = self.word(&mut table, index)?;
            self.driver.memory().dma().store_u64(word, 0)?;
            table.pages.remove(&index);
        }
        let body = InvalidateMr { key: self.region.key, reserved: 0, start: from, length: to - from };
        self.driver.lane1().execute::<[u8; 0]>(CMD_INVALIDATE_MR, &body)?;
        gone.iter().try_for_each(|(_, page)| self.driver.domain().unmap(page.dma, FRAME))
    }

    /// Destroys the region. When it returns, no access through it is in flight.
    ///
    /// # Errors
    ///
    /// If the command or the DMA unmapping fails.
    pub fn destroy(&self) -> Result<(), ModelError> {
        self.driver.destroy(CMD_DESTROY_MR, self.region.key)?;
        let pages = std::mem::take(&mut self.lock().pages);
        pages.values().try_for_each(|page| self.driver.domain().unmap(page.dma, FRAME))
    }

    /// Index of the page around `at`, from the start of the table.
    fn index(&self, at: Iova) -> u64 {
        (at.0 - self.start.0 + self.start.0 % BLOCK) / FRAME
    }

    /// Address of the word of a page. Allocates missing tables.
    fn word(&self, table: &mut SparseTable, index: u64) -> Result<Gpa, ModelError> {
        for level in (0..self.levels - 1).rev() {
            let below = index >> (WORDS_SHIFT * (level + 1));
            if !table.tables.contains_key(&(level, below)) {
                let new = self.driver.buffer(FRAME)?;
                let slot = slot(&table.tables, level + 1, below)?;
                self.driver.memory().dma().store_u64(slot, new.iova().0 | ODP_TABLE)?;
                table.tables.insert((level, below), new);
            }
        }
        slot(&table.tables, 0, index)
    }

    fn lock(&self) -> MutexGuard<'_, SparseTable> {
        lock(&self.table)
    }
}

/// Address of word `index` of `level`, counted from the start of the region's first table of that level.
fn slot(tables: &BTreeMap<(u32, u64), Buffer>, level: u32, index: u64) -> Result<Gpa, ModelError> {
    let table = tables.get(&(level, index >> WORDS_SHIFT));
    let table = table.ok_or(ModelError::Function("a table for that page"))?;
    Ok(Gpa(table.gpa().0 + index % (1 << WORDS_SHIFT) * 8))
}

/// Brings pages of a region in.
pub trait PageFaultHandler: Send + Sync {
    /// Brings in the page at `address`. May bring in more of the `length` bytes from there on, which is a hint. Returns
    /// whether the NIC should retry; `false` fails the request.
    fn resolve(&self, address: Iova, length: u32, write: bool) -> bool;
}

/// The event queue for page faults of on-demand regions, and their handlers by region.
pub struct PageFaultQueue {
    driver: Arc<Driver>,
    number: u32,
    queue: Mutex<EventQueue>,
    handlers: Mutex<BTreeMap<u32, Arc<dyn PageFaultHandler>>>,
}

impl PageFaultQueue {
    /// Creates and arms an event queue of `1 << log` entries on MSI-X vector `vector`.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`], or the command fails.
    pub fn new(driver: &Arc<Driver>, vector: u16, log: u8) -> Result<Arc<Self>, ModelError> {
        let queue = driver.create_event_queue(vector, log)?;
        queue.arm();
        let (driver, number) = (driver.clone(), queue.number());
        Ok(Arc::new(Self { driver, number, queue: Mutex::new(queue), handlers: Mutex::default() }))
    }

    /// The EQ number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Registers the handler of a region's faults.
    pub fn handle(&self, region: MemoryRegion, handler: Arc<dyn PageFaultHandler>) {
        self.handlers().insert(region.key, handler);
    }

    /// Unregisters the handler of a region. Its outstanding faults are refused, or end when the region is destroyed.
    pub fn stop_handling(&self, region: MemoryRegion) {
        self.handlers().remove(&region.key);
    }

    /// Handles all queued faults, as interrupt handler and workers do together. Returns their number.
    ///
    /// # Errors
    ///
    /// If the command that answers a fault fails.
    pub fn service(&self) -> Result<usize, ModelError> {
        let faults = self.take()?;
        for fault in &faults {
            let resolved = self.resolve(fault);
            self.answer(fault, resolved)?;
        }
        Ok(faults.len())
    }

    /// The interrupt handler: takes all queued faults, and arms the queue again.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn take(&self) -> Result<Vec<Eqe>, ModelError> {
        let mut queue = lock(&self.queue);
        let mut faults = Vec::new();
        while let Some(event) = queue.poll()? {
            faults.extend((event.kind == EVENT_PAGE_FAULT).then_some(event));
        }
        queue.arm();
        Ok(faults)
    }

    /// A worker's first step: calls the handler of the region. Returns whether the NIC should retry.
    pub fn resolve(&self, fault: &Eqe) -> bool {
        let handler = self.handlers().get(&fault.number).cloned();
        let write = fault.code == FAULT_WRITE;
        handler.is_some_and(|handler| handler.resolve(Iova(fault.address), fault.length, write))
    }

    /// A worker's second step: answers the fault.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn answer(&self, fault: &Eqe, resolved: bool) -> Result<(), ModelError> {
        let answer = if resolved { FAULT_RESOLVED } else { FAULT_REFUSED };
        let body = ResumeFault { token: fault.token, answer, reserved: 0 };
        match self.driver.lane1().execute::<[u8; 0]>(CMD_RESUME_FAULT, &body) {
            // The region was destroyed meanwhile, and its faults with it.
            Ok(_) | Err(ModelError::Command { status: STATUS_NO_OBJECT, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn handlers(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<dyn PageFaultHandler>>> {
        lock(&self.handlers)
    }
}
