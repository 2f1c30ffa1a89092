//! The device TLB (ATC) of one worker.
//!
//! Two layers: the tagged [`Tlb`], and before it a cache of recently used pages. That cache also holds pages of queue rings
//! and regions, named by the identity of their page table, so that a table is not walked again for every entry of a ring.
//!
//! An address in the recency cache is a [`Space`] and a 64-bit offset. An invalidation for a process, or by the driver for
//! an on-demand region, forgets what it covers there, and costs that much. An invalidation in the function's own space may
//! concern any table, so it empties all that leads there, by raising a generation. The space's value says its [`Kind`],
//! and each kind has one generation:
//!
//! | value | space | kind |
//! |---|---|---|
//! | 0 | the function's own | own |
//! | 1 + PASID | a process' | processes |
//! | 2^32 + identity | a table that does not change: rings, pinned regions | own |
//! | 2^63 + identity | the table of an on-demand region | on-demand |

use refault_bus::ats::{InvalidationRequest, Translation};
use refault_bus::bits::low_u32;
use refault_bus::tlb::Tlb;
use refault_bus::{Gpa, Iova, Pasid};

/// Sets of the recency cache, a power of two; with two sectors of four pages each, 4096 pages in 64 KiB, which fit into
/// a processor's second-level cache.
const SETS: usize = 512;
/// log2 of the pages of a sector.
const SECTOR: u32 = 2;
/// log2 of the bytes of a sector.
const SECTOR_SHIFT: u32 = 12 + SECTOR;

/// Kinds of spaces, each with a generation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own,
    Processes,
    OnDemand,
}

/// What an offset in the recency cache belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space(u64);

impl Space {
    const NOTHING: Self = Self(u64::MAX);
    const FIRST_TABLE: u64 = 1 << 32;
    const FIRST_ON_DEMAND: u64 = 1 << 63;

    /// The function's own space, or a process'.
    pub(crate) fn of(pasid: Option<Pasid>) -> Self {
        Self(pasid.map_or(0, |pasid| 1 + u64::from(pasid.get())))
    }

    /// Offsets inside the pages of the table with that identity.
    pub(crate) fn of_table(identity: u64) -> Self {
        Self(Self::FIRST_TABLE + identity)
    }

    /// Offsets in what the table of an on-demand region covers.
    pub(crate) fn of_on_demand(identity: u64) -> Self {
        Self(Self::FIRST_ON_DEMAND + identity)
    }

    /// Its kind. Tables that do not change lead to the function's own space, so they are of that kind.
    fn kind(self) -> Kind {
        match self.0 {
            0 | Self::FIRST_TABLE..Self::FIRST_ON_DEMAND => Kind::Own,
            Self::FIRST_ON_DEMAND.. => Kind::OnDemand,
            _ => Kind::Processes,
        }
    }
}

/// Neighbouring pages that were used recently: one cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Sector {
    space: Space,
    number: u64,
    generation: u64,
    /// Of each page, the block around it: its first address, with [`SHIFT`], [`READ`] and [`WRITE`] in the bits
    /// that a page leaves free. Zero is none.
    blocks: [u64; 1 << SECTOR],
}

impl Sector {
    const EMPTY: Self = Self { space: Space::NOTHING, number: 0, generation: 0, blocks: [0; 1 << SECTOR] };

    fn is(&self, space: Space, number: u64, generation: u64) -> bool {
        self.number == number && self.space == space && self.generation == generation
    }

    /// Forgets the blocks that overlap the bytes from `first` to `last`.
    fn forget(&mut self, first: u64, last: u64) {
        for (block, page) in self.blocks.iter_mut().zip(self.number << SECTOR..) {
            let inside = (1 << (*block & SHIFT)) - 1;
            let start = page << 12 & !inside;
            if start <= last && start | inside >= first {
                *block = 0;
            }
        }
    }
}

const SHIFT: u64 = 0x3f;
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;
const ADDRESS: u64 = !0xfff;

const fn pack(block: Translation) -> u64 {
    let rights = if block.read { READ } else { 0 } | if block.write { WRITE } else { 0 };
    block.gpa.0 & ADDRESS | rights | block.page_shift as u64 & SHIFT
}

const fn unpack(block: u64) -> Translation {
    let gpa = Gpa(block & ADDRESS);
    let page_shift = (block & SHIFT) as u8;
    Translation { gpa, page_shift, read: block & READ != 0, write: block & WRITE != 0 }
}

/// The device TLB of one worker.
pub(crate) struct Atc {
    tlb: Tlb<Option<Pasid>>,
    recent: Box<[[Sector; 2]]>,
    /// By [`Kind`].
    generations: [u64; 3],
    /// log2 of the largest block that was remembered, by [`Kind`].
    largest: [u8; 3],
}

impl Atc {
    /// An empty cache of at most `entries` translations.
    pub(crate) fn new(entries: usize) -> Self {
        let recent = vec![[Sector::EMPTY; 2]; SETS].into();
        Self { tlb: Tlb::new(entries), recent, generations: [0; 3], largest: [12; 3] }
    }

    /// A recently used page.
    #[inline]
    pub(crate) fn recent(&self, space: Space, at: u64) -> Option<Translation> {
        let block = self.sector(space, at)?.blocks[page_of_sector(at)];
        (block != 0).then(|| unpack(block))
    }

    /// The pages around one, if they were used recently.
    #[inline]
    fn sector(&self, space: Space, at: u64) -> Option<&Sector> {
        let (number, generation) = (at >> SECTOR_SHIFT, self.generations[space.kind() as usize]);
        let sectors = self.recent.get(set(space, number))?;
        sectors.iter().find(|sector| sector.is(space, number, generation))
    }

    /// A walk over recently used pages, from `at` on.
    pub(crate) fn walk(&self, space: Space, at: u64, write: bool) -> RecentWalk<'_> {
        let needed = if write { WRITE } else { READ };
        RecentWalk { atc: self, space, needed, number: at >> SECTOR_SHIFT, sector: self.sector(space, at) }
    }

    /// Notes a page for [`Self::recent`].
    pub(crate) fn remember(&mut self, space: Space, at: u64, translation: Translation) {
        let (number, generation) = (at >> SECTOR_SHIFT, self.generations[space.kind() as usize]);
        let largest = &mut self.largest[space.kind() as usize];
        *largest = translation.page_shift.max(*largest);
        let Some(sectors) = self.recent.get_mut(set(space, number)) else { return };
        let known = sectors.iter().position(|sector| sector.is(space, number, generation));
        let way = known.unwrap_or_else(|| {
            sectors.swap(0, 1);
            sectors[0] = Sector { space, number, generation, ..Sector::EMPTY };
            0
        });
        sectors[way].blocks[page_of_sector(at)] = pack(translation);
    }

    /// A translation of the TLB.
    pub(crate) fn lookup(&self, pasid: Option<Pasid>, iova: Iova) -> Option<Translation> {
        self.tlb.lookup(pasid, iova)
    }

    /// Caches a granted translation.
    pub(crate) fn insert(&mut self, pasid: Option<Pasid>, iova: Iova, translation: Translation) {
        self.tlb.insert(pasid, iova, translation);
    }

    /// Forgets what `request` names. Without a PASID, "everything" means the process spaces too.
    pub(crate) fn invalidate(&mut self, request: &InvalidationRequest) {
        let &InvalidationRequest { pasid, iova, size_shift } = request;
        match (pasid, request.everything()) {
            (None, true) => self.flush(),
            (None, false) => {
                self.tlb.flush_range(None, iova, size_shift);
                self.raise(Kind::Own);
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

    /// Forgets the recently used blocks of `space` that overlap the bytes from `first` to `last`. The pages of such a block
    /// may lie outside, by its size.
    pub(crate) fn forget(&mut self, space: Space, first: u64, last: u64) {
        let generation = self.generations[space.kind() as usize];
        let around = (1 << self.largest[space.kind() as usize]) - 1;
        for set in sets(space, first & !around, last | around) {
            let sectors = self.recent.get_mut(set).into_iter().flatten();
            sectors
                .filter(|sector| sector.space == space && sector.generation == generation)
                .for_each(|sector| sector.forget(first, last));
        }
    }

    /// Empties a kind of space. Emptying the function's own space empties on-demand ones too, whose tables lead there.
    fn raise(&mut self, kind: Kind) {
        self.generations[kind as usize] += 1;
        self.largest[kind as usize] = 12;
        if kind == Kind::Own {
            self.generations[Kind::OnDemand as usize] += 1;
        }
    }

    /// Forgets everything.
    pub(crate) fn flush(&mut self) {
        self.tlb.flush_all();
        self.raise(Kind::Own);
        self.raise(Kind::Processes);
    }
}

/// Looks up one page after the other, and each sector once.
pub(crate) struct RecentWalk<'a> {
    atc: &'a Atc,
    space: Space,
    /// The right that a page must have.
    needed: u64,
    number: u64,
    sector: Option<&'a Sector>,
}

impl RecentWalk<'_> {
    /// Where the byte at `at` lies, if its page was used recently and allows the access.
    #[inline]
    pub(crate) fn find(&mut self, at: u64) -> Option<Gpa> {
        if at >> SECTOR_SHIFT != self.number {
            self.number = at >> SECTOR_SHIFT;
            self.sector = self.atc.sector(self.space, at);
        }
        let block = self.sector?.blocks[page_of_sector(at)];
        let inside = at & ((1 << (block & SHIFT)) - 1);
        (block & self.needed != 0).then_some(Gpa((block & ADDRESS) + inside))
    }
}

const fn page_of_sector(at: u64) -> usize {
    (at >> 12) as usize % (1 << SECTOR)
}

/// The sets in which the sectors of the bytes from `first` to `last` are: at most all of them.
fn sets(space: Space, first: u64, last: u64) -> impl Iterator<Item = usize> {
    let (first, last) = (first >> SECTOR_SHIFT, last >> SECTOR_SHIFT);
    let all = last - first >= SETS as u64;
    let numbers = if all { 0..=SETS as u64 - 1 } else { first..=last };
    numbers.map(move |number| if all { number as usize } else { set(space, number) })
}

/// The set of a sector. Neighbouring sectors are spread evenly; where they begin is shuffled, because buffers tend to
/// begin at round addresses.
fn set(space: Space, number: u64) -> usize {
    let start = (number >> 9 ^ space.0 << 42).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    low_u32(number.wrapping_add(start)) as usize % SETS
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn packed_blocks_come_back_whole() {
        for page_shift in [12, 21, 30, 48] {
            for (read, write) in [(true, false), (true, true), (false, true)] {
                let block = Translation { gpa: Gpa(0x000f_ffff_c000_0000), page_shift, read, write };
                assert_eq!(unpack(pack(block)), block);
            }
        }
        assert_eq!(size_of::<Sector>(), 64);
    }

    #[test]
    fn a_page_remembered_again_replaces_itself() {
        let mut atc = Atc::new(8);
        let space = Space::of(None);
        atc.remember(space, 0x1000, page(0x5000));
        atc.remember(space, 0x1000 + (SETS as u64) * 0x4000 * 1024, page(0x6000));
        for gpa in [0x7000, 0x8000] {
            atc.remember(space, 0x1000, page(gpa));
            assert_eq!(atc.recent(space, 0x1abc), Some(page(gpa)));
            assert_eq!(atc.recent(space, 0x2000), None);
        }
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

    /// Two pages and two parts of a 2 MiB block of two processes each.
    fn two_processes() -> (Atc, [u64; 4]) {
        let mut atc = Atc::new(64);
        let pages = [0x1000, 0x2000, 0x40_3000, 0x5f_f000];
        let spaces = [Pasid::new(1), Pasid::new(2)];
        for (pasid, at) in spaces.into_iter().flat_map(|pasid| pages.map(|at| (pasid, at))) {
            let large = Translation { page_shift: 21, ..page(0x80_0000) };
            let block = if at < 0x40_0000 { page(at + 0x10_0000) } else { large };
            atc.insert(pasid, Iova(at), block);
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
                    assert_eq!(atc.lookup(pasid, Iova(at)).is_some(), recent);
                    recent
                };
                assert_eq!(found(Pasid::new(1)), stays, "{at:#x} after {iova:#x}, {size_shift}");
                assert!(found(Pasid::new(2)), "{at:#x} of the other process after {iova:#x}, {size_shift}");
            }
        }
    }

    #[test]
    fn an_invalidation_visits_the_sets_it_covers_and_at_most_all_of_them() {
        let space = Space::of(Pasid::new(1));
        for (first, bytes, count) in [
            (0x1000u64, 0x1000u64, 1),
            (0x40_0000, 0x20_0000, 128),
            (0x40_0000, 0x4000 * 512, 512),
            (0, 1 << 48, 512),
        ] {
            assert_eq!(sets(space, first, first + bytes - 1).count(), count);
        }
        let mut all: Vec<_> = sets(space, 0, u64::MAX).collect();
        all.dedup();
        assert_eq!(all.len(), SETS);
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
            assert_eq!(atc.lookup(pasid, Iova(0x1000)), None);
            assert_eq!(atc.recent(Space::of(pasid), 0x1000), None);
        }
    }
}
