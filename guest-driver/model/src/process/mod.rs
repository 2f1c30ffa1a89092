//! A process: areas of address space, its page tables, and the kernel's fault handler and memory management for it.
//!
//! **Order.** A page that is taken away is first removed from the page tables, then flushed from all TLBs, and only
//! then reused.
//!
//! **Locks.** A pager's lock, then the memory map's, then the list of users. Pagers unmap pages while they hold theirs,
//! so a pager is called without the map's lock.

mod handlers;
mod pager;
mod reclaim;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::pri::ResponseCode;
use refault_bus::sync::lock;
use refault_bus::{Gpa, Iova, Pasid};

use crate::paging::{Leaf, PageSize, PageTables, Rights};
use crate::vtd::{Function, QueuedRequest};
use crate::{GuestMemory, ModelError};

pub use handlers::FaultHandlers;
pub use pager::{Notifier, Pager};

/// A VMA: a range of addresses that the process may use.
#[derive(Clone)]
struct Area {
    start: u64,
    end: u64,
    rights: Rights,
    size: PageSize,
    /// Supplies the pages; `None` for anonymous memory.
    pager: Option<Arc<dyn Pager>>,
}

/// A process with areas of anonymous memory, and areas whose pages a [`Pager`] supplies. All are filled on demand.
pub struct Process {
    memory: Arc<GuestMemory>,
    /// The page tables. Changes that remove pages or rights must go through the methods of [`Process`], which flush.
    pub space: PageTables,
    /// The memory map; its lock is mmap_lock.
    map: Mutex<Map>,
    /// Users of the page tables. Its lock is the innermost.
    users: Mutex<Users>,
}

#[derive(Default)]
struct Map {
    areas: Vec<Area>,
    /// Contents of swapped-out pages, by address.
    swapped: BTreeMap<u64, Vec<u8>>,
}

/// The users that must be flushed after a change of the page tables.
#[derive(Clone, Default)]
struct Users {
    bindings: Vec<(Arc<Function>, Pasid)>,
    notifiers: Vec<Arc<dyn Notifier>>,
}

impl Process {
    /// Creates a process without areas.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`] if there is no frame for its root table.
    pub fn new(memory: Arc<GuestMemory>) -> Result<Arc<Self>, ModelError> {
        let space = PageTables::new(memory.clone())?;
        Ok(Arc::new(Self { memory, space, map: Mutex::default(), users: Mutex::default() }))
    }

    /// The memory that its pages and tables are allocated from.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Adds an anonymous area of `bytes` at `start`, filled on demand with pages of `size`.
    pub fn map_area(&self, start: Iova, bytes: u64, rights: Rights, size: PageSize) {
        let end = start.0 + bytes;
        self.lock().areas.push(Area { start: start.0, end, rights, size, pager: None });
    }

    /// Adds an area of `bytes` at `start` whose 4 KiB pages `pager` supplies.
    pub fn map_pager(&self, start: Iova, bytes: u64, rights: Rights, pager: Arc<dyn Pager>) {
        let (end, size) = (start.0 + bytes, PageSize::Small);
        self.lock().areas.push(Area { start: start.0, end, rights, size, pager: Some(pager) });
    }

    /// Registers an MMU notifier.
    pub fn notify(&self, notifier: Arc<dyn Notifier>) {
        self.users().notifiers.push(notifier);
    }

    /// Unregisters an MMU notifier.
    pub fn stop_notifying(&self, notifier: &Arc<dyn Notifier>) {
        self.users().notifiers.retain(|other| !Arc::ptr_eq(other, notifier));
    }

    /// Binds `pasid` of `function` to the process' page tables.
    ///
    /// # Errors
    ///
    /// As [`Function::bind`].
    pub fn bind(&self, function: &Arc<Function>, pasid: Pasid) -> Result<(), ModelError> {
        function.bind(pasid, &self.space)?;
        self.users().bindings.push((function.clone(), pasid));
        Ok(())
    }

    /// Unbinds `pasid`, and waits for its page requests; see [`Function::unbind`] for `service`.
    ///
    /// # Errors
    ///
    /// As [`Function::unbind`].
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

    /// The handler of page requests: brings the page in, or returns `InvalidRequest` if no area allows the access.
    pub fn fault(&self, request: &QueuedRequest) -> ResponseCode {
        match self.fault_at(request.page, request.write) {
            Ok(_) => ResponseCode::Success,
            Err(_) => ResponseCode::InvalidRequest,
        }
    }

    /// The handler of faults of the process itself. Returns the page, which is present with the rights of its area
    /// unless a pager took it away again.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if no area allows the access; [`ModelError::OutOfMemory`]; any error of a pager.
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

    /// Has `pager` map the page. The page may be gone again when the pager returns, since no lock is held: then this
    /// fails, and a caller retries the access, as hardware retries the faulting instruction.
    fn fault_by(&self, pager: &dyn Pager, iova: Iova, write: bool) -> Result<Leaf, ModelError> {
        match self.space.lookup(iova)? {
            Some(leaf) if leaf.writable() || !write => return Ok(leaf),
            _ => pager.fault(&self.space, iova.align_down(PageSize::Small.shift()), write)?,
        }
        self.space.lookup(iova)?.ok_or(ModelError::NotMapped { iova })
    }

    /// Faults in the pages of `bytes` at `start` for writing: MAP_POPULATE.
    ///
    /// # Errors
    ///
    /// As [`Self::fault_at`].
    pub fn populate(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let mut at = start.0;
        while at < start.0 + bytes {
            let leaf = self.fault_at(Iova(at), true)?;
            at = Iova(at).align_down(leaf.size.shift()).0 + leaf.size.bytes();
        }
        Ok(())
    }

    /// Stores `data` as the process would, faulting pages in.
    ///
    /// # Errors
    ///
    /// As [`Self::fault_at`].
    pub fn write(&self, iova: Iova, data: &[u8]) -> Result<(), ModelError> {
        self.each_piece(iova, data.len(), true, |gpa, range| {
            Ok(self.memory.dma().write(gpa, &data[range])?)
        })
    }

    /// Fills `data` as loads of the process would, faulting pages in.
    ///
    /// # Errors
    ///
    /// As [`Self::fault_at`].
    pub fn read(&self, iova: Iova, data: &mut [u8]) -> Result<(), ModelError> {
        self.each_piece(iova, data.len(), false, |gpa, range| {
            Ok(self.memory.dma().read(gpa, &mut data[range])?)
        })
    }

    /// Splits `len` bytes at `iova` at page boundaries, and calls `piece` for each with its address and its range of
    /// bytes.
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
            let left = usize::try_from(leaf.size.bytes() - offset).unwrap_or(usize::MAX);
            let step = left.min(len - done);
            piece(Gpa(leaf.gpa.0 + offset), done..done + step)?;
            done += step;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Map> {
        lock(&self.map)
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        lock(&self.users)
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
    fn unmapping_an_area_frees_its_pages() {
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
