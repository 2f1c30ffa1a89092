//! The first-stage walk: the processor's own 4-level tables (§3.6).

use refault_bus::ats::Translation;
use refault_bus::dma::{DmaMemory, Exchange};
use refault_bus::{Gpa, Iova};

use crate::fault::FaultReason;
use crate::interrupt_range;
use crate::spec::first_stage::{FirstStageEntry, LEVELS, level_shift};

/// How often a walk starts again because a vCPU changed an entry after it was read and before it was marked. The
/// bound keeps a vCPU that does nothing else from holding the remapping lock forever.
const ATTEMPTS: u32 = 16;

/// What a request wants of a page. It is always a request for data at user privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Read. Write is not granted even where the tables allow it, because the page would have to be marked dirty.
    Read,
    /// Read, and write if the tables allow it: an ATS translation request, which may be granted less than it asks.
    WriteIfAllowed,
    /// Write: an untranslated access, which happens as a whole or not at all.
    Write,
}

/// Walks the tables at `root`. The result grants read, and write if it is wanted and allowed; accessed and dirty bits
/// are set in the tables before this returns.
///
/// # Errors
///
/// The reason why nothing is granted. An attempt that lost a race may have marked some entries accessed by then.
pub(crate) fn walk(
    memory: &dyn DmaMemory,
    root: Gpa,
    iova: Iova,
    permission: Permission,
) -> Result<Translation, FaultReason> {
    if !is_canonical(iova) {
        return Err(FaultReason::NotCanonical);
    }
    for _ in 0..ATTEMPTS {
        let path = WalkPath::read(memory, root, iova)?;
        if let Some(translation) = path.grant(memory, iova, permission)? {
            return Ok(translation);
        }
    }
    Err(FaultReason::AccessedDirty)
}

/// Whether bits 63:47 are all alike.
pub(crate) const fn is_canonical(iova: Iova) -> bool {
    let high = iova.0.cast_signed() >> 47;
    high == 0 || high == -1
}

/// The entries of one walk as they were read, from the top down, the last one a leaf.
struct WalkPath {
    /// Address and value of each entry; those after the leaf are unused.
    entries: [(Gpa, FirstStageEntry); LEVELS as usize],
    leaf: FirstStageEntry,
    /// Level of the leaf: 1 to 3.
    leaf_level: u8,
    /// Every entry allows writing.
    writable: bool,
}

impl WalkPath {
    fn read(memory: &dyn DmaMemory, root: Gpa, iova: Iova) -> Result<Self, FaultReason> {
        let mut path = Self {
            entries: [(root, FirstStageEntry::new()); LEVELS as usize],
            leaf: FirstStageEntry::new(),
            leaf_level: 1,
            writable: true,
        };
        let mut table = root;
        for (slot, level) in path.entries.iter_mut().zip((1..=LEVELS).rev()) {
            let index = iova.0 >> level_shift(level) & 0x1ff;
            let at = Gpa(table.0 + index * 8);
            let missing =
                if level == LEVELS { FaultReason::TopEntryAccess } else { FaultReason::EntryAccess };
            let entry = FirstStageEntry::from_bits(memory.load_u64(at).map_err(|_| missing)?);
            // P first: without it the other bits are software's, and must not be taken for reserved ones.
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
                (path.leaf, path.leaf_level) = (entry, level);
                break;
            }
            table = Gpa(entry.address(level));
        }
        Ok(path)
    }

    /// Sets the accessed bit in every entry and, if write is granted, the dirty bit in the leaf; makes the
    /// translation of the leaf. `None` if an entry is no longer what was read: the caller walks again.
    ///
    /// Rights and address are checked before the first mark, so a refused access leaves the tables as they were. Marks go in by
    /// compare-and-exchange: a plain store could bring back an entry that a vCPU has just cleared. They go in before
    /// the translation is used, because software that finds a page neither accessed nor dirty may reclaim it unread.
    fn grant(
        &self,
        memory: &dyn DmaMemory,
        iova: Iova,
        permission: Permission,
    ) -> Result<Option<Translation>, FaultReason> {
        if permission == Permission::Write && !self.writable {
            return Err(FaultReason::WriteDenied);
        }
        let write = permission != Permission::Read && self.writable;
        let gpa = Gpa(self.leaf.address(self.leaf_level));
        let block = Translation { gpa, page_shift: level_shift(self.leaf_level), read: true, write };
        if interrupt_range::contains(block.gpa_of(iova).0) {
            return Err(FaultReason::InterruptRange);
        }
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
        }
        Ok(Some(block))
    }
}
