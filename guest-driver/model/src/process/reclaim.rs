//! What the kernel does to a process' memory: unmap, move, swap out, write-protect - always tables first, then the
//! flush, and only then may the page be reused.

use std::sync::Arc;

use refault_bus::{Gpa, Iova};

use crate::ModelError;
use crate::memory::FRAME_LEN;
use crate::paging::{Leaf, PageSize, Rights};
use crate::process::{Area, Pager, Process, Users};

impl Process {
    /// Unmaps the page around `iova` and flushes. The caller owns the page now.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if there is no page; any error of [`Self::flush`].
    pub fn take_page(&self, iova: Iova) -> Result<Leaf, ModelError> {
        let _map = self.lock();
        let leaf = self.space.unmap(iova)?;
        self.flush(iova.align_down(leaf.size.shift()), leaf.size.bytes())?;
        Ok(leaf)
    }

    /// Unmaps all pages in the `bytes` at `start` with a single flush. The caller owns the pages now.
    ///
    /// # Errors
    ///
    /// Any error of [`Self::flush`].
    pub fn take_range(&self, start: Iova, bytes: u64) -> Result<Vec<Leaf>, ModelError> {
        let _map = self.lock();
        let first = start.align_down(PageSize::Small.shift());
        let taken = self.unmap_leaves(first, start.0 + bytes - first.0)?;
        if let (Some(&(from, leaf)), Some(&(to, last))) = (taken.first(), taken.last()) {
            let from = Iova(from).align_down(leaf.size.shift());
            let end = Iova(to).align_down(last.size.shift()).0 + last.size.bytes();
            self.flush(from, end - from.0)?;
        }
        Ok(taken.into_iter().map(|(_, leaf)| leaf).collect())
    }

    /// Migrates the page around `iova` to another frame, and returns the old frame, which the caller owns now. The page
    /// is not mapped while it is copied.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if there is no page; [`ModelError::OutOfMemory`]; any error of [`Self::flush`].
    pub fn move_page(&self, iova: Iova) -> Result<Gpa, ModelError> {
        let _map = self.lock();
        let leaf = self.space.unmap(iova)?;
        let (start, bytes) = (iova.align_down(leaf.size.shift()), leaf.size.bytes());
        self.flush(start, bytes)?;
        let new = self.memory.allocate(bytes, leaf.size.shift())?;
        self.memory.dma().copy(leaf.gpa, new, bytes)?;
        let rights = if leaf.writable() { Rights::Write } else { Rights::Read };
        self.space.map(start, new, leaf.size, rights)?;
        Ok(leaf.gpa)
    }

    /// Swaps out the page around `iova`: the next fault restores its contents in another frame. The caller owns the
    /// page now.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if there is no page; any error of [`Self::flush`].
    pub fn swap_out(&self, iova: Iova) -> Result<Leaf, ModelError> {
        let mut map = self.lock();
        let leaf = self.space.unmap(iova)?;
        let start = iova.align_down(leaf.size.shift());
        self.flush(start, leaf.size.bytes())?;
        map.swapped.insert(start.0, self.memory.bytes(leaf.gpa, 1 << leaf.size.shift())?);
        Ok(leaf)
    }

    /// Write-protects the page around `iova` and flushes, as fsync(2) does. Returns the page as it was before.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotMapped`] if there is no page; any error of [`Self::flush`].
    pub fn write_protect(&self, iova: Iova) -> Result<Leaf, ModelError> {
        let _map = self.lock();
        let leaf = self.space.protect(iova, Rights::Read)?;
        self.flush(iova.align_down(leaf.size.shift()), leaf.size.bytes())?;
        Ok(leaf)
    }

    /// munmap(2): removes the areas that lie within the `bytes` at `start`, and frees their anonymous pages.
    ///
    /// # Errors
    ///
    /// Any error of a pager or of [`Self::flush`].
    pub fn unmap_area(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let end = start.0 + bytes;
        let inside = |area: &Area| area.start >= start.0 && area.end <= end;
        let pagers = self.pagers(inside);
        // A pager takes its own lock, which is ordered before the map's.
        pagers.iter().try_for_each(|(pager, _, _)| pager.unmapped())?;
        let mut map = self.lock();
        map.areas.retain(|area| !inside(area));
        map.swapped.retain(|&page, _| page < start.0 || page >= end);
        let taken = self.unmap_leaves(start, bytes)?;
        self.flush(start, bytes)?;
        let of_pager = |at: u64| pagers.iter().any(|&(_, from, to)| (from..to).contains(&at));
        let own = taken.iter().filter(|(at, _)| !of_pager(*at));
        own.map(|(_, leaf)| leaf).try_for_each(|leaf| self.memory.free(leaf.gpa, leaf.size.bytes()))
    }

    /// Unmaps all pages in the `bytes` at `start` and flushes. For pagers, which keep owning the pages. Takes no lock
    /// of the memory map.
    ///
    /// # Errors
    ///
    /// Any error of [`Self::flush`].
    pub fn zap(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        match self.unmap_leaves(start, bytes)?.is_empty() {
            true => Ok(()),
            false => self.flush(start, bytes),
        }
    }

    /// Write-protects all pages in the `bytes` at `start` and flushes. For pagers, as [`Self::zap`].
    ///
    /// # Errors
    ///
    /// Any error of [`Self::flush`].
    pub fn zap_writes(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let mut changed = false;
        for at in (start.0..start.0 + bytes).step_by(FRAME_LEN) {
            if self.space.lookup(Iova(at))?.is_some_and(|leaf| leaf.writable()) {
                self.space.protect(Iova(at), Rights::Read)?;
                changed = true;
            }
        }
        if changed { self.flush(start, bytes) } else { Ok(()) }
    }

    /// Unmaps all pages in the `bytes` at `start`. Returns each with an address in it.
    fn unmap_leaves(&self, start: Iova, bytes: u64) -> Result<Vec<(u64, Leaf)>, ModelError> {
        let mut taken = Vec::new();
        let mut at = start.0;
        while at < start.0 + bytes {
            at = match self.space.unmap(Iova(at)) {
                Ok(leaf) => {
                    taken.push((at, leaf));
                    Iova(at).align_down(leaf.size.shift()).0 + leaf.size.bytes()
                }
                Err(ModelError::NotMapped { .. }) => at + PageSize::Small.bytes(),
                Err(error) => return Err(error),
            };
        }
        Ok(taken)
    }

    /// The pagers of the areas that `which` selects, with start and end of the area.
    fn pagers(&self, which: impl Fn(&Area) -> bool) -> Vec<(Arc<dyn Pager>, u64, u64)> {
        let map = self.lock();
        let chosen = map.areas.iter().filter(|area| which(area));
        chosen.filter_map(|area| Some((area.pager.clone()?, area.start, area.end))).collect()
    }

    /// Removes all areas and frees their pages, as exit(2) does.
    ///
    /// # Errors
    ///
    /// As [`Self::unmap_area`].
    pub fn unmap_everything(&self) -> Result<(), ModelError> {
        let areas = self.lock().areas.clone();
        areas.iter().try_for_each(|area| self.unmap_area(Iova(area.start), area.end - area.start))
    }

    /// Flushes the `bytes` at `start` from the IOTLB and device TLB of every function that is bound to the process, and
    /// calls the notifiers. When it returns, no access through removed translations is in flight.
    ///
    /// # Errors
    ///
    /// As [`Function::flush`](crate::vtd::Function::flush) and
    /// [`Notifier::invalidate`](crate::process::Notifier::invalidate).
    pub fn flush(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let Users { bindings, notifiers } = self.users().clone();
        let last = Iova(start.0 + (bytes - 1));
        bindings.iter().try_for_each(|(function, pasid)| function.flush(*pasid, start, last))?;
        notifiers.iter().try_for_each(|notifier| notifier.invalidate(start, bytes))
    }
}
