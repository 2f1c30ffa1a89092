//! The device TLB (ATC) of one worker.
//!
//! Two layers: the tagged [`Tlb`], whose pages can be invalidated one by one, and before it a cache of recently used
//! pages, which any invalidation of their kind of space empties at once by raising a generation. That cache also holds
//! pages of queue rings and regions, named by the identity of their page table, so that a table is not walked again for
//! every entry of a ring.
//!
//! An address in the recency cache is a [`Space`] and a 64-bit offset. The space's value says its [`Kind`], and each
//! kind has one generation:
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
/// An invalidation of fewer sectors visits each of them; one of more empties their kind of space.
const FEW_SECTORS: u64 = 64;
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
}

impl Atc {
    /// An empty cache of at most `entries` translations.
    pub(crate) fn new(entries: usize) -> Self {
        let recent = vec![[Sector::EMPTY; 2]; SETS].into();
        Self { tlb: Tlb::new(entries), recent, generations: [0; 3] }
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
        match (request.pasid, request.everything()) {
            (None, true) => return self.flush(),
            (Some(pasid), true) => self.tlb.flush_tag(Some(pasid)),
            (pasid, false) => self.tlb.flush_range(pasid, request.iova, request.size_shift),
        }
        self.raise(Space::of(request.pasid).kind());
    }

    /// Forgets what the table of an on-demand region said of the bytes from `first` to `last`.
    pub(crate) fn forget_on_demand(&mut self, space: Space, first: u64, last: u64) {
        let sectors = first >> SECTOR_SHIFT..=last >> SECTOR_SHIFT;
        if sectors.end() - sectors.start() >= FEW_SECTORS {
            return self.raise(Kind::OnDemand);
        }
        let generation = self.generations[Kind::OnDemand as usize];
        for number in sectors {
            let Some(ways) = self.recent.get_mut(set(space, number)) else { continue };
            ways.iter_mut()
                .filter(|sector| sector.is(space, number, generation))
                .for_each(|sector| *sector = Sector::EMPTY);
        }
    }

    /// Empties a kind of space. Emptying the function's own space empties on-demand ones too, whose tables lead there.
    fn raise(&mut self, kind: Kind) {
        self.generations[kind as usize] += 1;
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

    #[test]
    fn what_an_on_demand_table_said_is_forgotten_page_by_page_or_at_once() {
        let (space, other) = (Space::of_on_demand(1), Space::of_on_demand(2));
        for (last, neighbour_stays) in [(0x1fff, true), (u64::MAX, false)] {
            let mut atc = filled();
            for space in [space, other] {
                atc.remember(space, 0x1000, page(0x6000));
                atc.remember(space, 0x10_0000, page(0x7000));
            }
            atc.forget_on_demand(space, 0x1000, last);
            assert_eq!(atc.recent(space, 0x1000), None);
            assert_eq!(atc.recent(space, 0x10_0000).is_some(), neighbour_stays);
            assert_eq!(atc.recent(other, 0x1000).is_some(), neighbour_stays);
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
