//! A process: areas of address space, a page fault handler with Linux' rules, and a kernel that takes pages
//! away and moves them - always in the kernel's order: tables first, then the flush, and only then is the
//! page somebody else's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refault_bus::pri::ResponseCode;
use refault_bus::{Gpa, Iova, Pasid};

use crate::paging::{AddressSpace, Leaf, PageSize, Rights};
use crate::vtd::{Function, QueuedRequest};
use crate::{GuestMemory, ModelError};

/// A run of addresses that the process may use.
#[derive(Clone, Copy, Debug)]
struct Area {
    start: u64,
    end: u64,
    rights: Rights,
    size: PageSize,
}

/// A process with anonymous memory, filled on demand.
pub struct Process {
    memory: Arc<GuestMemory>,
    /// Its page tables. Changes that take something away go through the methods of [`Process`], which flush.
    pub space: AddressSpace,
    /// Areas and bindings under one lock: the memory map's.
    map: Mutex<Map>,
}

#[derive(Default)]
struct Map {
    areas: Vec<Area>,
    bindings: Vec<(Arc<Function>, Pasid)>,
    /// Contents of pages that were swapped out, by address.
    swapped: BTreeMap<u64, Vec<u8>>,
}

impl Process {
    /// A process without areas.
    pub fn new(memory: Arc<GuestMemory>) -> Result<Arc<Self>, ModelError> {
        let space = AddressSpace::new(memory.clone())?;
        Ok(Arc::new(Self { memory, space, map: Mutex::default() }))
    }

    /// The memory that its pages and tables are of.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Adds an area of `bytes` at `start`, filled on demand with pages of `size`.
    pub fn map_area(&self, start: Iova, bytes: u64, rights: Rights, size: PageSize) {
        self.lock().areas.push(Area { start: start.0, end: start.0 + bytes, rights, size });
    }

    /// Lets a function use the process' addresses as `pasid`.
    pub fn bind(&self, function: &Arc<Function>, pasid: Pasid) -> Result<(), ModelError> {
        function.bind(pasid, &self.space)?;
        self.lock().bindings.push((function.clone(), pasid));
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
        self.lock().bindings.retain(|(other, bound)| !Arc::ptr_eq(other, function) || *bound != pasid);
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
        let area = *map.area(iova).ok_or(ModelError::NotMapped { iova })?;
        if write && area.rights == Rights::Read {
            return Err(ModelError::NotMapped { iova });
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

    /// Takes the page around `iova` away and flushes it. The page is the caller's now.
    pub fn take_page(&self, iova: Iova) -> Result<Leaf, ModelError> {
        let map = self.lock();
        let leaf = self.space.unmap(iova)?;
        map.flush(iova.align_down(leaf.size.shift()), leaf.size.bytes())?;
        Ok(leaf)
    }

    /// Moves the page around `iova` to another frame, its contents with it, and gives the old frame, which is
    /// the caller's now. Between the two the page is nowhere.
    pub fn move_page(&self, iova: Iova) -> Result<Gpa, ModelError> {
        let map = self.lock();
        let leaf = self.space.unmap(iova)?;
        let (start, bytes) = (iova.align_down(leaf.size.shift()), leaf.size.bytes());
        map.flush(start, bytes)?;
        let new = self.memory.allocate(bytes, leaf.size.shift())?;
        self.memory.dma().copy(leaf.gpa, new, bytes)?;
        let rights = if leaf.writable() { Rights::Write } else { Rights::Read };
        self.space.map(start, new, leaf.size, rights)?;
        Ok(leaf.gpa)
    }

    /// Takes the page around `iova` away and keeps its contents, to be found in another frame at the next
    /// fault; gives the old frame, which is the caller's now.
    pub fn swap_out(&self, iova: Iova) -> Result<Leaf, ModelError> {
        let mut map = self.lock();
        let leaf = self.space.unmap(iova)?;
        let start = iova.align_down(leaf.size.shift());
        map.flush(start, leaf.size.bytes())?;
        map.swapped.insert(start.0, self.memory.bytes(leaf.gpa, leaf.size.bytes() as usize)?);
        Ok(leaf)
    }

    /// Write-protects the page around `iova` and flushes it, as fsync does; what it was.
    pub fn write_protect(&self, iova: Iova) -> Result<Leaf, ModelError> {
        let map = self.lock();
        let leaf = self.space.protect(iova, Rights::Read)?;
        map.flush(iova.align_down(leaf.size.shift()), leaf.size.bytes())?;
        Ok(leaf)
    }

    /// Removes the areas inside `start..start + bytes`, their pages with them.
    pub fn unmap_area(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let mut map = self.lock();
        let end = start.0 + bytes;
        map.areas.retain(|area| area.start < start.0 || area.end > end);
        map.swapped.retain(|&page, _| page < start.0 || page >= end);
        let mut taken = Vec::new();
        let mut at = start.0;
        while at < end {
            at = match self.space.unmap(Iova(at)) {
                Ok(leaf) => {
                    taken.push(leaf);
                    Iova(at).align_down(leaf.size.shift()).0 + leaf.size.bytes()
                }
                Err(ModelError::NotMapped { .. }) => at + PageSize::Small.bytes(),
                Err(error) => return Err(error),
            };
        }
        map.flush(start, bytes)?;
        taken.iter().try_for_each(|leaf| self.memory.free(leaf.gpa, leaf.size.bytes()))
    }

    /// What exit does with memory: every area goes, and every page goes back.
    pub fn unmap_everything(&self) -> Result<(), ModelError> {
        let areas = self.lock().areas.clone();
        areas.iter().try_for_each(|area| self.unmap_area(Iova(area.start), area.end - area.start))
    }

    /// Flushes `bytes` at `start` in every function that the process is bound to.
    pub fn flush(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        self.lock().flush(start, bytes)
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
}

impl Map {
    fn area(&self, iova: Iova) -> Option<&Area> {
        self.areas.iter().find(|area| (area.start..area.end).contains(&iova.0))
    }

    fn flush(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let last = Iova(start.0 + (bytes - 1));
        self.bindings.iter().try_for_each(|(function, pasid)| function.flush(*pasid, start, last))
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
