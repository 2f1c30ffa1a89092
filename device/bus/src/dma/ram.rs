//! Guest memory mapped into this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress, VolatileMemory, VolatileSlice,
};

use super::{CopyPiece, DmaMemory, Exchange, GpaRange, MemoryError, PersistError};
use crate::Gpa;

/// [`DmaMemory`] on vm-memory's mmapped guest memory.
#[derive(Clone, Debug)]
pub struct GuestRam(Arc<GuestMemoryMmap>);

impl GuestRam {
    /// Device access to all regions of `memory`.
    pub fn new(memory: Arc<GuestMemoryMmap>) -> Self {
        Self(memory)
    }

    /// The file that makes writes at `gpa` durable, if there is one.
    fn file_of(&self, gpa: Gpa) -> Option<&FileOffset> {
        durable_file(self.0.find_region(GuestAddress(gpa.0))?)
    }

    /// `len` bytes at `gpa`, if all are in one region.
    fn slice(&self, gpa: Gpa, len: u64) -> Result<VolatileSlice<'_>, MemoryError> {
        let error = MemoryError(GpaRange { base: gpa, len });
        let len = usize::try_from(len).map_err(|_| error)?;
        let region = self.0.find_region(GuestAddress(gpa.0)).ok_or(error)?;
        let offset = gpa.0 - region.start_addr().0;
        region.get_slice(MemoryRegionAddress(offset), len).map_err(|_| error)
    }
}

/// `mmap` flag of Linux: writes to the mapping reach the file.
const MAP_SHARED: i32 = 1;

/// The file that writes to a region reach, if any: a private mapping keeps them to itself.
fn durable_file(region: &GuestRegionMmap) -> Option<&FileOffset> {
    region.file_offset().filter(|_| region.flags() & MAP_SHARED != 0)
}

/// Number of pieces whose memory is looked up before the first of them is copied.
const LOOKUP_BATCH: usize = 16;

impl DmaMemory for GuestRam {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.slice(gpa, buf.len() as u64)?.copy_to(buf);
        Ok(())
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        self.slice(gpa, buf.len() as u64)?.copy_from(buf);
        Ok(())
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        let (from, to) = (self.slice(src, len)?, self.slice(dst, len)?);
        from.copy_to_volatile_slice(to);
        Ok(())
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        if let [piece] = pieces {
            return usize::from(self.copy(piece.src, piece.dst, piece.len).is_ok());
        }
        let mut copied = 0;
        for pieces in pieces.chunks(LOOKUP_BATCH) {
            // All lookups first: a copy evicts the region table from the processor's nearest cache.
            let mut found = [None; LOOKUP_BATCH];
            let mut count = 0;
            for (slot, &CopyPiece { src, dst, len }) in found.iter_mut().zip(pieces) {
                let (Ok(from), Ok(to)) = (self.slice(src, len), self.slice(dst, len)) else { break };
                *slot = Some((from, to));
                count += 1;
            }
            for (from, to) in found.iter().flatten() {
                from.copy_to_volatile_slice(*to);
            }
            copied += count;
            if count < pieces.len() {
                break;
            }
        }
        copied
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, MemoryError> {
        self.slice(gpa, 4)?
            .load(0, Ordering::Acquire)
            .map_err(|_| MemoryError(GpaRange { base: gpa, len: 4 }))
    }

    fn load_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        self.slice(gpa, 8)?
            .load(0, Ordering::Acquire)
            .map_err(|_| MemoryError(GpaRange { base: gpa, len: 8 }))
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        let slice = self.slice(gpa, 4)?;
        let word =
            slice.get_atomic_ref::<AtomicU32>(0).map_err(|_| MemoryError(GpaRange { base: gpa, len: 4 }))?;
        word.store(value, Ordering::Release);
        Ok(())
    }

    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError> {
        let slice = self.slice(gpa, 8)?;
        let word =
            slice.get_atomic_ref::<AtomicU64>(0).map_err(|_| MemoryError(GpaRange { base: gpa, len: 8 }))?;
        word.store(value, Ordering::Release);
        Ok(())
    }

    fn compare_exchange_u64(&self, gpa: Gpa, current: u64, new: u64) -> Result<Exchange, MemoryError> {
        let slice = self.slice(gpa, 8)?;
        let word =
            slice.get_atomic_ref::<AtomicU64>(0).map_err(|_| MemoryError(GpaRange { base: gpa, len: 8 }))?;
        Ok(match word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Exchange::Stored,
            Err(found) => Exchange::Found(found),
        })
    }

    fn has_persistent(&self) -> bool {
        self.0.iter().any(|region| durable_file(region).is_some())
    }

    fn persistent_region(&self, gpa: Gpa, len: u64) -> Option<GpaRange> {
        self.slice(gpa, len).ok()?;
        let region = self.0.find_region(GuestAddress(gpa.0))?;
        durable_file(region)?;
        Some(GpaRange { base: Gpa(region.start_addr().0), len: region.len() })
    }

    /// Each file is synced once, as a whole: for the kernel, data stored through a shared mapping is data written to
    /// the file.
    fn persist(&self, ranges: &[GpaRange]) -> Result<(), PersistError> {
        let mut files: Vec<&FileOffset> = Vec::new();
        for &range in ranges {
            let not_persistent = || PersistError::NotPersistent(range);
            self.slice(range.base, range.len).map_err(|_| not_persistent())?;
            let file = self.file_of(range.base).ok_or_else(not_persistent)?;
            if !files.iter().any(|other| Arc::ptr_eq(other.arc(), file.arc())) {
                file.file().sync_data().map_err(|source| PersistError::Host { range, source })?;
                files.push(file);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram() -> GuestRam {
        let regions = [(GuestAddress(0), 0x4000), (GuestAddress(0x10_0000), 0x4000)];
        GuestRam::new(Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap()))
    }

    #[test]
    fn an_access_outside_memory_fails_and_changes_nothing() {
        let ram = ram();
        assert!(ram.write(Gpa(0x3ffe), &[1, 2, 3, 4]).is_err());
        assert_eq!(ram.load_u32(Gpa(0x3ffc)), Ok(0));
        assert!(ram.load_u64(Gpa(0x8000)).is_err());
        assert!(ram.copy(Gpa(0), Gpa(u64::MAX - 3), 8).is_err());
    }

    #[test]
    fn a_misaligned_atomic_fails() {
        assert!(ram().store_u64(Gpa(0x1004), 1).is_err());
        assert!(ram().compare_exchange_u64(Gpa(0x1001), 0, 1).is_err());
    }

    #[test]
    fn compare_exchange_reports_what_it_saw() {
        let ram = ram();
        ram.store_u64(Gpa(0x10_0008), 7).unwrap();
        assert_eq!(ram.compare_exchange_u64(Gpa(0x10_0008), 6, 9), Ok(Exchange::Found(7)));
        assert_eq!(ram.compare_exchange_u64(Gpa(0x10_0008), 7, 9), Ok(Exchange::Stored));
        assert_eq!(ram.load_u64(Gpa(0x10_0008)), Ok(9));
    }

    #[test]
    fn copies_cross_regions() {
        let ram = ram();
        ram.write(Gpa(0x100), b"refault").unwrap();
        ram.copy(Gpa(0x100), Gpa(0x10_0200), 7).unwrap();
        let mut back = [0; 7];
        ram.read(Gpa(0x10_0200), &mut back).unwrap();
        assert_eq!(&back, b"refault");
    }

    #[test]
    fn only_a_shared_file_survives() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x4000).unwrap();
        let backed = FileOffset::new(file.try_clone().unwrap(), 0);
        let regions = [(GuestAddress(0), 0x4000, None), (GuestAddress(0x4000), 0x4000, Some(backed))];
        let shared = GuestRam::new(Arc::new(GuestMemoryMmap::from_ranges_with_files(regions).unwrap()));
        assert!(shared.has_persistent() && !ram().has_persistent());
        let range = |base, len| GpaRange { base: Gpa(base), len };
        for (base, len) in [(0x4000, 0x4000), (0x7fff, 1)] {
            assert_eq!(shared.persistent_region(Gpa(base), len), Some(range(0x4000, 0x4000)));
        }
        for (base, len) in [(0x3fff, 2), (0x7fff, 2), (0x3000, 1)] {
            assert_eq!(shared.persistent_region(Gpa(base), len), None);
        }
        shared.write(Gpa(0x5000), b"refault").unwrap();
        shared.persist(&[range(0x5000, 7), range(0x4000, 1)]).unwrap();
        let mut back = [0; 7];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut back, 0x1000).unwrap();
        assert_eq!(&back, b"refault");
        for lost in [range(0x3000, 1), range(0x3fff, 2), range(0x10_0000, 1)] {
            let refused = shared.persist(&[range(0x5000, 7), lost]);
            assert!(matches!(refused, Err(PersistError::NotPersistent(found)) if found == lost), "{lost}");
        }
    }

    #[test]
    fn several_copies_stop_at_the_first_that_cannot_be() {
        let ram = ram();
        let piece = |src, dst| CopyPiece { src: Gpa(src), dst: Gpa(dst), len: 7 };
        for good in [0u8, 1, 15, 16, 17, 40] {
            let (good, count) = (u64::from(good), usize::from(good));
            ram.write(Gpa(0x100), b"refault").unwrap();
            ram.write(Gpa(0x1000), &[0; 0x1000]).unwrap();
            let mut pieces: Vec<_> = (0..good).map(|i| piece(0x100 + 8 * i, 0x108 + 8 * i)).collect();
            assert_eq!(ram.copy_all(&pieces), count);
            pieces.extend([piece(0x100, 0x3ffa), piece(0x100, 0x1000)]);
            assert_eq!(ram.copy_all(&pieces), count);
            let mut back = [0; 7];
            ram.read(Gpa(0x100 + 8 * good), &mut back).unwrap();
            assert_eq!(&back, b"refault", "each copy sees the one before");
            ram.read(Gpa(0x1000), &mut back).unwrap();
            assert_eq!(back, [0; 7], "nothing behind the failure is copied");
        }
    }
}
