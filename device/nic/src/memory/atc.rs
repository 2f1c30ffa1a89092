//! The device TLB (ATC) of one worker: the tagged [`Tlb`], and before it the pages that were used recently.

use refault_bus::ats::{InvalidationRequest, Translation};
use refault_bus::tlb::Tlb;
use refault_bus::{Iova, Pasid};

use crate::memory::recent::{Kind, Recent, RecentWalk, Space};

/// The device TLB of one worker.
pub(crate) struct Atc {
    tlb: Tlb<Option<Pasid>>,
    recent: Recent,
}

impl Atc {
    /// An empty cache of at most `entries` translations.
    pub(crate) fn new(entries: usize) -> Self {
        Self { tlb: Tlb::new(entries), recent: Recent::new() }
    }

    /// A recently used page.
    #[inline]
    pub(crate) fn recent(&self, space: Space, at: u64) -> Option<Translation> {
        self.recent.find(space, at)
    }

    /// A walk over recently used pages, from `at` on.
    pub(crate) fn walk(&self, space: Space, at: u64, write: bool) -> RecentWalk<'_> {
        self.recent.walk(space, at, write)
    }

    /// Notes a page for [`Self::recent`].
    pub(crate) fn remember(&mut self, space: Space, at: u64, translation: Translation) {
        self.recent.remember(space, at, translation);
    }

    /// Forgets the recently used blocks of `space` that overlap the bytes from `first` to `last`.
    pub(crate) fn forget(&mut self, space: Space, first: u64, last: u64) {
        self.recent.forget(space, first, last);
    }

    /// A translation that allows the access: one that is cached, or the one that `ask` gets, which is cached then.
    ///
    /// The cache stays borrowed, and so the guard held, from the question on. A flush waits until the answer is in, and
    /// finds it.
    ///
    /// # Errors
    ///
    /// That of `ask`: nothing is cached.
    #[inline]
    pub(crate) fn translate<E>(
        &mut self,
        pasid: Option<Pasid>,
        iova: Iova,
        write: bool,
        ask: impl FnOnce() -> Result<Translation, E>,
    ) -> Result<Translation, E> {
        let space = Space::of(pasid);
        if let Some(hit) = self.recent(space, iova.0).filter(|hit| hit.allows(write)) {
            return Ok(hit);
        }
        let translation = match self.tlb.lookup(pasid, iova).filter(|hit| hit.allows(write)) {
            Some(hit) => hit,
            None => {
                let answer = ask()?;
                self.tlb.insert(pasid, iova, answer);
                answer
            }
        };
        self.remember(space, iova.0, translation);
        Ok(translation)
    }

    /// Forgets what `request` names. Without a PASID, "everything" means the process spaces too.
    pub(crate) fn invalidate(&mut self, request: &InvalidationRequest) {
        let &InvalidationRequest { pasid, iova, size_shift } = request;
        match (pasid, request.everything()) {
            (None, true) => self.flush(),
            (None, false) => {
                self.tlb.flush_range(None, iova, size_shift);
                self.recent.empty(Kind::Own);
            }
            (Some(_), true) => {
                self.tlb.flush_tag(pasid);
                self.forget(Space::of(pasid), 0, u64::MAX);
            }
            (Some(_), false) => {
                self.tlb.flush_range(pasid, iova, size_shift);
                let first = iova.align_down(size_shift).0;
                self.forget(Space::of(pasid), first, first | ((1 << size_shift) - 1));
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn flush(&mut self) {
        self.tlb.flush_all();
        self.recent.empty(Kind::Own);
        self.recent.empty(Kind::Processes);
    }
}

#[cfg(test)]
mod tests {
    use refault_bus::Gpa;

    use super::*;

    fn page(gpa: u64) -> Translation {
        Translation { gpa: Gpa(gpa), page_shift: 12, read: true, write: true }
    }

    fn filled() -> Atc {
        let mut atc = Atc::new(8);
        for pasid in [None, Pasid::new(1), Pasid::new(2)] {
            atc.tlb.insert(pasid, Iova(0x1000), page(0x5000));
            atc.remember(Space::of(pasid), 0x1000, page(0x5000));
        }
        atc.remember(Space::of_table(7), 0x1000, page(0x6000));
        atc
    }

    #[test]
    fn invalidating_a_page_of_a_process_keeps_the_function_s_own_space() {
        let mut atc = filled();
        atc.invalidate(&InvalidationRequest { pasid: Pasid::new(1), iova: Iova(0x1000), size_shift: 12 });
        assert_eq!(atc.tlb.lookup(Pasid::new(1), Iova(0x1000)), None);
        assert_eq!(atc.recent(Space::of(Pasid::new(1)), 0x1000), None);
        assert!(atc.tlb.lookup(Pasid::new(2), Iova(0x1000)).is_some());
        assert!(atc.recent(Space::of(None), 0x1000).is_some());
        assert!(atc.recent(Space::of_table(7), 0x1fff).is_some());
    }

    #[test]
    fn invalidating_the_function_s_own_page_forgets_walked_tables() {
        let mut atc = filled();
        atc.invalidate(&InvalidationRequest { pasid: None, iova: Iova(0x9000), size_shift: 12 });
        assert_eq!(atc.recent(Space::of_table(7), 0x1000), None);
        assert!(atc.recent(Space::of(Pasid::new(1)), 0x1000).is_some());
    }

    /// Two pages and two parts of a 2 MiB block of two processes each.
    fn two_processes() -> (Atc, [u64; 4]) {
        let mut atc = Atc::new(64);
        let pages = [0x1000, 0x2000, 0x40_3000, 0x5f_f000];
        let spaces = [Pasid::new(1), Pasid::new(2)];
        for (pasid, at) in spaces.into_iter().flat_map(|pasid| pages.map(|at| (pasid, at))) {
            let large = Translation { page_shift: 21, ..page(0x80_0000) };
            let block = if at < 0x40_0000 { page(at + 0x10_0000) } else { large };
            atc.tlb.insert(pasid, Iova(at), block);
            atc.remember(Space::of(pasid), at, block);
        }
        (atc, pages)
    }

    #[test]
    fn an_invalidation_for_a_process_forgets_what_it_covers_and_nothing_else() {
        // Which of the pages stay.
        for (iova, size_shift, stay) in [
            (0x1000, 12, [false, true, true, true]),
            (0x3000, 12, [true, true, true, true]),
            (0x0, 14, [false, false, true, true]),
            // One page of a large block takes the block, whichever of its parts were used.
            (0x40_0000, 12, [true, true, false, false]),
            (0x40_0000, 21, [true, true, false, false]),
            (0x0, 21, [false, false, true, true]),
            (0x0, 39, [false; 4]),
            (0x8000_0000, 31, [true; 4]),
            (0x0, 64, [false; 4]),
        ] {
            let (mut atc, pages) = two_processes();
            atc.invalidate(&InvalidationRequest { pasid: Pasid::new(1), iova: Iova(iova), size_shift });
            for (at, stays) in pages.into_iter().zip(stay) {
                let found = |pasid| {
                    let recent = atc.recent(Space::of(pasid), at).is_some();
                    assert_eq!(atc.tlb.lookup(pasid, Iova(at)).is_some(), recent);
                    recent
                };
                assert_eq!(found(Pasid::new(1)), stays, "{at:#x} after {iova:#x}, {size_shift}");
                assert!(found(Pasid::new(2)), "{at:#x} of the other process after {iova:#x}, {size_shift}");
            }
        }
    }

    #[test]
    fn what_an_on_demand_table_said_is_forgotten_page_by_page() {
        let (space, other) = (Space::of_on_demand(1), Space::of_on_demand(2));
        for (last, neighbour_stays) in [(0x1fff, true), (u64::MAX, false)] {
            let mut atc = filled();
            for space in [space, other] {
                atc.remember(space, 0x1000, page(0x6000));
                atc.remember(space, 0x10_0000, page(0x7000));
            }
            atc.forget(space, 0x1000, last);
            assert_eq!(atc.recent(space, 0x1000), None);
            assert_eq!(atc.recent(space, 0x10_0000).is_some(), neighbour_stays);
            assert!(atc.recent(other, 0x1000).is_some(), "another region's");
            assert!(atc.recent(Space::of_table(7), 0x1000).is_some(), "queue rings stay");
            atc.remember(space, 0x1000, page(0x6000));
            atc.invalidate(&InvalidationRequest { pasid: None, iova: Iova(0x9000), size_shift: 12 });
            assert_eq!(atc.recent(space, 0x1000), None, "it led to the function's own space");
        }
    }

    #[test]
    fn everything_without_a_pasid_takes_the_processes_too() {
        let mut atc = filled();
        atc.invalidate(&InvalidationRequest { pasid: None, iova: Iova(0), size_shift: 64 });
        for pasid in [None, Pasid::new(1), Pasid::new(2)] {
            assert_eq!(atc.tlb.lookup(pasid, Iova(0x1000)), None);
            assert_eq!(atc.recent(Space::of(pasid), 0x1000), None);
        }
    }
}
