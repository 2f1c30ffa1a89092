//! On-demand regions: a table of the region's own, with holes.
//!
//! Like every table it lies in the driver's memory and is walked when a page is needed. Unlike others it changes while
//! the region lives: what was read from it is cached until the driver invalidates it (CMD_INVALIDATE_MR), and holes are
//! never cached.

use refault_abi::command::{ODP_MAX_LEVELS, ODP_PRESENT, ODP_TABLE, ODP_WRITABLE, PageTable};
use refault_bus::Iova;
use refault_bus::ats::Translation;

use crate::cause::Cause;
use crate::memory::access::{AccessError, Extent};
use crate::memory::atc::Space;
use crate::memory::port::Port;

/// Entries of one table, as log2.
const TABLE_BITS: u32 = 9;
/// log2 of the size of a page that a word of the last level, or of the one before, names.
const PAGE_SHIFTS: [u8; 2] = [12, 21];

/// A checked table. `identity` is never used again for another one, so that walked pages can be cached by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OnDemandTable {
    root: u64,
    identity: u64,
    levels: u8,
}

impl OnDemandTable {
    /// Checks the table of a command; `None` if it is malformed.
    pub(crate) fn check(table: &PageTable, identity: u64) -> Option<Self> {
        let PageTable { root, pages, levels, page_shift, .. } = *table;
        let valid = Iova(root).offset_in(12) == 0
            && root != 0
            && pages == 0
            && page_shift == PAGE_SHIFTS[0]
            && (1..=ODP_MAX_LEVELS).contains(&levels);
        valid.then_some(Self { root, identity, levels })
    }

    /// Where the device TLB has the pages that were used recently.
    pub(crate) fn space(&self) -> Space {
        Space::of_on_demand(self.identity)
    }

    /// Where the top table is.
    pub(crate) fn root(&self) -> Iova {
        Iova(self.root)
    }
}

impl Port<'_> {
    /// Where byte `offset` of what a table covers lies in memory, and how much of it in one piece; `None` in a
    /// hole, or where the page may not be written and shall be.
    pub(crate) fn on_demand_page(
        &mut self,
        table: &OnDemandTable,
        offset: u64,
        write: bool,
    ) -> Result<Option<Extent>, AccessError> {
        let space = table.space();
        if self.may_use_atc()
            && let Some(hit) = self.shard().atc.recent(space, offset).filter(|hit| hit.allows(write))
        {
            return Ok(Some(Extent::of(hit, Iova(offset))));
        }
        let start = offset & !0xfff;
        let Some(iova) = self.walk_on_demand(table, start, write)? else { return Ok(None) };
        let translated = self.translate(None, iova, write)?;
        let page = Translation { gpa: translated.gpa, page_shift: 12, read: true, write };
        if self.may_use_atc() {
            self.shard().atc.remember(space, start, page);
        }
        Ok(Some(Extent::of(page, Iova(offset))))
    }

    /// The address of the 4 KiB page at `offset`: one load for each level.
    fn walk_on_demand(
        &mut self,
        table: &OnDemandTable,
        offset: u64,
        write: bool,
    ) -> Result<Option<Iova>, AccessError> {
        let index = offset >> PAGE_SHIFTS[0];
        if index >> (TABLE_BITS * u32::from(table.levels)) != 0 {
            return Ok(None);
        }
        self.shard().stats.table_walks += 1;
        let broken = Err(AccessError::Denied(Cause::NotMemory));
        let mut at = table.root;
        for level in (0..u32::from(table.levels)).rev() {
            let entry = index >> (TABLE_BITS * level) & ((1 << TABLE_BITS) - 1);
            let word = self.load_u64(None, Iova(at + entry * 8))?;
            let address = word & !0xfff;
            if word & ODP_TABLE != 0 && level > 0 {
                at = address;
                continue;
            }
            if word & ODP_PRESENT == 0 && word & ODP_TABLE == 0 {
                return Ok(None);
            }
            let Some(&shift) = PAGE_SHIFTS.get(level as usize).filter(|_| word & ODP_TABLE == 0) else {
                return broken;
            };
            if Iova(address).offset_in(shift) != 0 {
                return broken;
            }
            let allowed = !write || word & ODP_WRITABLE != 0;
            return Ok(allowed.then_some(Iova(address + Iova(offset).offset_in(shift))));
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_table_is_refused() {
        let good = PageTable { root: 0x1000, pages: 0, levels: 1, page_shift: 12, reserved: 0 };
        assert!(OnDemandTable::check(&good, 0).is_some());
        assert!(OnDemandTable::check(&PageTable { levels: ODP_MAX_LEVELS, ..good }, 0).is_some());
        for bad in [
            PageTable { root: 0, ..good },
            PageTable { root: 0x1008, ..good },
            PageTable { levels: 0, ..good },
            PageTable { levels: ODP_MAX_LEVELS + 1, ..good },
            PageTable { pages: 1, ..good },
            PageTable { page_shift: 21, ..good },
        ] {
            assert_eq!(OnDemandTable::check(&bad, 0), None, "{bad:?}");
        }
    }
}
