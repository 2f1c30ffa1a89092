//! Guest-physical memory as devices and the IOMMU reach it.
//!
//! The ordering of an access follows from its purpose. A device *consumes* a word that the guest published (a doorbell
//! record, a valid bit) with an acquire load, before it reads the data that the word announces. It *publishes* its own
//! work with a release store, after it has written the rest. The other side is always a vCPU.

mod ram;

use std::fmt;

use thiserror::Error;

use crate::Gpa;

pub use ram::GuestRam;

/// A range of guest-physical addresses. Prints as `base+len`, both in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GpaRange {
    /// First address.
    pub base: Gpa,
    /// Length in bytes.
    pub len: u64,
}

impl fmt::Display for GpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.base, self.len)
    }
}

/// An access to a range that is not, or not wholly, memory; or an atomic access that is not aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no guest memory at {0}")]
pub struct MemoryError(pub GpaRange);

/// Guest-physical memory: RAM and persistent memory alike, but no MMIO.
///
/// An access that is not wholly inside memory fails and changes nothing. Plain reads and writes are not atomic with
/// respect to vCPUs; the `load`, `store` and `compare_exchange` methods are, and require natural alignment.
pub trait DmaMemory: Send + Sync {
    /// Fills `buf` from `gpa`.
    ///
    /// # Errors
    ///
    /// If the range is not wholly memory. `buf` is unchanged then.
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError>;

    /// Writes `buf` to `gpa`.
    ///
    /// # Errors
    ///
    /// If the range is not wholly memory. Nothing is written then.
    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError>;

    /// Copies `len` bytes inside guest memory; ranges may overlap, as in `memmove`.
    ///
    /// # Errors
    ///
    /// If either range is not wholly memory; the error names that one. Nothing is copied then.
    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError>;

    /// Copies `pieces` in order, as [`Self::copy`] would one by one, up to the first that fails. Returns the number of
    /// pieces copied.
    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        pieces.iter().take_while(|piece| self.copy(piece.src, piece.dst, piece.len).is_ok()).count()
    }

    /// Consumes a 32-bit word that the guest published (acquire).
    ///
    /// # Errors
    ///
    /// If the word is not wholly memory, or not aligned.
    fn load_u32(&self, gpa: Gpa) -> Result<u32, MemoryError>;

    /// Consumes a 64-bit word that the guest published (acquire).
    ///
    /// # Errors
    ///
    /// If the word is not wholly memory, or not aligned.
    fn load_u64(&self, gpa: Gpa) -> Result<u64, MemoryError>;

    /// Publishes a 32-bit word after all earlier writes (release).
    ///
    /// # Errors
    ///
    /// If the word is not wholly memory, or not aligned.
    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError>;

    /// Publishes a 64-bit word after all earlier writes (release).
    ///
    /// # Errors
    ///
    /// If the word is not wholly memory, or not aligned.
    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError>;

    /// Replaces `current` with `new` in one atomic step, unless another value is there. Sequentially consistent,
    /// because the NIC uses it for atomic operations too.
    ///
    /// # Errors
    ///
    /// If the word is not wholly memory, or not aligned.
    fn compare_exchange_u64(&self, gpa: Gpa, current: u64, new: u64) -> Result<Exchange, MemoryError>;

    /// Whether any of the memory is persistent, that is, survives the machine.
    fn has_persistent(&self) -> bool {
        false
    }

    /// The persistent memory region that all of a range lies in, if there is one: what is in it when [`Self::persist`] is
    /// called survives. To persist any part of a region costs as much as to persist all of it.
    fn persistent_region(&self, _gpa: Gpa, _len: u64) -> Option<GpaRange> {
        None
    }

    /// Makes everything written to the ranges so far durable. Blocks until the host's storage has it.
    ///
    /// # Errors
    ///
    /// If a range is not persistent memory, or the host could not write it out. Ranges before it may be durable.
    fn persist(&self, ranges: &[GpaRange]) -> Result<(), PersistError> {
        ranges.first().map_or(Ok(()), |&range| Err(PersistError::NotPersistent(range)))
    }
}

/// The outcome of a compare-and-exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exchange {
    /// The expected value was there, and the new one has replaced it.
    Stored,
    /// This value was there instead; nothing was written.
    Found(u64),
}

/// Why data written to a range may not be durable.
#[derive(Debug, Error)]
pub enum PersistError {
    /// The range is not persistent memory.
    #[error("not persistent: {0}")]
    NotPersistent(GpaRange),
    /// The host could not write the range out.
    #[error("cannot make {range} durable: {source}")]
    Host {
        /// The range, of which any part may be lost.
        range: GpaRange,
        /// The error of the host's call.
        source: std::io::Error,
    },
}

/// One piece of a [`DmaMemory::copy_all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CopyPiece {
    /// First address to copy from.
    pub src: Gpa,
    /// First address to copy to.
    pub dst: Gpa,
    /// Length in bytes.
    pub len: u64,
}
