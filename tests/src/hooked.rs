//! Guest memory that runs a hook of the test just before the device copies.

use std::sync::{Arc, Mutex, PoisonError};

use refault_bus::Gpa;
use refault_bus::dma::{CopyPiece, DmaMemory, Exchange, MemoryError};
use refault_bus::layer::MemoryLayer;

type Hook = Box<dyn FnOnce() + Send>;

/// A [`DmaMemory`] with a trap: before the first write or copy that touches its range, the hook runs, in the middle
/// of the device's work.
pub struct HookedMemory {
    inner: Arc<dyn DmaMemory>,
    trap: Mutex<Option<(Gpa, u64, Hook)>>,
}

impl HookedMemory {
    /// Wraps `inner`, with no trap set.
    pub fn new(inner: Arc<dyn DmaMemory>) -> Arc<Self> {
        Arc::new(Self { inner, trap: Mutex::new(None) })
    }

    /// Runs `hook` before the next write or copy into the `bytes` at `gpa`.
    pub fn before_write(&self, gpa: Gpa, bytes: u64, hook: impl FnOnce() + Send + 'static) {
        *self.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some((gpa, bytes, Box::new(hook)));
    }

    /// Whether the trap is set and has not been touched yet.
    pub fn is_armed(&self) -> bool {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn touch(&self, gpa: Gpa, bytes: u64) {
        let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        let touched = |(at, len, _): &(Gpa, u64, Hook)| gpa.0 < at.0 + len && at.0 < gpa.0 + bytes;
        let taken = if trap.as_ref().is_some_and(touched) { trap.take() } else { None };
        drop(trap);
        if let Some((_, _, hook)) = taken {
            hook();
        }
    }
}

impl MemoryLayer for HookedMemory {
    fn behind(&self) -> &dyn DmaMemory {
        &*self.inner
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        self.touch(gpa, buf.len() as u64);
        self.inner.write(gpa, buf)
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        self.touch(dst, len);
        self.inner.copy(src, dst, len)
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        let copy = |piece: &&CopyPiece| MemoryLayer::copy(self, piece.src, piece.dst, piece.len).is_ok();
        pieces.iter().take_while(copy).count()
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        self.touch(gpa, 4);
        self.inner.store_u32(gpa, value)
    }

    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError> {
        self.touch(gpa, 8);
        self.inner.store_u64(gpa, value)
    }

    fn compare_exchange_u64(&self, gpa: Gpa, current: u64, new: u64) -> Result<Exchange, MemoryError> {
        self.touch(gpa, 8);
        self.inner.compare_exchange_u64(gpa, current, new)
    }
}
