//! Building, changing and reading a set of page tables.

use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::dma::Exchange;
use refault_bus::sync::lock;
use refault_bus::{Gpa, Iova};

use crate::memory::FRAME;
use crate::paging::{PageSize, PageTableEntry};
use crate::{GuestMemory, ModelError};

/// The rights of a page. Every page is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read-only.
    Read,
    /// Readable and writable.
    Write,
}

/// A mapped page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Guest-physical start of the page.
    pub gpa: Gpa,
    /// Size of the page.
    pub size: PageSize,
    /// The entry itself, with rights, accessed and dirty bits.
    pub entry: PageTableEntry,
}

impl Leaf {
    /// The 4 KiB page within it that contains `at`.
    pub const fn page_of(&self, at: Iova) -> Gpa {
        Gpa(self.gpa.0 + (at.offset_in(self.size.shift()) & !0xfff))
    }

    /// Whether writes are allowed.
    pub const fn writable(&self) -> bool {
        self.entry.has(PageTableEntry::W)
    }

    /// Whether a CPU or a device has written the page (D bit).
    pub const fn dirty(&self) -> bool {
        self.entry.has(PageTableEntry::D)
    }

    /// Whether a CPU or a device has used the page (A bit).
    pub const fn accessed(&self) -> bool {
        self.entry.has(PageTableEntry::A)
    }
}

/// Four levels of page tables. Devices may walk them, and set accessed and dirty bits, during any method: entries
/// change by single compare-and-exchange operations, so no such bit is lost. No TLB is flushed; callers do that, as in
/// a kernel.
///
/// Dropping it frees the tables, but not the mapped pages, which belong to the caller.
pub struct PageTables {
    memory: Arc<GuestMemory>,
    root: Gpa,
    /// All tables but the root. Its lock is the page-table lock, held by every change.
    tables: Mutex<Vec<Gpa>>,
}

/// An entry as it was read, with its address and the level of its table.
#[derive(Clone, Copy)]
struct EntrySlot {
    at: Gpa,
    level: u8,
    entry: PageTableEntry,
}

impl PageTables {
    /// Allocates an empty root table.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`].
    pub fn new(memory: Arc<GuestMemory>) -> Result<Self, ModelError> {
        let root = memory.frame()?;
        Ok(Self { memory, root, tables: Mutex::default() })
    }

    /// The root table, to which CR3 or a PASID entry points.
    pub const fn root(&self) -> Gpa {
        self.root
    }

    /// Maps one page.
    ///
    /// # Errors
    ///
    /// [`ModelError::Misaligned`] if an address is not a multiple of the page size; [`ModelError::Mapped`] if a page or
    /// table is in its place; [`ModelError::OutOfMemory`] if a table cannot be allocated.
    pub fn map(&self, iova: Iova, gpa: Gpa, size: PageSize, rights: Rights) -> Result<(), ModelError> {
        for value in [iova.0, gpa.0] {
            if !value.is_multiple_of(size.bytes()) {
                return Err(ModelError::Misaligned { value, align: size.bytes() });
            }
        }
        let mut tables = self.lock();
        let slot = self.reach(&mut tables, iova, size.level())?;
        if slot.entry.has(PageTableEntry::P) {
            return Err(ModelError::Mapped { iova });
        }
        let entry = PageTableEntry::leaf(gpa, size, rights == Rights::Write);
        Ok(self.memory.dma().store_u64(slot.at, entry.0)?)
    }

    /// Unmaps the page around `iova`, of any size. Returns it with its final accessed and dirty bits.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if there is no page.
    pub fn unmap(&self, iova: Iova) -> Result<Leaf, ModelError> {
        self.update_leaf(iova, |_| PageTableEntry::default())
    }

    /// Changes the rights of the page around `iova`. Returns the page as it was before.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if there is no page.
    pub fn protect(&self, iova: Iova, rights: Rights) -> Result<Leaf, ModelError> {
        self.update_leaf(iova, |entry| match rights {
            Rights::Read => PageTableEntry(entry.0 & !PageTableEntry::W),
            Rights::Write => PageTableEntry(entry.0 | PageTableEntry::W),
        })
    }

    /// Clears the accessed and dirty bits of the page around `iova`. Returns the page as it was before.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if there is no page.
    pub fn clean(&self, iova: Iova) -> Result<Leaf, ModelError> {
        self.update_leaf(iova, |entry| PageTableEntry(entry.0 & !(PageTableEntry::A | PageTableEntry::D)))
    }

    /// Splits the large page around `iova` into 512 pages of the next smaller size, with the same flags.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if there is no page larger than 4 KiB; [`ModelError::OutOfMemory`].
    pub fn split(&self, iova: Iova) -> Result<(), ModelError> {
        let mut tables = self.lock();
        loop {
            let slot = self.leaf_slot(iova)?.ok_or(ModelError::NotMapped { iova })?;
            let size = PageSize::of_level(slot.level).and_then(PageSize::smaller);
            let size = size.ok_or(ModelError::NotMapped { iova })?;
            let table = self.memory.frame()?;
            let page_size = if size == PageSize::Small { 0 } else { PageTableEntry::PS };
            let flags = slot.entry.0 & !slot.entry.address().0 & !PageTableEntry::PS | page_size;
            for index in 0..512 {
                let page = slot.entry.address().0 + index * size.bytes();
                self.memory.dma().store_u64(Gpa(table.0 + index * 8), page | flags)?;
            }
            // Fails if a device set a bit in the entry since it was read: the new entries would lack it.
            if self.replace(slot, PageTableEntry::table(table))? {
                tables.push(table);
                return Ok(());
            }
            self.memory.free(table, FRAME)?;
        }
    }

    /// Unlinks the empty table of 4 KiB pages around `iova`, so that a large page can be mapped in its place. The
    /// caller frees the table, after a flush.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if there is no such table; [`ModelError::Mapped`] if it is not empty.
    pub fn unlink_empty_table(&self, iova: Iova) -> Result<Gpa, ModelError> {
        let mut tables = self.lock();
        let slot = self.slot(iova, 2)?.filter(|slot| slot.level == 2 && !slot.entry.is_leaf(2));
        let slot =
            slot.filter(|slot| slot.entry.has(PageTableEntry::P)).ok_or(ModelError::NotMapped { iova })?;
        let table = slot.entry.address();
        for index in 0..512 {
            if self.memory.dma().load_u64(Gpa(table.0 + index * 8))? & PageTableEntry::P != 0 {
                return Err(ModelError::Mapped { iova });
            }
        }
        self.memory.dma().store_u64(slot.at, 0)?;
        tables.retain(|&known| known != table);
        Ok(table)
    }

    /// Returns the page around `iova`, or `None` if none is mapped.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`] if an entry points outside memory.
    pub fn lookup(&self, iova: Iova) -> Result<Option<Leaf>, ModelError> {
        Ok(self.leaf_slot(iova)?.map(leaf_of))
    }

    /// Writes a raw entry of `level` (1 to 4) for `iova`, and allocates the tables above it. For tests with entries
    /// that no kernel writes.
    ///
    /// # Errors
    ///
    /// [`ModelError::Mapped`] if a larger page is in its place; [`ModelError::OutOfMemory`].
    pub fn set_raw(&self, iova: Iova, level: u8, entry: PageTableEntry) -> Result<(), ModelError> {
        let mut tables = self.lock();
        let slot = self.reach(&mut tables, iova, level)?;
        Ok(self.memory.dma().store_u64(slot.at, entry.0)?)
    }

    /// Replaces the leaf around `iova` by `change` of it, retrying if a device sets a bit meanwhile. Returns the old
    /// leaf.
    fn update_leaf(
        &self,
        iova: Iova,
        change: impl Fn(PageTableEntry) -> PageTableEntry,
    ) -> Result<Leaf, ModelError> {
        let _held = self.lock();
        loop {
            let slot = self.leaf_slot(iova)?.ok_or(ModelError::NotMapped { iova })?;
            if self.replace(slot, change(slot.entry))? {
                return Ok(leaf_of(slot));
            }
        }
    }

    /// Replaces the entry by `entry` and returns `true`, unless a device has changed it since it was read.
    fn replace(&self, slot: EntrySlot, entry: PageTableEntry) -> Result<bool, ModelError> {
        let exchange = self.memory.dma().compare_exchange_u64(slot.at, slot.entry.0, entry.0)?;
        Ok(exchange == Exchange::Stored)
    }

    /// The present leaf around `iova`.
    fn leaf_slot(&self, iova: Iova) -> Result<Option<EntrySlot>, ModelError> {
        Ok(self
            .slot(iova, 1)?
            .filter(|slot| slot.entry.has(PageTableEntry::P) && slot.entry.is_leaf(slot.level)))
    }

    /// The entry for `iova` at `level`, or a leaf above it; `None` if a table is missing.
    fn slot(&self, iova: Iova, level: u8) -> Result<Option<EntrySlot>, ModelError> {
        let mut table = self.root;
        for at_level in (level..=4).rev() {
            let slot = self.read_slot(table, iova, at_level)?;
            if at_level == level || (slot.entry.has(PageTableEntry::P) && slot.entry.is_leaf(at_level)) {
                return Ok(Some(slot));
            }
            if !slot.entry.has(PageTableEntry::P) {
                return Ok(None);
            }
            table = slot.entry.address();
        }
        Ok(None)
    }

    /// The entry for `iova` at `level`. Allocates missing tables; [`ModelError::Mapped`] if a larger page is in the
    /// way.
    fn reach(&self, tables: &mut Vec<Gpa>, iova: Iova, level: u8) -> Result<EntrySlot, ModelError> {
        let mut table = self.root;
        for at_level in (level + 1..=4).rev() {
            let slot = self.read_slot(table, iova, at_level)?;
            if slot.entry.has(PageTableEntry::P) && slot.entry.is_leaf(at_level) {
                return Err(ModelError::Mapped { iova });
            }
            table = if slot.entry.has(PageTableEntry::P) {
                slot.entry.address()
            } else {
                let new = self.memory.frame()?;
                tables.push(new);
                self.memory.dma().store_u64(slot.at, PageTableEntry::table(new).0)?;
                new
            };
        }
        self.read_slot(table, iova, level)
    }

    fn read_slot(&self, table: Gpa, iova: Iova, level: u8) -> Result<EntrySlot, ModelError> {
        let index = (iova.0 >> (12 + 9 * (u32::from(level) - 1))) & 0x1ff;
        let at = Gpa(table.0 + index * 8);
        Ok(EntrySlot { at, level, entry: PageTableEntry(self.memory.dma().load_u64(at)?) })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Gpa>> {
        lock(&self.tables)
    }
}

impl Drop for PageTables {
    fn drop(&mut self) {
        let tables = std::mem::take(&mut *self.lock());
        for table in tables.into_iter().chain([self.root]) {
            let freed = self.memory.free(table, FRAME);
            debug_assert!(freed.is_ok(), "{freed:?}");
        }
    }
}

fn leaf_of(slot: EntrySlot) -> Leaf {
    let size = PageSize::of_level(slot.level).unwrap_or(PageSize::Small);
    Leaf { gpa: slot.entry.address().align_down(size.shift()), size, entry: slot.entry }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::memory;

    fn space() -> PageTables {
        PageTables::new(memory(0x100_0000)).unwrap()
    }

    #[test]
    fn pages_of_every_size_are_found_again() {
        let space = space();
        for (iova, gpa, size) in [
            (0x7000_0000_1000, 0x5000, PageSize::Small),
            (0x7000_0020_0000, 0x40_0000, PageSize::Large),
            (0x7000_4000_0000, 0x1_4000_0000, PageSize::Huge),
        ] {
            space.map(Iova(iova), Gpa(gpa), size, Rights::Write).unwrap();
            let leaf = space.lookup(Iova(iova + 0x123)).unwrap().unwrap();
            assert_eq!((leaf.gpa, leaf.size, leaf.writable()), (Gpa(gpa), size, true));
            assert!(matches!(
                space.map(Iova(iova), Gpa(gpa), size, Rights::Read),
                Err(ModelError::Mapped { .. })
            ));
        }
        assert_eq!(space.lookup(Iova(0x7000_0000_2000)), Ok(None));
    }

    #[test]
    fn a_split_page_keeps_address_rights_and_dirty_bit() {
        let space = space();
        space.map(Iova(0x20_0000), Gpa(0x60_0000), PageSize::Large, Rights::Write).unwrap();
        space.set_raw(Iova(0x20_0000), 2, PageTableEntry(0x60_0000 | 0xe7)).unwrap();
        space.split(Iova(0x20_0000)).unwrap();
        let leaf = space.lookup(Iova(0x20_0000 + 37 * FRAME)).unwrap().unwrap();
        assert_eq!((leaf.gpa, leaf.size), (Gpa(0x60_0000 + 37 * FRAME), PageSize::Small));
        assert!(leaf.writable() && leaf.dirty() && leaf.accessed());
        assert!(matches!(space.split(Iova(0x20_0000)), Err(ModelError::NotMapped { .. })));
    }

    #[test]
    fn a_huge_page_splits_twice() {
        let space = space();
        space.map(Iova(1 << 30), Gpa(1 << 30), PageSize::Huge, Rights::Read).unwrap();
        space.split(Iova(0x4020_0000)).unwrap();
        space.split(Iova(0x4020_0000)).unwrap();
        let leaf = space.lookup(Iova(0x4020_3000)).unwrap().unwrap();
        assert_eq!((leaf.gpa, leaf.size, leaf.writable()), (Gpa(0x4020_3000), PageSize::Small, false));
        assert_eq!(space.lookup(Iova(0x4040_0000)).unwrap().unwrap().size, PageSize::Large);
    }

    #[test]
    fn unmap_protect_and_clean_return_the_old_page() {
        let space = space();
        space.map(Iova(0x1000), Gpa(0x9000), PageSize::Small, Rights::Write).unwrap();
        assert!(space.protect(Iova(0x1000), Rights::Read).unwrap().writable());
        assert!(!space.protect(Iova(0x1000), Rights::Write).unwrap().writable());
        let dirty = PageTableEntry::leaf(Gpa(0x9000), PageSize::Small, true).0
            | PageTableEntry::A
            | PageTableEntry::D;
        space.set_raw(Iova(0x1000), 1, PageTableEntry(dirty)).unwrap();
        assert!(space.clean(Iova(0x1000)).unwrap().dirty());
        assert!(!space.unmap(Iova(0x1000)).unwrap().dirty());
        assert!(matches!(space.unmap(Iova(0x1000)), Err(ModelError::NotMapped { .. })));
    }

    #[test]
    fn a_large_page_takes_the_place_of_an_empty_table() {
        let space = space();
        space.map(Iova(0x20_1000), Gpa(0x9000), PageSize::Small, Rights::Read).unwrap();
        assert!(space.unlink_empty_table(Iova(0x20_0000)).is_err());
        space.unmap(Iova(0x20_1000)).unwrap();
        let table = space.unlink_empty_table(Iova(0x20_0000)).unwrap();
        space.map(Iova(0x20_0000), Gpa(0x60_0000), PageSize::Large, Rights::Read).unwrap();
        space.memory.free(table, FRAME).unwrap();
        assert_eq!(space.lookup(Iova(0x20_1000)).unwrap().unwrap().size, PageSize::Large);
    }

    #[test]
    fn dropping_page_tables_frees_the_tables() {
        let memory = memory(0x100_0000);
        let before = memory.free_bytes();
        let space = PageTables::new(memory.clone()).unwrap();
        space.map(Iova(0x7fff_ffff_f000), Gpa(0x9000), PageSize::Small, Rights::Read).unwrap();
        assert_eq!(memory.free_bytes(), before - 4 * FRAME);
        drop(space);
        assert_eq!(memory.free_bytes(), before);
    }
}
