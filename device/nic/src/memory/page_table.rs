//! Runs of pages named by tables in guest memory: rings, and regions of pinned pages.
//!
//! The device never copies a table: it walks it when it needs a page, through the DMA port, so a guest's
//! tables cost the device nothing, and a table that loops or points nowhere costs one bounded walk.

use refault_abi::command::PageTable;
use refault_bus::Iova;
use refault_bus::ats::Translation;

use crate::cause::Cause;
use crate::memory::access::{AccessError, Extent};
use crate::memory::port::Port;
use crate::memory::publish::publish;
use crate::memory::radix::{Step, Tree};
use crate::memory::recent::Space;

/// Most levels of tables.
const MAX_LEVELS: u8 = 3;

/// A checked [`PageTable`]. `identity` is never used again for another one, so that walked pages can be cached by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pages {
    /// Without levels, `root` is the first byte.
    tree: Tree,
    identity: u64,
    pages: u32,
    page_shift: u8,
}

impl Pages {
    /// Checks the table of a command; `None` if it is malformed.
    pub(crate) fn check(table: &PageTable, identity: u64) -> Option<Self> {
        let PageTable { root, pages, levels, page_shift, .. } = *table;
        if levels > MAX_LEVELS || !matches!(page_shift, 12 | 21) {
            return None;
        }
        let alignment = if levels == 0 { page_shift } else { 12 };
        let tree = Tree { root, levels };
        let reach = if levels == 0 { u64::MAX } else { 1 << tree.reach() };
        let bytes = u64::from(pages) << page_shift;
        let contiguous = levels > 0 || root.checked_add(bytes).is_some();
        let valid =
            Iova(root).offset_in(alignment) == 0 && pages > 0 && u64::from(pages) <= reach && contiguous;
        valid.then_some(Self { tree, identity, pages, page_shift })
    }

    /// The same tables, which name other pages from now on.
    pub(crate) const fn renewed(self, identity: u64) -> Self {
        Self { identity, ..self }
    }

    /// Where the device TLB has the pages that were used recently.
    pub(crate) fn space(&self) -> Space {
        Space::of_table(self.identity)
    }

    /// Bytes of all pages together.
    pub(crate) const fn bytes(&self) -> u64 {
        (self.pages as u64) << self.page_shift
    }
}

impl Port<'_> {
    /// Where byte `offset` of `pages` lies in memory, and how much of it lies there in one piece.
    #[inline]
    pub(crate) fn page(&mut self, pages: &Pages, offset: u64, write: bool) -> Result<Extent, AccessError> {
        if self.may_use_atc()
            && let Some(hit) = self.shard().atc.recent(pages.space(), offset).filter(|hit| hit.allows(write))
        {
            return Ok(Extent::of(hit, Iova(offset)));
        }
        self.walked_page(pages, offset, write)
    }

    /// The same for a page that was not used recently.
    #[inline(never)]
    fn walked_page(&mut self, pages: &Pages, offset: u64, write: bool) -> Result<Extent, AccessError> {
        let iova = self.walk(pages, offset & !0xfff)?;
        self.named_page(pages.space(), offset, iova, write)
    }

    /// The address of the 4 KiB page at `offset`.
    fn walk(&mut self, pages: &Pages, offset: u64) -> Result<Iova, AccessError> {
        if offset >= pages.bytes() {
            return Err(AccessError::Denied(Cause::Bounds));
        }
        if pages.tree.levels == 0 {
            return Ok(Iova(pages.tree.root + offset));
        }
        self.shard().stats.table_walks += 1;
        let index = offset >> pages.page_shift;
        let load = |at| self.load_u64(None, at);
        let page = pages.tree.walk(index, load, |word, level| match level {
            _ if word & 0xfff != 0 => Err(Cause::NotMemory),
            0 => Ok(Step::End(Iova(word))),
            _ => Ok(Step::Table(word)),
        })?;
        let inside = Iova(offset).offset_in(pages.page_shift);
        page.checked_add(inside).ok_or(AccessError::Denied(Cause::NotMemory))
    }

    /// The memory at byte `offset` of what a table covers, given the address `iova` of its 4 KiB page. The device TLB
    /// remembers it in `space`.
    pub(super) fn named_page(
        &mut self,
        space: Space,
        offset: u64,
        iova: Iova,
        write: bool,
    ) -> Result<Extent, AccessError> {
        let translated = self.translate(None, iova, write)?;
        let page = Translation { gpa: translated.gpa, page_shift: 12, read: true, write };
        if self.may_use_atc() {
            self.shard().atc.remember(space, offset & !0xfff, page);
        }
        Ok(Extent::of(page, Iova(offset)))
    }

    /// Fills `buffer` from `offset`; both must lie in one 4 KiB page.
    pub(crate) fn pages_read(
        &mut self,
        pages: &Pages,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), AccessError> {
        let extent = self.page(pages, offset, false)?.holding(buffer.len() as u64)?;
        Ok(self.fabric().memory.read(extent.gpa, buffer)?)
    }

    /// Writes `bytes` at `offset`, then publishes `word` right behind them; all in one 4 KiB page.
    #[inline]
    pub(crate) fn pages_publish(
        &mut self,
        pages: &Pages,
        offset: u64,
        bytes: &[u8],
        word: u32,
    ) -> Result<(), AccessError> {
        let extent = self.page(pages, offset, true)?.holding(bytes.len() as u64 + 4)?;
        let word_at = extent.after(bytes.len() as u64);
        Ok(publish(&*self.fabric().memory, extent.gpa, bytes, word_at, word)?)
    }

    /// Consumes a word that the driver published at `offset`.
    pub(crate) fn pages_load_u32(&mut self, pages: &Pages, offset: u64) -> Result<u32, AccessError> {
        let extent = self.page(pages, offset, false)?.holding(4)?;
        Ok(self.fabric().memory.load_u32(extent.gpa)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(root: u64, pages: u32, levels: u8, page_shift: u8) -> PageTable {
        PageTable { root, pages, levels, page_shift, reserved: 0 }
    }

    #[test]
    fn a_malformed_table_is_refused() {
        assert!(Pages::check(&table(0x1000, 1, 0, 12), 0).is_some());
        assert!(Pages::check(&table(0x1000, 512, 1, 21), 0).is_some());
        for bad in [
            table(0x1000, 1, 4, 12),
            table(0x1000, 1, 0, 21),
            table(0x1001, 1, 1, 12),
            table(0x1000, 0, 0, 12),
            table(0x1000, 513, 1, 12),
            table(0x1000, 1, 1, 13),
            table(0x1000, 1, 1, 255),
            table(0x1000, 1, 255, 12),
            table(!0xfff, 2, 0, 12),
        ] {
            assert_eq!(Pages::check(&bad, 0), None, "{bad:?}");
        }
    }
}
