//! Guest memory that calls a test back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use refault_bus::Gpa;
use refault_bus::dma::{CopyPiece, DmaMemory, Exchange, GpaRange, GuestRam, MemoryError, PersistError};

/// What happens in the middle of the device's accesses.
#[derive(Default)]
pub(crate) struct Hooks {
    before_copy: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    watched: Mutex<Option<Gpa>>,
    was_read: AtomicBool,
    write_outs: AtomicU64,
}

impl Hooks {
    /// Calls `hook` before the next copy, with the copying worker's guard and its requester held.
    pub(crate) fn before_copy(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_copy.lock().unwrap() = Some(Box::new(hook));
    }

    /// Notes a read that begins at `gpa`.
    pub(crate) fn watch(&self, gpa: Gpa) {
        *self.watched.lock().unwrap() = Some(gpa);
    }

    /// How often persistent memory was written out.
    pub(crate) fn write_outs(&self) -> u64 {
        self.write_outs.load(Ordering::Acquire)
    }

    /// Whether what is watched was read.
    pub(crate) fn was_read(&self) -> bool {
        self.was_read.load(Ordering::Acquire)
    }
}

/// Memory with hooks.
pub(crate) struct Hooked {
    pub(crate) ram: GuestRam,
    pub(crate) hooks: Arc<Hooks>,
}

impl DmaMemory for Hooked {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        if *self.hooks.watched.lock().unwrap() == Some(gpa) {
            self.hooks.was_read.store(true, Ordering::Release);
        }
        self.ram.read(gpa, buf)
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        self.ram.write(gpa, buf)
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        self.ram.copy(src, dst, len)
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        let hook = self.hooks.before_copy.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.ram.copy_all(pieces)
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, MemoryError> {
        self.ram.load_u32(gpa)
    }

    fn load_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        self.ram.load_u64(gpa)
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        self.ram.store_u32(gpa, value)
    }

    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError> {
        self.ram.store_u64(gpa, value)
    }

    fn compare_exchange_u64(&self, gpa: Gpa, current: u64, new: u64) -> Result<Exchange, MemoryError> {
        self.ram.compare_exchange_u64(gpa, current, new)
    }

    fn has_persistent(&self) -> bool {
        self.ram.has_persistent()
    }

    fn persistent_region(&self, gpa: Gpa, len: u64) -> Option<GpaRange> {
        self.ram.persistent_region(gpa, len)
    }

    fn persist(&self, ranges: &[GpaRange]) -> Result<(), PersistError> {
        self.hooks.write_outs.fetch_add(1, Ordering::AcqRel);
        self.ram.persist(ranges)
    }
}
