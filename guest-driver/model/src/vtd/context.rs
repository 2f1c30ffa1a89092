//! Root table, context entries, PASID directories and PASID entries (VT-d 9.1 to 9.6).

use std::sync::Arc;

use refault_bus::dma::Exchange;
use refault_bus::{Bdf, Gpa, Pasid};

use crate::memory::FRAME;
use crate::{GuestMemory, ModelError};

/// Present, in every kind of entry.
pub(crate) const PRESENT: u64 = 1 << 0;
/// Fault processing disabled, in context and PASID entries.
pub(crate) const FAULT_DISABLED: u64 = 1 << 1;

/// The root table and the context tables below it.
pub(crate) struct RootTable {
    memory: Arc<GuestMemory>,
    pub(crate) root: Gpa,
}

impl RootTable {
    pub(crate) fn new(memory: Arc<GuestMemory>) -> Result<Self, ModelError> {
        let root = memory.frame()?;
        Ok(Self { memory, root })
    }

    /// Where the context entry of `requester` lies; its table is built if missing. Called by one thread.
    pub(crate) fn context(&self, requester: Bdf) -> Result<Gpa, ModelError> {
        let dma = self.memory.dma();
        let half = u64::from(requester.devfn() >> 7);
        let root_entry = Gpa(self.root.0 + u64::from(requester.bus()) * 16 + half * 8);
        let mut entry = dma.load_u64(root_entry)?;
        if entry & PRESENT == 0 {
            entry = self.memory.frame()?.0 | PRESENT;
            dma.store_u64(root_entry, entry)?;
        }
        Ok(Gpa((entry & !0xfff) + u64::from(requester.devfn() & 0x7f) * 32))
    }
}

/// What a context entry says about a function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextBits {
    pub(crate) device_tlb: bool,
    pub(crate) pasid: bool,
    pub(crate) page_requests: bool,
}

/// One function's PASID directory and its tables. They stay as long as the function.
pub(crate) struct PasidTables {
    memory: Arc<GuestMemory>,
    directory: Gpa,
    entries: u64,
}

impl PasidTables {
    /// A directory for PASIDs of `bits` bits (at least 12: one page of directory entries covers 15).
    pub(crate) fn new(memory: Arc<GuestMemory>, bits: u32) -> Result<Self, ModelError> {
        let entries = (1u64 << bits.clamp(15, Pasid::BITS)) / 64;
        let directory = memory.allocate(entries * 8, 12)?;
        Ok(Self { memory, directory, entries })
    }

    /// The context entry that points here: its two used quadwords.
    pub(crate) fn context_entry(&self, bits: ContextBits) -> [u64; 2] {
        // PDTS: the directory has 2^(PDTS + 7) entries.
        let size = u64::from(self.entries.ilog2() - 7);
        let flag = |on: bool, bit: u64| if on { 1 << bit } else { 0 };
        let flags = flag(bits.device_tlb, 2) | flag(bits.pasid, 3) | flag(bits.page_requests, 4);
        [self.directory.0 | size << 9 | flags | PRESENT, 0]
    }

    /// Where the entry of `pasid` lies; its table is built if missing. `None` beyond the directory.
    pub(crate) fn entry(&self, pasid: Pasid) -> Result<Option<Gpa>, ModelError> {
        let index = u64::from(pasid.get() >> 6);
        if index >= self.entries {
            return Ok(None);
        }
        let dma = self.memory.dma();
        let slot = Gpa(self.directory.0 + index * 8);
        let mut table = dma.load_u64(slot)?;
        if table & PRESENT == 0 {
            let new = self.memory.frame()?;
            table = match dma.compare_exchange_u64(slot, 0, new.0 | PRESENT)? {
                Exchange::Stored => new.0 | PRESENT,
                Exchange::Found(theirs) => {
                    self.memory.free(new, FRAME)?;
                    theirs
                }
            };
        }
        Ok(Some(Gpa((table & !0xfff) + u64::from(pasid.get() & 0x3f) * 64)))
    }

    /// Where the directory lies.
    pub(crate) fn directory(&self) -> Gpa {
        self.directory
    }
}

/// What a PASID entry translates by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasidEntry {
    /// First stage, through the table at this root.
    FirstStage { root: Gpa, domain: u16 },
    /// Not at all.
    PassThrough { domain: u16 },
}

/// Granular translation types in quadword 0.
const FIRST_STAGE: u64 = 1 << 6;
const PASS_THROUGH: u64 = 4 << 6;
/// Address width 48 bits.
const WIDTH_48: u64 = 2 << 2;
/// PWSNP, in quadword 1.
const SNOOP_WALKS: u64 = 1 << 23;

impl PasidEntry {
    /// The quadwords that are not zero, as Linux 7.2 fills them.
    pub(crate) fn quadwords(self) -> [u64; 3] {
        match self {
            Self::FirstStage { root, domain } => {
                [PRESENT | WIDTH_48 | FIRST_STAGE, SNOOP_WALKS | u64::from(domain), root.0]
            }
            Self::PassThrough { domain } => {
                [PRESENT | WIDTH_48 | PASS_THROUGH, SNOOP_WALKS | u64::from(domain), 0]
            }
        }
    }
}
