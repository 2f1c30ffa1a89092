//! The device TLB (ATC) of one worker.
//!
//! Two layers: the tagged [`Tlb`], whose pages can be invalidated one by one, and before it a small
//! direct-mapped array of pages used last, which any invalidation of their kind of space empties at once by
//! raising a generation. The array also holds pages of queue rings and pinned regions, named by the identity
//! of their page table, so that a table is not walked again for every entry of a ring.

use refault_bus::ats::{InvalidationRequest, Translation};
use refault_bus::tlb::Tlb;
use refault_bus::{Iova, Pasid};

/// Entries of the array; a power of two.
const RECENT: usize = 256;

/// What an address in the array belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space(u64);

impl Space {
    const NOTHING: Self = Self(u64::MAX);
    const FIRST_TABLE: u64 = 1 << 32;

    /// The function's own space, or a process'.
    pub(crate) fn of(pasid: Option<Pasid>) -> Self {
        Self(pasid.map_or(0, |pasid| 1 + u64::from(pasid.get())))
    }

    /// Offsets inside the pages of the table with that identity.
    pub(crate) fn of_table(identity: u64) -> Self {
        Self(Self::FIRST_TABLE + identity)
    }

    /// Index of the generation it lives by: tables lead to the function's own space.
    fn kind(self) -> usize {
        usize::from(self.0 != 0 && self.0 < Self::FIRST_TABLE)
    }
}

/// One page used lately.
#[derive(Clone, Copy)]
struct Recent {
    space: Space,
    page: u64,
    generation: u64,
    translation: Translation,
}

/// The device TLB of one worker.
pub(crate) struct Atc {
    tlb: Tlb<Option<Pasid>>,
    recent: Box<[Recent; RECENT]>,
    /// Of the function's own space, and of all process spaces.
    generations: [u64; 2],
}

impl Atc {
    /// An empty cache of at most `entries` translations.
    pub(crate) fn new(entries: usize) -> Self {
        let nothing =
            Recent { space: Space::NOTHING, page: 0, generation: 0, translation: Translation::NONE };
        Self { tlb: Tlb::new(entries), recent: Box::new([nothing; RECENT]), generations: [0; 2] }
    }

    /// A page used lately: the fast answer.
    #[inline]
    pub(crate) fn recent(&self, space: Space, at: u64) -> Option<Translation> {
        let page = at >> 12;
        let entry = &self.recent[slot(space, page)];
        let hit =
            entry.page == page && entry.space == space && entry.generation == self.generations[space.kind()];
        hit.then_some(entry.translation)
    }

    /// Notes a page for [`Self::recent`].
    pub(crate) fn remember(&mut self, space: Space, at: u64, translation: Translation) {
        let page = at >> 12;
        let generation = self.generations[space.kind()];
        self.recent[slot(space, page)] = Recent { space, page, generation, translation };
    }

    /// A cached translation.
    pub(crate) fn lookup(&self, pasid: Option<Pasid>, iova: Iova) -> Option<Translation> {
        self.tlb.lookup(pasid, iova)
    }

    /// Caches a granted translation.
    pub(crate) fn insert(&mut self, pasid: Option<Pasid>, iova: Iova, translation: Translation) {
        self.tlb.insert(pasid, iova, translation);
    }

    /// Forgets what `request` names. Without a PASID, "everything" means the process spaces too.
    pub(crate) fn invalidate(&mut self, request: &InvalidationRequest) {
        match (request.pasid, request.everything()) {
            (None, true) => return self.flush(),
            (Some(pasid), true) => self.tlb.flush_tag(Some(pasid)),
            (pasid, false) => self.tlb.flush_range(pasid, request.iova, request.size_shift),
        }
        self.generations[Space::of(request.pasid).kind()] += 1;
    }

    /// Forgets everything.
    pub(crate) fn flush(&mut self) {
        self.tlb.flush_all();
        self.generations[0] += 1;
        self.generations[1] += 1;
    }
}

/// Where a page goes in the array: neighbouring pages side by side, spaces shifted against one another.
fn slot(space: Space, page: u64) -> usize {
    (page ^ page >> 8 ^ space.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % RECENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use refault_bus::Gpa;

    fn page(gpa: u64) -> Translation {
        Translation { gpa: Gpa(gpa), page_shift: 12, read: true, write: true }
    }

    fn filled() -> Atc {
        let mut atc = Atc::new(8);
        for pasid in [None, Pasid::new(1), Pasid::new(2)] {
            atc.insert(pasid, Iova(0x1000), page(0x5000));
            atc.remember(Space::of(pasid), 0x1000, page(0x5000));
        }
        atc.remember(Space::of_table(7), 0x1000, page(0x6000));
        atc
    }

    #[test]
    fn invalidating_a_page_of_a_process_keeps_the_function_s_own_space() {
        let mut atc = filled();
        atc.invalidate(&InvalidationRequest { pasid: Pasid::new(1), iova: Iova(0x1000), size_shift: 12 });
        assert_eq!(atc.lookup(Pasid::new(1), Iova(0x1000)), None);
        assert_eq!(atc.recent(Space::of(Pasid::new(1)), 0x1000), None);
        assert!(atc.lookup(Pasid::new(2), Iova(0x1000)).is_some());
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

    #[test]
    fn everything_without_a_pasid_takes_the_processes_too() {
        let mut atc = filled();
        atc.invalidate(&InvalidationRequest { pasid: None, iova: Iova(0), size_shift: 64 });
        for pasid in [None, Pasid::new(1), Pasid::new(2)] {
            assert_eq!(atc.lookup(pasid, Iova(0x1000)), None);
            assert_eq!(atc.recent(Space::of(pasid), 0x1000), None);
        }
    }
}
