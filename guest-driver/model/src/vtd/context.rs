//! Root table, context entries, PASID directories and PASID table entries (VT-d 9.1 to 9.6).

use std::sync::Arc;

use refault_bus::dma::Exchange;
use refault_bus::{Bdf, Gpa, Pasid};

use crate::memory::FRAME;
use crate::{GuestMemory, ModelError};

/// P (present), bit 0 of every kind of entry.
pub(crate) const PRESENT: u64 = 1 << 0;
/// FPD (fault processing disable), in context and PASID table entries.
pub(crate) const FAULT_DISABLED: u64 = 1 << 1;

/// The root table and its context tables.
pub(crate) struct RootTable {
    memory: Arc<GuestMemory>,
    pub(crate) root: Gpa,
}

impl RootTable {
    pub(crate) fn new(memory: Arc<GuestMemory>) -> Result<Self, ModelError> {
        let root = memory.frame()?;
        Ok(Self { memory, root })
    }

    /// Address of the context entry of `requester`. Allocates the context table if it is missing; the caller ensures
    /// that no other thread does so at the same time.
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

/// The flags of a context entry: DTE, PASIDE, PRE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextBits {
    pub(crate) device_tlb: bool,
    pub(crate) pasid: bool,
    pub(crate) page_requests: bool,
}

/// The PASID directory of a function and its tables. They are never freed.
pub(crate) struct PasidTables {
    memory: Arc<GuestMemory>,
    directory: Gpa,
    entries: u64,
}

impl PasidTables {
    /// A directory for PASIDs of `bits` bits, but for at least 15 bits: that is one page of directory entries.
    pub(crate) fn new(memory: Arc<GuestMemory>, bits: u32) -> Result<Self, ModelError> {
        let entries = (1u64 << bits.clamp(15, Pasid::BITS)) / 64;
        let directory = memory.allocate(entries * 8, 12)?;
        Ok(Self { memory, directory, entries })
    }

    /// The low two quadwords of a context entry for this directory; the others are zero.
    pub(crate) fn context_entry(&self, bits: ContextBits) -> [u64; 2] {
        // PDTS: the directory has 2^(PDTS + 7) entries.
        let size = u64::from(self.entries.ilog2() - 7);
        let flag = |on: bool, bit: u64| if on { 1 << bit } else { 0 };
        let flags = flag(bits.device_tlb, 2) | flag(bits.pasid, 3) | flag(bits.page_requests, 4);
        [self.directory.0 | size << 9 | flags | PRESENT, 0]
    }

    /// Address of the entry of `pasid`; `None` if it is beyond the directory. Allocates the table if it is missing.
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

    /// Address of the directory.
    pub(crate) fn directory(&self) -> Gpa {
        self.directory
    }
}

/// A PASID table entry, by its translation type (PGTT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasidEntry {
    /// First-stage translation through the table at `root`.
    FirstStage { root: Gpa, domain: u16 },
    /// No translation.
    PassThrough { domain: u16 },
}

/// PGTT, in quadword 0.
const FIRST_STAGE: u64 = 1 << 6;
const PASS_THROUGH: u64 = 4 << 6;
/// AW: 48-bit addresses.
const WIDTH_48: u64 = 2 << 2;
/// PWSNP (page walk snoop), in quadword 1.
const SNOOP_WALKS: u64 = 1 << 23;

impl PasidEntry {
    /// Quadwords 0 to 2 as Linux 7.2 sets them; the others are zero.
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
