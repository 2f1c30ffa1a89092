//! The driver's side of on-demand regions: a table with holes, filled when the NIC asks and emptied when the kernel
//! takes pages away (docs/nic.md, "On-demand regions"; `guest-driver/linux/odp*.c`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refault_abi::command::*;
use refault_abi::event::{EVENT_PAGE_FAULT, Eqe, FAULT_WRITE};
use refault_bus::{Gpa, Iova};

use crate::ModelError;
use crate::memory::FRAME;
use crate::nic::{Buffer, Driver, EventQueue, MemoryRegion};
use crate::paging::Rights;

/// Words of a table, as a power of two.
const WORDS_SHIFT: u32 = 9;
/// Most bytes between the start of the table and that of the region.
const BLOCK: u64 = 2 << 20;

/// An on-demand region and its table.
pub struct OnDemandRegion {
    driver: Arc<Driver>,
    region: MemoryRegion,
    start: Iova,
    length: u64,
    levels: u32,
    table: Mutex<RegionTable>,
}

/// The tables, which the NIC reads whenever it likes, and the pages they name.
struct RegionTable {
    /// By level (0 is the last) and by the part of the page's index that leads there.
    tables: BTreeMap<(u32, u64), Buffer>,
    /// By index: the page, its address for DMA, and what it may be used for.
    pages: BTreeMap<u64, MappedPage>,
}

#[derive(Clone, Copy)]
struct MappedPage {
    gpa: Gpa,
    dma: Iova,
    rights: Rights,
}

impl OnDemandRegion {
    /// Registers `length` bytes from `start` on, all of them holes, for the rights ACCESS_* of `access`. Faults go to
    /// `faults`.
    pub fn create(
        driver: &Arc<Driver>,
        pd: u32,
        (start, length): (Iova, u64),
        access: u32,
        faults: &PageFaultQueue,
    ) -> Result<Arc<Self>, ModelError> {
        let first_offset = start.0 % BLOCK;
        let mut levels = 1;
        while first_offset + length > FRAME << (WORDS_SHIFT * levels) {
            levels += 1;
        }
        let top = driver.buffer(FRAME)?;
        let body = CreateMr {
            start: start.0,
            length,
            table: PageTable {
                root: top.iova().0,
                levels: levels as u8,
                page_shift: 12,
                ..PageTable::default()
            },
            first_offset: first_offset as u32,
            pd,
            access,
            mode: MR_ODP,
            fault_eqn: faults.number(),
            ..CreateMr::default()
        };
        let region = MemoryRegion { key: driver.create(CMD_CREATE_MR, &body)? };
        let tables = BTreeMap::from([((levels - 1, 0), top)]);
        let table = Mutex::new(RegionTable { tables, pages: BTreeMap::new() });
        Ok(Arc::new(Self { driver: driver.clone(), region, start, length, levels, table }))
    }

    /// Its key.
    pub fn region(&self) -> MemoryRegion {
        self.region
    }

    /// First address, as requests name it.
    pub fn start(&self) -> Iova {
        self.start
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills the word of the page around `at` with what `page` finds, which is asked under the region's lock: what is
    /// taken away meanwhile is then taken from the table too.
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

    /// Makes holes of the pages of `bytes` from `start` on. When this returns the NIC does not use them.
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
        for &(index, _) in &gone {
            let word = self.word(&mut table, index)?;
            self.driver.memory().dma().store_u64(word, 0)?;
            table.pages.remove(&index);
        }
        let body = InvalidateMr { key: self.region.key, reserved: 0, start: from, length: to - from };
        self.driver.lane1().execute::<[u8; 0]>(CMD_INVALIDATE_MR, &body)?;
        gone.iter().try_for_each(|(_, page)| self.driver.domain().unmap(page.dma, FRAME))
    }

    /// Destroys the region; then no access through it is under way.
    pub fn destroy(&self) -> Result<(), ModelError> {
        self.driver.destroy(CMD_DESTROY_MR, self.region.key)?;
        let pages = std::mem::take(&mut self.lock().pages);
        pages.values().try_for_each(|page| self.driver.domain().unmap(page.dma, FRAME))
    }

    /// Pages from the start of the table.
    fn index(&self, at: Iova) -> u64 {
        (at.0 - self.start.0 + self.start.0 % BLOCK) / FRAME
    }

    /// Where the word of a page lies; missing tables are made.
    fn word(&self, table: &mut RegionTable, index: u64) -> Result<Gpa, ModelError> {
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

    fn lock(&self) -> MutexGuard<'_, RegionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where, in the table of `level`, the word for `index` lies; it counts words of that level from the region's start.
fn slot(tables: &BTreeMap<(u32, u64), Buffer>, level: u32, index: u64) -> Result<Gpa, ModelError> {
    let table = tables.get(&(level, index >> WORDS_SHIFT));
    let table = table.ok_or(ModelError::Function("a table for that page"))?;
    Ok(Gpa(table.gpa().0 + index % (1 << WORDS_SHIFT) * 8))
}

/// Whoever brings pages of a region in.
pub trait PageFaultHandler: Send + Sync {
    /// Brings in the page at `address` and, if that is easy, more of `length` bytes from there on; whether the NIC
    /// shall look again. `false` is an error for its request.
    fn resolve(&self, address: Iova, length: u32, write: bool) -> bool;
}

/// The event queue of page faults, and who handles them.
pub struct PageFaultQueue {
    driver: Arc<Driver>,
    number: u32,
    queue: Mutex<EventQueue>,
    handlers: Mutex<BTreeMap<u32, Arc<dyn PageFaultHandler>>>,
}

impl PageFaultQueue {
    /// An event queue of `1 << log` entries on MSI-X vector `vector`, armed.
    pub fn new(driver: &Arc<Driver>, vector: u16, log: u8) -> Result<Arc<Self>, ModelError> {
        let queue = driver.create_event_queue(vector, log)?;
        queue.arm();
        let (driver, number) = (driver.clone(), queue.number());
        Ok(Arc::new(Self { driver, number, queue: Mutex::new(queue), handlers: Mutex::default() }))
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Lets `handler` have the faults of `region`.
    pub fn handle(&self, region: MemoryRegion, handler: Arc<dyn PageFaultHandler>) {
        self.handlers().insert(region.key, handler);
    }

    /// Nobody has them any more. Faults that are not answered yet end with their region.
    pub fn stop_handling(&self, region: MemoryRegion) {
        self.handlers().remove(&region.key);
    }

    /// What the interrupt and its workers do: every fault told of is resolved and answered. How many there were.
    pub fn service(&self) -> Result<usize, ModelError> {
        let faults = self.take()?;
        for fault in &faults {
            let resolved = self.resolve(fault);
            self.answer(fault, resolved)?;
        }
        Ok(faults.len())
    }

    /// What the interrupt does: takes the faults that the NIC told of, and arms the queue for more.
    pub fn take(&self) -> Result<Vec<Eqe>, ModelError> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = Vec::new();
        while let Some(event) = queue.poll()? {
            faults.extend((event.kind == EVENT_PAGE_FAULT).then_some(event));
        }
        queue.arm();
        Ok(faults)
    }

    /// What a worker does first: has the region's handler bring the page in. Whether the NIC shall look again.
    pub fn resolve(&self, fault: &Eqe) -> bool {
        let handler = self.handlers().get(&fault.number).cloned();
        let write = fault.code == FAULT_WRITE;
        handler.is_some_and(|handler| handler.resolve(Iova(fault.address), fault.length, write))
    }

    /// And then: answers the NIC.
    pub fn answer(&self, fault: &Eqe, resolved: bool) -> Result<(), ModelError> {
        let answer = if resolved { FAULT_RESOLVED } else { FAULT_REFUSED };
        let body = ResumeFault { token: fault.token, answer, reserved: 0 };
        match self.driver.lane1().execute::<[u8; 0]>(CMD_RESUME_FAULT, &body) {
            // The region may have gone meanwhile, and the fault with it.
            Ok(_) | Err(ModelError::Command { status: STATUS_NO_OBJECT, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn handlers(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<dyn PageFaultHandler>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
