//! The first-stage walk: the processor's own 4-level tables (§3.6).

use refault_bus::ats::Translation;
use refault_bus::dma::{DmaMemory, Exchange};
use refault_bus::{Gpa, Iova};

use crate::fault::FaultReason;
use crate::spec::first_stage::{FirstStageEntry, LEVELS, level_shift};

/// How often a walk starts anew because a vCPU changed an entry between reading it and setting its accessed
/// or dirty bit.
const ATTEMPTS: u32 = 16;

/// One access to walk for. Requests are always user requests for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// The address.
    pub(crate) iova: Iova,
    /// Write permission is wanted: it is granted if the tables allow, and the page becomes dirty.
    pub(crate) write: bool,
    /// Read permission alone will not do: without write permission the walk fails and leaves no trace.
    pub(crate) exact: bool,
}

/// Walks the tables at `root`. The result grants read, and write if wanted and allowed; accessed and dirty
/// bits say so in the tables before this returns.
pub(crate) fn walk(memory: &dyn DmaMemory, root: Gpa, access: Access) -> Result<Translation, FaultReason> {
    if !is_canonical(access.iova) {
        return Err(FaultReason::NotCanonical);
    }
    for _ in 0..ATTEMPTS {
        if let Some(translation) = Path::read(memory, root, access)?.grant(memory, access)? {
            return Ok(translation);
        }
    }
    Err(FaultReason::AccessedDirty)
}

/// Whether bits 63:47 are all alike.
pub(crate) const fn is_canonical(iova: Iova) -> bool {
    let high = (iova.0 as i64) >> 47;
    high == 0 || high == -1
}

/// The entries of one walk as they were read, from the top down, the last one a leaf.
struct Path {
    entries: [(Gpa, FirstStageEntry); LEVELS as usize],
    /// Level of the leaf: 1 to 3.
    leaf_level: u8,
    /// Every entry allows writing.
    writable: bool,
}

impl Path {
    fn read(memory: &dyn DmaMemory, root: Gpa, access: Access) -> Result<Self, FaultReason> {
        let mut path = Self {
            entries: [(root, FirstStageEntry::new()); LEVELS as usize],
            leaf_level: 1,
            writable: true,
        };
        let mut table = root;
        for (slot, level) in path.entries.iter_mut().zip((1..=LEVELS).rev()) {
            let index = access.iova.0 >> level_shift(level) & 0x1ff;
            let at = Gpa(table.0 + index * 8);
            let missing =
                if level == LEVELS { FaultReason::TopEntryAccess } else { FaultReason::EntryAccess };
            let entry = FirstStageEntry::from_bits(memory.load_u64(at).map_err(|_| missing)?);
            if !entry.present() {
                return Err(FaultReason::EntryNotPresent);
            }
            if entry.is_malformed(level) {
                return Err(FaultReason::EntryReserved);
            }
            if !entry.user() {
                return Err(FaultReason::Supervisor);
            }
            path.writable &= entry.writable();
            *slot = (at, entry);
            if entry.is_leaf(level) {
                path.leaf_level = level;
                break;
            }
            table = Gpa(entry.address(level));
        }
        Ok(path)
    }

    /// Sets accessed and dirty bits and makes the translation; `None` if an entry changed meanwhile.
    fn grant(&self, memory: &dyn DmaMemory, access: Access) -> Result<Option<Translation>, FaultReason> {
        if access.exact && access.write && !self.writable {
            return Err(FaultReason::WriteDenied);
        }
        let write = access.write && self.writable;
        let mut leaf = FirstStageEntry::new();
        for (&(at, entry), level) in self.entries.iter().zip((self.leaf_level..=LEVELS).rev()) {
            let dirty = entry.dirty() || (write && level == self.leaf_level);
            let marked = entry.with_accessed(true).with_dirty(dirty);
            if marked.into_bits() != entry.into_bits() {
                match memory.compare_exchange_u64(at, entry.into_bits(), marked.into_bits()) {
                    Ok(Exchange::Stored) => {}
                    Ok(Exchange::Found(_)) => return Ok(None),
                    Err(_) => return Err(FaultReason::AccessedDirty),
                }
            }
            leaf = entry;
        }
        let gpa = Gpa(leaf.address(self.leaf_level));
        Ok(Some(Translation { gpa, page_shift: level_shift(self.leaf_level), read: true, write }))
    }
}
