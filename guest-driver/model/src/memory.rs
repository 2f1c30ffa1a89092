//! Guest-physical memory and the allocator of its frames.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use refault_bus::sync::lock;

use crate::ModelError;

/// Bytes of a frame: 4 KiB.
pub const FRAME: u64 = 0x1000;
/// [`FRAME`] as a length of slices and a step of iterators.
pub(crate) const FRAME_LEN: usize = 0x1000;

/// Guest memory with an allocator of frames. It reuses freed frames at once and lowest first, so that a use after free
/// corrupts the next owner's data and does not go unnoticed.
pub struct GuestMemory {
    memory: Arc<dyn DmaMemory>,
    free: Mutex<FreeRuns>,
}

/// Lengths of the free runs in bytes, by start; adjacent runs are merged.
#[derive(Default)]
struct FreeRuns {
    runs: BTreeMap<u64, u64>,
    bytes: u64,
}

impl GuestMemory {
    /// Manages the `usable` ranges of `memory`, cut to whole frames. They must not overlap.
    pub fn new(memory: Arc<dyn DmaMemory>, usable: impl IntoIterator<Item = Range<u64>>) -> Arc<Self> {
        let mut free = FreeRuns::default();
        for range in usable {
            let start = range.start.next_multiple_of(FRAME);
            free.insert(start, (range.end & !(FRAME - 1)).saturating_sub(start));
        }
        Arc::new(Self { memory, free: Mutex::new(free) })
    }

    /// The memory itself, as devices access it.
    pub fn dma(&self) -> &Arc<dyn DmaMemory> {
        &self.memory
    }

    /// Bytes that are not allocated.
    pub fn free_bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Allocates `bytes`, rounded up to whole frames and aligned to `1 << align_shift`, and zeroes them.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`]; [`ModelError::Memory`] if the usable ranges exceed the memory.
    pub fn allocate(&self, bytes: u64, align_shift: u8) -> Result<Gpa, ModelError> {
        let bytes = bytes.max(1).next_multiple_of(FRAME);
        let align = FRAME.max(1 << align_shift);
        let found = self.lock().take(bytes, align);
        let gpa = found.ok_or(ModelError::OutOfMemory { bytes, align })?;
        self.zero(Gpa(gpa), bytes)?;
        Ok(Gpa(gpa))
    }

    /// Allocates one frame and zeroes it.
    ///
    /// # Errors
    ///
    /// As [`Self::allocate`].
    pub fn frame(&self) -> Result<Gpa, ModelError> {
        self.allocate(FRAME, 12)
    }

    /// Frees `bytes` at `gpa`, rounded up like those of [`Self::allocate`].
    ///
    /// # Errors
    ///
    /// [`ModelError::FreedTwice`] if part of the range is free; then nothing is freed.
    pub fn free(&self, gpa: Gpa, bytes: u64) -> Result<(), ModelError> {
        let bytes = bytes.max(1).next_multiple_of(FRAME);
        if self.lock().insert(gpa.0, bytes) { Ok(()) } else { Err(ModelError::FreedTwice { gpa, bytes }) }
    }

    /// Writes zeroes to the `bytes` at `gpa`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`] if the range is not in memory.
    pub fn zero(&self, gpa: Gpa, bytes: u64) -> Result<(), ModelError> {
        self.fill(gpa, bytes, 0)
    }

    /// Writes `byte` to each of the `bytes` at `gpa`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`] if the range is not in memory.
    pub fn fill(&self, gpa: Gpa, bytes: u64, byte: u8) -> Result<(), ModelError> {
        let chunk = [byte; FRAME_LEN];
        let end = gpa.0 + bytes;
        for at in (gpa.0..end).step_by(FRAME_LEN) {
            let piece = usize::try_from(end - at).map_or(FRAME_LEN, |left| left.min(FRAME_LEN));
            self.memory.write(Gpa(at), &chunk[..piece])?;
        }
        Ok(())
    }

    /// Reads `len` bytes at `gpa`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`] if the range is not in memory.
    pub fn bytes(&self, gpa: Gpa, len: usize) -> Result<Vec<u8>, ModelError> {
        let mut bytes = vec![0; len];
        self.memory.read(gpa, &mut bytes)?;
        Ok(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, FreeRuns> {
        lock(&self.free)
    }
}

impl FreeRuns {
    /// Adds a free run and merges it with its neighbours. Returns `false`, and adds nothing, if part of it is free
    /// already.
    fn insert(&mut self, start: u64, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        let (mut start, mut end) = (start, start + bytes);
        let before = self.runs.range(..=start).next_back().map(|(&at, &len)| (at, at + len));
        let after = self.runs.range(start..).next().map(|(&at, &len)| (at, at + len));
        if before.is_some_and(|(_, stop)| stop > start) || after.is_some_and(|(at, _)| at < end) {
            return false;
        }
        if let Some((at, stop)) = before.filter(|&(_, stop)| stop == start) {
            self.runs.remove(&at);
            start = at.min(stop);
        }
        if let Some((at, stop)) = after.filter(|&(at, _)| at == end) {
            self.runs.remove(&at);
            end = stop;
        }
        self.runs.insert(start, end - start);
        self.bytes += bytes;
        true
    }

    /// Removes the lowest aligned run of `bytes` and returns its start.
    fn take(&mut self, bytes: u64, align: u64) -> Option<u64> {
        let (run, len, at) = self.runs.iter().find_map(|(&run, &len)| {
            let at = run.next_multiple_of(align);
            (at + bytes <= run + len).then_some((run, len, at))
        })?;
        self.runs.remove(&run);
        for (start, end) in [(run, at), (at + bytes, run + len)] {
            if start < end {
                self.runs.insert(start, end - start);
            }
        }
        self.bytes -= bytes;
        Some(at)
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small sizes")]
pub(crate) mod tests {
    use refault_bus::dma::GuestRam;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    /// Guest memory of `bytes` at address zero, of which the first frame is never allocated.
    pub(crate) fn memory(bytes: u64) -> Arc<GuestMemory> {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes as usize)]).unwrap();
        GuestMemory::new(Arc::new(GuestRam::new(Arc::new(ram))), std::iter::once(FRAME..bytes))
    }

    #[test]
    fn freed_frames_are_merged_and_zeroed_on_reuse() {
        let memory = memory(0x40_0000);
        let all = memory.free_bytes();
        let frames: Vec<_> = (0..16).map(|_| memory.frame().unwrap()).collect();
        memory.fill(frames[3], FRAME, 7).unwrap();
        for &frame in frames.iter().step_by(2).chain(frames.iter().skip(1).step_by(2)) {
            memory.free(frame, FRAME).unwrap();
        }
        assert_eq!(memory.free_bytes(), all);
        assert_eq!(memory.lock().runs.len(), 1);
        let again = memory.allocate(16 * FRAME, 12).unwrap();
        assert!(memory.bytes(again, 0x1_0000).unwrap().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_large_page_is_aligned() {
        let memory = memory(0x60_0000);
        let large = memory.allocate(0x20_0000, 21).unwrap();
        assert_eq!(large.offset_in(21), 0);
        assert!(memory.allocate(0x20_0000, 21).is_ok());
        assert!(matches!(memory.allocate(0x20_0000, 21), Err(ModelError::OutOfMemory { .. })));
    }

    #[test]
    fn freeing_twice_is_an_error() {
        let memory = memory(0x10_0000);
        let frame = memory.frame().unwrap();
        assert!(memory.free(frame, FRAME).is_ok());
        assert!(matches!(memory.free(frame, FRAME), Err(ModelError::FreedTwice { .. })));
    }
}
