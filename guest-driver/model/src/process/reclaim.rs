//! What the kernel does to a process' memory: unmap, move, swap out, write-protect - always tables first, then the flush,
//! and only then may the page be reused.

use std::sync::Arc;

use refault_bus::{Gpa, Iova};

use crate::ModelError;
use crate::paging::{Leaf, PageSize, Rights};
use crate::process::{Area, Pager, Process, Users};

impl Process {
    /// Takes the page around `iova` away and flushes it. The page is the caller's now.
    pub fn take_page(&self, iova: Iova) -> Result<Leaf, ModelError> {
        let _map = self.lock();
        let leaf = self.space.unmap(iova)?;
        self.flush(iova.align_down(leaf.size.shift()), leaf.size.bytes())?;
        Ok(leaf)
    }

    /// Takes the pages that are present in `start..start + bytes` away, flushing once. They are the caller's now.
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

    /// Moves the page around `iova` to another frame, its contents with it, and gives the old frame, which is
    /// the caller's now. Between the two the page is nowhere.
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

    /// Takes the page around `iova` away and keeps its contents, to be found in another frame at the next
    /// fault; gives the old frame, which is the caller's now.
    pub fn swap_out(&self, iova: Iova) -> Result<Leaf, ModelError> {
        let mut map = self.lock();
        let leaf = self.space.unmap(iova)?;
        let start = iova.align_down(leaf.size.shift());
        self.flush(start, leaf.size.bytes())?;
        map.swapped.insert(start.0, self.memory.bytes(leaf.gpa, leaf.size.bytes() as usize)?);
        Ok(leaf)
    }

    /// Write-protects the page around `iova` and flushes it, as fsync does; what it was.
    pub fn write_protect(&self, iova: Iova) -> Result<Leaf, ModelError> {
        let _map = self.lock();
        let leaf = self.space.protect(iova, Rights::Read)?;
        self.flush(iova.align_down(leaf.size.shift()), leaf.size.bytes())?;
        Ok(leaf)
    }

    /// Removes the areas inside `start..start + bytes`, their pages with them. Pages of a pager stay its own.
    pub fn unmap_area(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let end = start.0 + bytes;
        let inside = |area: &Area| area.start >= start.0 && area.end <= end;
        let pagers = self.pagers(inside);
        // A pager takes its own locks, which are taken before the map's.
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

    /// Takes the pages that are present in `start..start + bytes` out of the tables, and flushes. They stay whose they
    /// are: this is what a pager does with its own.
    pub fn zap(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        match self.unmap_leaves(start, bytes)?.is_empty() {
            true => Ok(()),
            false => self.flush(start, bytes),
        }
    }

    /// Takes the right to write from the pages that are present in `start..start + bytes`, and flushes.
    pub fn zap_writes(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let mut changed = false;
        for at in (start.0..start.0 + bytes).step_by(PageSize::Small.bytes() as usize) {
            if self.space.lookup(Iova(at))?.is_some_and(|leaf| leaf.writable()) {
                self.space.protect(Iova(at), Rights::Read)?;
                changed = true;
            }
        }
        if changed { self.flush(start, bytes) } else { Ok(()) }
    }

    /// Takes out every leaf from `start` on, for `bytes`; where each was found.
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

    /// Pagers of the areas that `which` chooses, with their ranges.
    fn pagers(&self, which: impl Fn(&Area) -> bool) -> Vec<(Arc<dyn Pager>, u64, u64)> {
        let map = self.lock();
        let chosen = map.areas.iter().filter(|area| which(area));
        chosen.filter_map(|area| Some((area.pager.clone()?, area.start, area.end))).collect()
    }

    /// What exit does with memory: every area goes, and every page goes back.
    pub fn unmap_everything(&self) -> Result<(), ModelError> {
        let areas = self.lock().areas.clone();
        areas.iter().try_for_each(|area| self.unmap_area(Iova(area.start), area.end - area.start))
    }

    /// Flushes `bytes` at `start` in every function that the process is bound to, and tells the notifiers.
    pub fn flush(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let Users { bindings, notifiers } = self.users().clone();
        let last = Iova(start.0 + (bytes - 1));
        bindings.iter().try_for_each(|(function, pasid)| function.flush(*pasid, start, last))?;
        notifiers.iter().try_for_each(|notifier| notifier.invalidate(start, bytes))
    }
}
