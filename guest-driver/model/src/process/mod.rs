//! A process: areas of address space, a page fault handler with Linux' rules, and a kernel that takes pages
//! away and moves them - always in the kernel's order: tables first, then the flush, and only then is the
//! page somebody else's.

mod handlers;
mod pager;
mod reclaim;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refault_bus::pri::ResponseCode;
use refault_bus::{Gpa, Iova, Pasid};

use crate::paging::{Leaf, PageSize, PageTables, Rights};
use crate::vtd::{Function, QueuedRequest};
use crate::{GuestMemory, ModelError};

pub use handlers::FaultHandlers;
pub use pager::{Notifier, Pager};

/// A run of addresses that the process may use.
#[derive(Clone)]
struct Area {
    start: u64,
    end: u64,
    rights: Rights,
    size: PageSize,
    /// Whose the pages are; without one they are anonymous.
    pager: Option<Arc<dyn Pager>>,
}

/// A process with anonymous memory, filled on demand, and with areas that a [`Pager`] fills.
pub struct Process {
    memory: Arc<GuestMemory>,
    /// Its page tables. Changes that take something away go through the methods of [`Process`], which flush.
    pub space: PageTables,
    /// The memory map's lock.
    map: Mutex<Map>,
    /// Who must hear of changes. A lock of its own, taken after any other: pagers take pages away while they hold
    /// theirs.
    users: Mutex<Users>,
}

#[derive(Default)]
struct Map {
    areas: Vec<Area>,
    /// Contents of pages that were swapped out, by address.
    swapped: BTreeMap<u64, Vec<u8>>,
}

#[derive(Clone, Default)]
struct Users {
    bindings: Vec<(Arc<Function>, Pasid)>,
    notifiers: Vec<Arc<dyn Notifier>>,
}

impl Process {
    /// A process without areas.
    pub fn new(memory: Arc<GuestMemory>) -> Result<Arc<Self>, ModelError> {
        let space = PageTables::new(memory.clone())?;
        Ok(Arc::new(Self { memory, space, map: Mutex::default(), users: Mutex::default() }))
    }

    /// The memory that its pages and tables are of.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Adds an area of `bytes` at `start`, filled on demand with pages of `size`.
    pub fn map_area(&self, start: Iova, bytes: u64, rights: Rights, size: PageSize) {
        let end = start.0 + bytes;
        self.lock().areas.push(Area { start: start.0, end, rights, size, pager: None });
    }

    /// Adds an area of `bytes` at `start` whose 4 KiB pages are `pager`'s.
    pub fn map_pager(&self, start: Iova, bytes: u64, rights: Rights, pager: Arc<dyn Pager>) {
        let (end, size) = (start.0 + bytes, PageSize::Small);
        self.lock().areas.push(Area { start: start.0, end, rights, size, pager: Some(pager) });
    }

    /// Tells `notifier` too, from now on, when pages go.
    pub fn notify(&self, notifier: Arc<dyn Notifier>) {
        self.users().notifiers.push(notifier);
    }

    /// Takes that back.
    pub fn stop_notifying(&self, notifier: &Arc<dyn Notifier>) {
        self.users().notifiers.retain(|other| !Arc::ptr_eq(other, notifier));
    }

    /// Lets a function use the process' addresses as `pasid`.
    pub fn bind(&self, function: &Arc<Function>, pasid: Pasid) -> Result<(), ModelError> {
        function.bind(pasid, &self.space)?;
        self.users().bindings.push((function.clone(), pasid));
        Ok(())
    }

    /// Takes that back, waiting for page requests; see [`Function::unbind`] for `service`.
    pub fn unbind(
        &self,
        function: &Arc<Function>,
        pasid: Pasid,
        service: &mut dyn FnMut() -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        function.unbind(pasid, service)?;
        self.users().bindings.retain(|(other, bound)| !Arc::ptr_eq(other, function) || *bound != pasid);
        Ok(())
    }

    /// The fault handler: no area, or an area that does not allow it, is refused; else the page is there
    /// afterwards, with the rights of its area.
    pub fn fault(&self, request: &QueuedRequest) -> ResponseCode {
        match self.fault_at(request.page, request.write) {
            Ok(_) => ResponseCode::Success,
            Err(_) => ResponseCode::InvalidRequest,
        }
    }

    /// As [`Self::fault`], for an access by the process itself. Gives the page.
    pub fn fault_at(&self, iova: Iova, write: bool) -> Result<Leaf, ModelError> {
        let mut map = self.lock();
        let area = map.area(iova).cloned().ok_or(ModelError::NotMapped { iova })?;
        if write && area.rights == Rights::Read {
            return Err(ModelError::NotMapped { iova });
        }
        if let Some(pager) = &area.pager {
            drop(map);
            return self.fault_by(&**pager, iova, write);
        }
        match self.space.lookup(iova)? {
            Some(leaf) if leaf.writable() || !write => return Ok(leaf),
            Some(_) => drop(self.space.protect(iova, Rights::Write)?),
            None => {
                let start = iova.align_down(area.size.shift());
                let page = self.memory.allocate(area.size.bytes(), area.size.shift())?;
                if let Some(contents) = map.swapped.remove(&start.0) {
                    self.memory.dma().write(page, &contents)?;
                }
                self.space.map(start, page, area.size, area.rights)?;
            }
        }
        self.space.lookup(iova)?.ok_or(ModelError::NotMapped { iova })
    }

    /// A pager may wait, and what it has mapped may be gone again before it is looked at: as with a handler in a
    /// kernel, the access that wanted the page comes again then.
    fn fault_by(&self, pager: &dyn Pager, iova: Iova, write: bool) -> Result<Leaf, ModelError> {
        match self.space.lookup(iova)? {
            Some(leaf) if leaf.writable() || !write => return Ok(leaf),
            _ => pager.fault(&self.space, iova.align_down(PageSize::Small.shift()), write)?,
        }
        self.space.lookup(iova)?.ok_or(ModelError::NotMapped { iova })
    }

    /// Fills the area's pages from `start` for `bytes`.
    pub fn populate(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let mut at = start.0;
        while at < start.0 + bytes {
            let leaf = self.fault_at(Iova(at), true)?;
            at = Iova(at).align_down(leaf.size.shift()).0 + leaf.size.bytes();
        }
        Ok(())
    }

    /// The process writes its memory.
    pub fn write(&self, iova: Iova, data: &[u8]) -> Result<(), ModelError> {
        self.each_piece(iova, data.len(), true, |gpa, range| {
            Ok(self.memory.dma().write(gpa, &data[range])?)
        })
    }

    /// The process reads its memory.
    pub fn read(&self, iova: Iova, data: &mut [u8]) -> Result<(), ModelError> {
        self.each_piece(iova, data.len(), false, |gpa, range| {
            Ok(self.memory.dma().read(gpa, &mut data[range])?)
        })
    }

    /// Calls `piece` for each run of `len` bytes at `iova` that lies in one page, faulting pages in.
    fn each_piece(
        &self,
        iova: Iova,
        len: usize,
        write: bool,
        mut piece: impl FnMut(Gpa, std::ops::Range<usize>) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let mut done = 0;
        while done < len {
            let at = Iova(iova.0 + done as u64);
            let leaf = self.fault_at(at, write)?;
            let offset = at.offset_in(leaf.size.shift());
            let step = (len - done).min((leaf.size.bytes() - offset) as usize);
            piece(Gpa(leaf.gpa.0 + offset), done..done + step)?;
            done += step;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn area(&self, iova: Iova) -> Option<&Area> {
        self.areas.iter().find(|area| (area.start..area.end).contains(&iova.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::FRAME;
    use crate::memory::tests::memory;

    #[test]
    fn areas_decide_what_a_fault_does() {
        let process = Process::new(memory(0x100_0000)).unwrap();
        process.map_area(Iova(0x1_0000), 0x4000, Rights::Write, PageSize::Small);
        process.map_area(Iova(0x2_0000), 0x4000, Rights::Read, PageSize::Small);
        assert!(process.fault_at(Iova(0x1_0fff), true).unwrap().writable());
        assert!(process.fault_at(Iova(0x2_0000), false).is_ok());
        assert!(process.fault_at(Iova(0x2_0000), true).is_err());
        assert!(process.fault_at(Iova(0x1_4000), false).is_err());
    }

    #[test]
    fn moved_swapped_and_protected_pages_keep_their_bytes() {
        let process = Process::new(memory(0x100_0000)).unwrap();
        process.map_area(Iova(0x1_0000), 0x4000, Rights::Write, PageSize::Small);
        process.write(Iova(0x1_0ffe), b"over the edge").unwrap();
        let old = process.move_page(Iova(0x1_1000)).unwrap();
        assert_ne!(process.fault_at(Iova(0x1_1000), false).unwrap().gpa, old);
        let swapped = process.swap_out(Iova(0x1_1000)).unwrap();
        process.memory.fill(old, FRAME, 0xee).unwrap();
        process.memory.fill(swapped.gpa, FRAME, 0xdd).unwrap();
        assert!(process.write_protect(Iova(0x1_0000)).unwrap().writable());
        let mut back = [0; 13];
        process.read(Iova(0x1_0ffe), &mut back).unwrap();
        assert_eq!(&back, b"over the edge");
        assert!(process.fault_at(Iova(0x1_0000), true).unwrap().writable());
    }

    #[test]
    fn an_unmapped_area_gives_its_pages_back() {
        let memory = memory(0x200_0000);
        let process = Process::new(memory.clone()).unwrap();
        process.map_area(Iova(0x20_0000), 0x20_0000, Rights::Write, PageSize::Large);
        process.map_area(Iova(0x40_0000), 0x4000, Rights::Write, PageSize::Small);
        process.populate(Iova(0x40_0000), 0x4000).unwrap();
        let before = memory.free_bytes();
        process.populate(Iova(0x20_0000), 0x20_0000).unwrap();
        assert_eq!(memory.free_bytes(), before - 0x20_0000);
        process.unmap_area(Iova(0x20_0000), 0x20_0000).unwrap();
        assert_eq!(memory.free_bytes(), before);
        assert!(process.fault_at(Iova(0x20_0000), false).is_err());
        assert!(process.fault_at(Iova(0x40_0000), false).is_ok());
    }
}
