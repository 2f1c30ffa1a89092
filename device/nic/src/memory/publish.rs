//! Publishing an entry: how the driver, which polls memory, gets to see all of it or nothing.

use refault_bus::Gpa;
use refault_bus::dma::{DmaMemory, MemoryError};

/// Writes `bytes` at `at`, and then publishes `word` at `word_at`: who finds the word by an acquire load finds the bytes.
///
/// # Errors
///
/// One of the two is not memory. The word is not written then.
#[inline]
pub(crate) fn publish(
    memory: &dyn DmaMemory,
    at: Gpa,
    bytes: &[u8],
    word_at: Gpa,
    word: u32,
) -> Result<(), MemoryError> {
    memory.write(at, bytes)?;
    memory.store_u32(word_at, word)
}
