//! Guest memory provided by a client: ranges of files, mapped and unmapped while the guest runs.
//!
//! The client announces all memory on every function's socket. A range becomes accessible with the first map of any
//! function, and inaccessible with the first unmap of any function: the reply to that unmap holds for all functions.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use refault_bus::Gpa;
use refault_bus::dma::{CopyPiece, DmaMemory, Exchange, GpaRange, GuestRam, MemoryError, PersistError};
use refault_bus::sync::{self, lock};
use refault_vfio_user::RequestError;
use refault_vfio_user::reply::MAPS_MAX;
use refault_vfio_user::request::{DmaMap, DmaUnmap};
use vm_memory::{FileOffset, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

use refault_machine::memory::{Backing, map_region};
use refault_os::message::note;

/// A range without a file is a ROM if it is smaller, and otherwise RAM that the client should have shared.
const LARGE: u64 = 64 << 20;

/// All memory of a client's guest.
pub(super) struct ClientRam {
    reachable: RwLock<Reachable>,
    announced: Mutex<Announced>,
    persistent: bool,
}

/// The memory that accesses use. Read-locked during an access, so that no range is unmapped meanwhile.
#[derive(Default)]
struct Reachable {
    memory: Arc<GuestMemoryMmap>,
    /// Parts of `memory` that are lost with the machine although they are backed by a file.
    volatile: Vec<Range<u64>>,
}

/// The ranges of each function, by its number.
#[derive(Default)]
struct Announced {
    functions: BTreeMap<usize, BTreeMap<u64, KnownRange>>,
    complained: bool,
}

/// A range of one function.
#[derive(Clone)]
struct KnownRange {
    size: u64,
    /// `None` if it has no file and is not accessible.
    part: Option<Part>,
}

#[derive(Clone)]
struct Part {
    file: FileId,
    region: Arc<GuestRegionMmap>,
}

/// Identifies a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    offset: u64,
    writable: bool,
}

impl ClientRam {
    /// No memory yet. `persistent` says whether memory added later may outlive the machine.
    pub(super) fn new(persistent: bool) -> Self {
        Self { reachable: RwLock::default(), announced: Mutex::default(), persistent }
    }

    /// Adds a range of function `owner`.
    ///
    /// # Errors
    /// It overlaps another range of the function, the file is too short or cannot be mapped, or there are too many ranges.
    pub(super) fn map(&self, owner: usize, map: DmaMap, file: Option<File>) -> Result<(), RequestError> {
        let mut announced = self.announced();
        let complained = announced.complained;
        let others: Vec<_> =
            announced.functions.values().filter_map(|known| known.get(&map.address)).cloned().collect();
        let known = announced.functions.entry(owner).or_default();
        let before = known.range(..map.address + map.size).next_back();
        if before.is_some_and(|(at, before)| at + before.size > map.address) {
            return Err(RequestError::Exists);
        }
        if known.len() >= MAPS_MAX {
            return Err(RequestError::Full);
        }
        let Some(file) = file else {
            known.insert(map.address, KnownRange { size: map.size, part: None });
            if map.size >= LARGE && map.writable && !complained {
                announced.complained = true;
                note(
                    "the client shares no file for the guest's memory, so devices cannot access it: give QEMU \
                     -object memory-backend-memfd,id=ram,size=SIZE,share=on and -machine memory-backend=ram",
                );
            }
            return Ok(());
        };
        let id = identity(&file, &map)?;
        let same = |known: &KnownRange| {
            let part = known.part.as_ref().filter(|part| known.size == map.size && part.file == id)?;
            Some(part.clone())
        };
        let mut reachable = sync::write(&self.reachable);
        let shared = others.iter().filter_map(same).find(|part| reachable.has(&part.region));
        let part = match shared {
            Some(part) => part,
            None => {
                let volatile = is_nameless(&file);
                let part = Part { file: id, region: Arc::new(mapped(file, &map)?) };
                reachable.insert(&part.region, volatile)?;
                part
            }
        };
        known.insert(map.address, KnownRange { size: map.size, part: Some(part) });
        Ok(())
    }

    /// Removes ranges of function `owner`, and makes them inaccessible for all. Accesses to them have completed when this
    /// returns.
    ///
    /// # Errors
    /// The function has no range there, or only part of one is named.
    pub(super) fn unmap(&self, owner: usize, unmap: DmaUnmap) -> Result<(), RequestError> {
        let mut announced = self.announced();
        let known = announced.functions.entry(owner).or_default();
        let inside = match unmap.all {
            true => 0..u64::MAX,
            false => unmap.address..unmap.address + unmap.size,
        };
        let whole = |at: u64, known: &KnownRange| inside.start <= at && at + known.size <= inside.end;
        let touched: Vec<_> = known
            .range(..inside.end)
            .filter(|(at, known)| *at + known.size > inside.start)
            .map(|(at, known)| (*at, whole(*at, known)))
            .collect();
        if touched.iter().any(|(_, whole)| !whole) {
            return Err(RequestError::Invalid);
        }
        if touched.is_empty() && !unmap.all {
            return Err(RequestError::Absent);
        }
        let gone: Vec<_> =
            touched.iter().filter_map(|(at, _)| known.remove(at)).filter_map(|known| known.part).collect();
        let mut reachable = sync::write(&self.reachable);
        gone.iter().for_each(|part| reachable.remove(&part.region));
        Ok(())
    }

    /// Removes all ranges of function `owner`.
    pub(super) fn forget(&self, owner: usize) {
        let _ = self.unmap(owner, DmaUnmap { address: 0, size: 0, all: true });
    }

    /// The range of memory with the highest end below 4 GiB.
    pub(super) fn low_end(&self) -> Option<Range<u64>> {
        let reachable = self.reachable();
        let ranges = reachable.memory.iter().map(range_of);
        ranges.filter(|range| range.end <= 1 << 32).max_by_key(|range| range.end)
    }

    fn announced(&self) -> std::sync::MutexGuard<'_, Announced> {
        lock(&self.announced)
    }

    fn reachable(&self) -> RwLockReadGuard<'_, Reachable> {
        sync::read(&self.reachable)
    }

    fn access<R>(&self, access: impl FnOnce(&GuestRam) -> R) -> R {
        let reachable = self.reachable();
        access(&GuestRam::new(reachable.memory.clone()))
    }
}

impl Reachable {
    fn has(&self, region: &Arc<GuestRegionMmap>) -> bool {
        let found = self.memory.find_region(region.start_addr());
        found.is_some_and(|found| std::ptr::eq(found, &raw const **region))
    }

    fn insert(&mut self, region: &Arc<GuestRegionMmap>, volatile: bool) -> Result<(), RequestError> {
        self.memory = Arc::new(self.memory.insert_region(region.clone()).map_err(|_| RequestError::Exists)?);
        if volatile {
            self.volatile.push(range_of(region));
        }
        Ok(())
    }

    fn remove(&mut self, region: &Arc<GuestRegionMmap>) {
        if !self.has(region) {
            return;
        }
        if let Ok((memory, _)) = self.memory.remove_region(region.start_addr(), region.len()) {
            self.memory = Arc::new(memory);
            self.volatile.retain(|range| *range != range_of(region));
        }
    }

    fn is_volatile(&self, gpa: Gpa) -> bool {
        self.volatile.iter().any(|range| range.contains(&gpa.0))
    }
}

fn range_of(region: &GuestRegionMmap) -> Range<u64> {
    let start = region.start_addr().0;
    start..start + region.len()
}

fn identity(file: &File, map: &DmaMap) -> Result<FileId, RequestError> {
    let meta = file.metadata().map_err(|_| RequestError::Invalid)?;
    if !meta.is_file() || meta.len() < map.offset + map.size {
        return Err(RequestError::Invalid);
    }
    Ok(FileId { device: meta.dev(), inode: meta.ino(), offset: map.offset, writable: map.writable })
}

/// Maps the file. Writes of the device to a read-only range go to a private copy.
fn mapped(file: File, map: &DmaMap) -> Result<GuestRegionMmap, RequestError> {
    let backing = Backing { file: Some(FileOffset::new(file, map.offset)), shared: map.writable, at: None };
    map_region(backing, map.address, map.size).map_err(|error| {
        tracing::warn!("guest memory {:#x}+{:#x} cannot be mapped: {error:#}", map.address, map.size);
        RequestError::Invalid
    })
}

/// Whether a file has no name: a memfd, or one that was unlinked. Its contents are lost when its last user ends.
fn is_nameless(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.nlink() == 0)
}

impl DmaMemory for ClientRam {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.access(|ram| ram.read(gpa, buf))
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        self.access(|ram| ram.write(gpa, buf))
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        self.access(|ram| ram.copy(src, dst, len))
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        self.access(|ram| ram.copy_all(pieces))
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, MemoryError> {
        self.access(|ram| ram.load_u32(gpa))
    }

    fn load_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        self.access(|ram| ram.load_u64(gpa))
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        self.access(|ram| ram.store_u32(gpa, value))
    }

    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError> {
        self.access(|ram| ram.store_u64(gpa, value))
    }

    fn compare_exchange_u64(&self, gpa: Gpa, current: u64, new: u64) -> Result<Exchange, MemoryError> {
        self.access(|ram| ram.compare_exchange_u64(gpa, current, new))
    }

    fn has_persistent(&self) -> bool {
        self.persistent
    }

    fn persistent_region(&self, gpa: Gpa, len: u64) -> Option<GpaRange> {
        let reachable = self.reachable();
        if reachable.is_volatile(gpa) {
            return None;
        }
        GuestRam::new(reachable.memory.clone()).persistent_region(gpa, len)
    }

    /// Holds no lock during disk writes: the file stays the same when its memory is unmapped.
    fn persist(&self, ranges: &[GpaRange]) -> Result<(), PersistError> {
        let memory = {
            let reachable = self.reachable();
            if let Some(&range) = ranges.iter().find(|range| reachable.is_volatile(range.base)) {
                return Err(PersistError::NotPersistent(range));
            }
            reachable.memory.clone()
        };
        GuestRam::new(memory).persist(ranges)
    }
}

#[cfg(test)]
mod tests;
