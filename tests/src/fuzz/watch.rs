//! Guest memory that counts what a device does with it, and keeps a list of it.

use std::sync::{Arc, Mutex};

use refault_bus::Gpa;
use refault_bus::dma::{CopyPiece, DmaMemory, Exchange, MemoryError};
use refault_bus::sync::lock;

/// How memory was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `read`.
    Read,
    /// `load_u32` or `load_u64`.
    Load,
    /// `write`.
    Write,
    /// `store_u32` or `store_u64`, with the value.
    Store(u64),
    /// The source of a copy.
    CopyFrom,
    /// The target of a copy.
    CopyTo,
    /// `compare_exchange_u64`, with the value expected and the new one.
    Exchange(u64, u64),
}

impl How {
    /// Whether memory may have changed.
    pub fn changes(self) -> bool {
        matches!(self, Self::Write | Self::Store(_) | Self::CopyTo | Self::Exchange(..))
    }
}

/// One access, or an attempt at one: memory may have refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// How.
    pub how: How,
    /// First address.
    pub at: Gpa,
    /// Length in bytes.
    pub len: u64,
}

/// A layer in front of memory that keeps every access until [`Self::take`]. None of it is persistent.
pub struct WatchedMemory {
    behind: Arc<dyn DmaMemory>,
    accesses: Mutex<Vec<Access>>,
}

impl WatchedMemory {
    /// Watches `memory`.
    pub fn new(memory: Arc<dyn DmaMemory>) -> Arc<Self> {
        Arc::new(Self { behind: memory, accesses: Mutex::default() })
    }

    /// The accesses since the last call, in order.
    pub fn take(&self) -> Vec<Access> {
        std::mem::take(&mut lock(&self.accesses))
    }

    fn note(&self, how: How, at: Gpa, len: u64) {
        lock(&self.accesses).push(Access { how, at, len });
    }
}

impl DmaMemory for WatchedMemory {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.note(How::Read, gpa, buf.len() as u64);
        self.behind.read(gpa, buf)
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), MemoryError> {
        self.note(How::Write, gpa, buf.len() as u64);
        self.behind.write(gpa, buf)
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        self.note(How::CopyFrom, src, len);
        self.note(How::CopyTo, dst, len);
        self.behind.copy(src, dst, len)
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        pieces.iter().take_while(|piece| self.copy(piece.src, piece.dst, piece.len).is_ok()).count()
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, MemoryError> {
        self.note(How::Load, gpa, 4);
        self.behind.load_u32(gpa)
    }

    fn load_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        self.note(How::Load, gpa, 8);
        self.behind.load_u64(gpa)
    }

    fn store_u32(&self, gpa: Gpa, value: u32) -> Result<(), MemoryError> {
        self.note(How::Store(value.into()), gpa, 4);
        self.behind.store_u32(gpa, value)
    }

    fn store_u64(&self, gpa: Gpa, value: u64) -> Result<(), MemoryError> {
        self.note(How::Store(value), gpa, 8);
        self.behind.store_u64(gpa, value)
    }

    fn compare_exchange_u64(&self, gpa: Gpa, current: u64, new: u64) -> Result<Exchange, MemoryError> {
        self.note(How::Exchange(current, new), gpa, 8);
        self.behind.compare_exchange_u64(gpa, current, new)
    }
}
