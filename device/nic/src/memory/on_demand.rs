//! On-demand regions: a table of the region's own, with holes.
//!
//! Like every table it lies in the driver's memory and is walked when a page is needed. Unlike others it changes while
//! the region lives: what was read from it is cached until the driver invalidates it (CMD_INVALIDATE_MR), and holes are
//! never cached.

use refault_abi::command::{ODP_MAX_LEVELS, ODP_PRESENT, ODP_TABLE, ODP_WRITABLE, PageTable};
use refault_bus::Iova;

use crate::cause::Cause;
use crate::memory::access::{AccessError, Extent};
use crate::memory::port::Port;
use crate::memory::radix::{Step, Tree};
use crate::memory::recent::Space;

/// log2 of the size of a page that a word of the last level, or of the one before, names.
const PAGE_SHIFTS: [u8; 2] = [12, 21];

/// A checked table. `identity` is never used again for another one, so that walked pages can be cached by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OnDemandTable {
    tree: Tree,
    identity: u64,
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
        valid.then_some(Self { tree: Tree { root, levels }, identity })
    }

    /// Where the device TLB has the pages that were used recently.
    pub(crate) fn space(&self) -> Space {
        Space::of_on_demand(self.identity)
    }

    /// Where the top table is.
    pub(crate) fn root(&self) -> Iova {
        Iova(self.tree.root)
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
        let Some(iova) = self.walk_on_demand(table, offset & !0xfff, write)? else { return Ok(None) };
        self.named_page(space, offset, iova, write).map(Some)
    }

    /// The address of the 4 KiB page at `offset`; `None` as for [`Self::on_demand_page`].
    fn walk_on_demand(
        &mut self,
        table: &OnDemandTable,
        offset: u64,
        write: bool,
    ) -> Result<Option<Iova>, AccessError> {
        let index = offset >> PAGE_SHIFTS[0];
        if index >> table.tree.reach() != 0 {
            return Ok(None);
        }
        self.shard().stats.table_walks += 1;
        let load = |at| self.load_u64(None, at);
        table.tree.walk(index, load, |word, level| read_word(word, level, offset, write))
    }
}

/// What a word leads to on the way to the 4 KiB page at `offset`, with `level` levels below the word's own.
fn read_word(word: u64, level: u8, offset: u64, write: bool) -> Result<Step<Option<Iova>>, Cause> {
    let address = word & !0xfff;
    if word & ODP_TABLE != 0 {
        return Ok(Step::Table(address));
    }
    if word & ODP_PRESENT == 0 {
        return Ok(Step::End(None));
    }
    let shift = *PAGE_SHIFTS.get(usize::from(level)).ok_or(Cause::NotMemory)?;
    if Iova(address).offset_in(shift) != 0 {
        return Err(Cause::NotMemory);
    }
    let allowed = !write || word & ODP_WRITABLE != 0;
    Ok(Step::End(allowed.then_some(Iova(address + Iova(offset).offset_in(shift)))))
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
