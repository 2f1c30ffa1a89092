//! Guest memory of a few words, with the orderings that [`DmaMemory`] promises.

use loom::sync::atomic::{AtomicU32, Ordering};
use refault_bus::Gpa;
use refault_bus::dma::{DmaMemory, Exchange, GpaRange, MemoryError};

/// Words from `base` on. An access that the models have no use for fails.
pub struct Words {
    base: Gpa,
    words: Vec<AtomicU32>,
}

impl Words {
    /// So many words, all zero.
    pub fn new(base: Gpa, count: usize) -> Self {
        Self { base, words: (0..count).map(|_| AtomicU32::new(0)).collect() }
    }

    /// `len` bytes of whole words.
    fn words(&self, gpa: Gpa, len: usize) -> Result<&[AtomicU32], MemoryError> {
        let first = usize::try_from((gpa.0 - self.base.0) / 4).unwrap_or(usize::MAX);
        let words = self.words.get(first..).and_then(|words| words.get(..len / 4));
        words.ok_or(none(gpa, len))
    }
}

fn none(base: Gpa, len: usize) -> MemoryError {
    MemoryError(GpaRange { base, len: len as u64 })
}

impl DmaMemory for Words {
    /// Plain accesses have no order.
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        for (word, bytes) in self.words(gpa, buf.len())?.iter().zip(buf.chunks_mut(4)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        Ok(())
    }

    /// Zeroes are there already, as no model writes a word twice.
    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        for (word, bytes) in self.words(gpa, buf.len())?.iter().zip(buf.as_chunks().0) {
            let value = u32::from_le_bytes(*bytes);
            if value != 0 {
                word.store(value, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn copy(&self, _: Gpa, to: Gpa, _: u64) -> Result<(), MemoryError> {
        Err(none(to, 0))
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, MemoryError> {
        Ok(self.words(gpa, 4)?[0].load(Ordering::Acquire))
    }

    fn load_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        Err(none(gpa, 8))
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        self.words(gpa, 4)?[0].store(value, Ordering::Release);
        Ok(())
    }

    fn store_u64(&self, gpa: Gpa, _: u64) -> Result<(), MemoryError> {
        Err(none(gpa, 8))
    }

    fn compare_exchange_u64(&self, gpa: Gpa, _: u64, _: u64) -> Result<Exchange, MemoryError> {
        Err(none(gpa, 8))
    }
}
