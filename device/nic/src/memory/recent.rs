//! Recently used pages of one worker, in front of its device TLB. Pages of queue rings and regions are here too, named by the
//! identity of their page table, so that a table is not walked again for every entry of a ring.
//!
//! An address is a [`Space`] and a 64-bit offset. An invalidation for a process, or by the driver for an on-demand region,
//! forgets what it covers, and costs that much. An invalidation in the function's own space may concern any table, so it
//! empties all that leads there, by raising a generation. The space's value says its [`Kind`], and each kind has one
//! generation:
//!
//! | value | space | kind |
//! |---|---|---|
//! | 0 | the function's own | own |
//! | 1 + PASID | a process' | processes |
//! | 2^32 + identity | a table that does not change: rings, pinned regions | own |
//! | 2^63 + identity | the table of an on-demand region | on-demand |

use refault_bus::ats::Translation;
use refault_bus::bits::low_u32;
use refault_bus::{Gpa, Pasid};

/// Sets, a power of two; with two sectors of four pages each, 4096 pages in 64 KiB, which fit into
/// a processor's second-level cache.
const SETS: usize = 512;
/// log2 of the pages of a sector.
const SECTOR: u32 = 2;
/// log2 of the bytes of a sector.
const SECTOR_SHIFT: u32 = 12 + SECTOR;

/// Kinds of spaces, each with a generation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Own,
    Processes,
    OnDemand,
}

/// What an offset belongs to.
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

/// The recently used pages of one worker.
pub(crate) struct Recent {
    sets: Box<[[Sector; 2]]>,
    /// By [`Kind`].
    generations: [u64; 3],
    /// log2 of the largest block that was remembered, by [`Kind`].
    largest: [u8; 3],
}

impl Recent {
    /// No pages.
    pub(crate) fn new() -> Self {
        Self { sets: vec![[Sector::EMPTY; 2]; SETS].into(), generations: [0; 3], largest: [12; 3] }
    }

    /// The page of the byte at `at`.
    #[inline]
    pub(crate) fn find(&self, space: Space, at: u64) -> Option<Translation> {
        let block = self.sector(space, at)?.blocks[page_of_sector(at)];
        (block != 0).then(|| unpack(block))
    }

    /// The pages around one, if they were used recently.
    #[inline]
    fn sector(&self, space: Space, at: u64) -> Option<&Sector> {
        let (number, generation) = (at >> SECTOR_SHIFT, self.generations[space.kind() as usize]);
        let sectors = self.sets.get(set(space, number))?;
        sectors.iter().find(|sector| sector.is(space, number, generation))
    }

    /// A walk over recently used pages, from `at` on.
    pub(crate) fn walk(&self, space: Space, at: u64, write: bool) -> RecentWalk<'_> {
        let needed = if write { WRITE } else { READ };
        RecentWalk { recent: self, space, needed, number: at >> SECTOR_SHIFT, sector: self.sector(space, at) }
    }

    /// Notes a page.
    pub(crate) fn remember(&mut self, space: Space, at: u64, translation: Translation) {
        let (number, generation) = (at >> SECTOR_SHIFT, self.generations[space.kind() as usize]);
        let largest = &mut self.largest[space.kind() as usize];
        *largest = translation.page_shift.max(*largest);
        let Some(sectors) = self.sets.get_mut(set(space, number)) else { return };
        let known = sectors.iter().position(|sector| sector.is(space, number, generation));
        let way = known.unwrap_or_else(|| {
            sectors.swap(0, 1);
            sectors[0] = Sector { space, number, generation, ..Sector::EMPTY };
            0
        });
        sectors[way].blocks[page_of_sector(at)] = pack(translation);
    }

    /// Forgets the blocks of `space` that overlap the bytes from `first` to `last`. The pages of such a block
    /// may lie outside, by its size.
    pub(crate) fn forget(&mut self, space: Space, first: u64, last: u64) {
        let generation = self.generations[space.kind() as usize];
        let around = (1 << self.largest[space.kind() as usize]) - 1;
        for set in sets(space, first & !around, last | around) {
            let sectors = self.sets.get_mut(set).into_iter().flatten();
            sectors
                .filter(|sector| sector.space == space && sector.generation == generation)
                .for_each(|sector| sector.forget(first, last));
        }
    }

    /// Empties a kind of space. Emptying the function's own space empties on-demand ones too, whose tables lead there.
    pub(crate) fn empty(&mut self, kind: Kind) {
        self.generations[kind as usize] += 1;
        self.largest[kind as usize] = 12;
        if kind == Kind::Own {
            self.generations[Kind::OnDemand as usize] += 1;
        }
    }
}

/// Looks up one page after the other, and each sector once.
pub(crate) struct RecentWalk<'a> {
    recent: &'a Recent,
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
            self.sector = self.recent.sector(self.space, at);
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
    numbers.map(move |number| if all { low_u32(number) as usize } else { set(space, number) })
}

/// The set of a sector. Neighbouring sectors are spread evenly; where they begin is shuffled, because buffers tend to
/// begin at round addresses.
fn set(space: Space, number: u64) -> usize {
    let start = (number >> 9 ^ space.0 << 42).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    low_u32(number.wrapping_add(start)) as usize % SETS
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use refault_bus::Iova;

    use super::*;

    fn page(gpa: u64) -> Translation {
        Translation { gpa: Gpa(gpa), page_shift: 12, read: true, write: true }
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
        let mut recent = Recent::new();
        let space = Space::of(None);
        recent.remember(space, 0x1000, page(0x5000));
        recent.remember(space, 0x1000 + (SETS as u64) * 0x4000 * 1024, page(0x6000));
        for gpa in [0x7000, 0x8000] {
            recent.remember(space, 0x1000, page(gpa));
            assert_eq!(recent.find(space, 0x1abc), Some(page(gpa)));
            assert_eq!(recent.find(space, 0x2000), None);
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

    /// Spaces of every kind.
    fn spaces() -> [(Space, Kind); 5] {
        [
            (Space::of(None), Kind::Own),
            (Space::of(Pasid::new(0)), Kind::Processes),
            (Space::of(Pasid::new(0xf_fffe)), Kind::Processes),
            (Space::of_table(2), Kind::Own),
            (Space::of_on_demand(7), Kind::OnDemand),
        ]
    }

    /// All pages of two sectors side by side, of one further on in their 2 MiB, and of one far away.
    fn pages() -> impl Iterator<Item = u64> {
        [0x4000u64, 0x8000, 0x10_0000, 0x40_0020_0000]
            .into_iter()
            .flat_map(|at| (0..4).map(move |page| at + (page << 12)))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Remember { space: usize, page: usize, block: Translation },
        Forget { space: usize, first: u64, last: u64 },
        Empty(Kind),
    }

    fn steps() -> impl Strategy<Value = Step> {
        let (space, page) = (0..spaces().len(), 0..pages().count());
        let rights = select(vec![(true, false), (true, true), (false, true)]);
        let block =
            (0u64..4, select(vec![12, 12, 21, 30]), rights).prop_map(|(gpa, page_shift, (read, write))| {
                Translation { gpa: Gpa(gpa << 30), page_shift, read, write }
            });
        let place =
            (page.clone(), 0u64..0x1800, select(vec![1, 0x800, 0x1000, 0x5000, 1 << 20, 1 << 30, u64::MAX]));
        let range = place.prop_map(|(page, inside, bytes)| {
            let first = pages().nth(page).unwrap() + inside - 0x400;
            (first, first.saturating_add(bytes - 1))
        });
        prop_oneof![
            8 => (space.clone(), page, block).prop_map(|(space, page, block)| Step::Remember { space, page, block }),
            4 => (space, range).prop_map(|(space, (first, last))| Step::Forget { space, first, last }),
            1 => select(vec![Kind::Own, Kind::Processes, Kind::OnDemand]).prop_map(Step::Empty),
        ]
    }

    /// What must be found: the block that was last remembered for a page of a space.
    #[derive(Default)]
    struct Reference(HashMap<(usize, u64), Translation>);

    impl Reference {
        fn perform(&mut self, step: &Step) {
            match *step {
                Step::Remember { space, page, block } => {
                    self.0.insert((space, pages().nth(page).unwrap()), block);
                }
                Step::Forget { space, first, last } => self.0.retain(|&(of, at), block| {
                    let start = Iova(at).align_down(block.page_shift).0;
                    of != space || start > last || start + (1 << block.page_shift) <= first
                }),
                Step::Empty(kind) => self.0.retain(|&(of, _), _| match (spaces()[of].1, kind) {
                    (Kind::OnDemand, Kind::Own) => false,
                    (of, kind) => of != kind,
                }),
            }
        }
    }

    #[test]
    fn no_two_sectors_of_the_property_below_share_a_set() {
        let numbers: BTreeSet<u64> = pages().map(|at| at >> SECTOR_SHIFT).collect();
        let used: BTreeSet<usize> =
            numbers.iter().flat_map(|&number| spaces().map(|(space, _)| set(space, number))).collect();
        assert_eq!(used.len(), numbers.len() * spaces().len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

        #[test]
        fn what_was_remembered_is_found_until_it_is_forgotten(steps in vec(steps(), 1..40)) {
            let (mut recent, mut reference) = (Recent::new(), Reference::default());
            for step in steps {
                match step {
                    Step::Remember { space, page, block } => {
                        recent.remember(spaces()[space].0, pages().nth(page).unwrap() + 0x234, block);
                    }
                    Step::Forget { space, first, last } => recent.forget(spaces()[space].0, first, last),
                    Step::Empty(kind) => recent.empty(kind),
                }
                reference.perform(&step);
                for (of, (space, _)) in spaces().into_iter().enumerate() {
                    let mut walks = [false, true].map(|write| (write, recent.walk(space, 0x5000, write)));
                    for at in pages() {
                        let block = reference.0.get(&(of, at)).copied();
                        prop_assert_eq!(recent.find(space, at + 0xfff), block, "{:?} at {:#x}", space, at);
                        for (write, walk) in &mut walks {
                            let allowed = block.filter(|block| block.allows(*write));
                            let gpa = allowed.map(|block| block.gpa_of(Iova(at + 0xabc)));
                            prop_assert_eq!(walk.find(at + 0xabc), gpa, "{:?} at {:#x}", space, at);
                        }
                    }
                }
            }
        }
    }
}
