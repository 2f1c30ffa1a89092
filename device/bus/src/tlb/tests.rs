//! The cache against a plain list, and what its flushes cost.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::Gpa;

thread_local! {
    /// How often two keys were compared: what a search in the ordered set, and so a large flush, costs.
    pub(super) static COMPARISONS: Cell<u64> = const { Cell::new(0) };
}

fn page(gpa: u64, shift: u8) -> Translation {
    Translation { gpa: Gpa(gpa), page_shift: shift, read: true, write: true }
}

#[test]
fn tags_do_not_see_each_other() {
    let mut tlb = Tlb::new(8);
    tlb.insert(1, Iova(0x1000), page(0xa000, 12));
    assert_eq!(tlb.lookup(2, Iova(0x1000)), None);
    assert_eq!(tlb.lookup(1, Iova(0x1fff)).unwrap().gpa_of(Iova(0x1fff)), Gpa(0xafff));
}

#[test]
fn answers_without_rights_are_never_cached() {
    let mut tlb = Tlb::new(8);
    tlb.insert(1, Iova(0x1000), Translation::NONE);
    assert_eq!(tlb.lookup(1, Iova(0x1000)), None);
}

#[test]
fn a_page_flush_takes_the_large_block_around_it() {
    let mut tlb = Tlb::new(8);
    tlb.insert(1, Iova(0x20_0000), page(0x4000_0000, 21));
    tlb.insert(1, Iova(0x40_0000), page(0x4020_0000, 21));
    tlb.flush_range(1, Iova(0x20_5000), 12);
    assert_eq!(tlb.lookup(1, Iova(0x20_0000)), None);
    assert!(tlb.lookup(1, Iova(0x40_0000)).is_some());
}

#[test]
fn a_large_range_takes_every_page_inside() {
    for shift in [12, 15, 18, 21, 35, 63, 64] {
        let mut tlb = Tlb::new(8);
        tlb.insert(1, Iova(0), page(0xa000, 12));
        tlb.insert(2, Iova(0), page(0xb000, 12));
        tlb.flush_range(1, Iova(0), shift);
        assert_eq!(tlb.lookup(1, Iova(0)), None, "shift {shift}");
        assert!(tlb.lookup(2, Iova(0)).is_some());
    }
}

#[test]
fn a_flushed_tag_starts_anew() {
    let mut tlb = Tlb::new(8);
    tlb.insert(1, Iova(0x1000), page(0xa000, 12));
    tlb.flush_tag(1);
    assert_eq!(tlb.lookup(1, Iova(0x1000)), None);
    tlb.insert(1, Iova(0x2000), page(0xb000, 12));
    assert_eq!(tlb.lookup(1, Iova(0x1000)), None);
    assert!(tlb.lookup(1, Iova(0x2000)).is_some());
}

#[test]
fn capacity_bounds_entries_order_and_tags() {
    let mut tlb = Tlb::new(16);
    for round in 0..1000u64 {
        tlb.insert(round, Iova(round << 12), page(round << 12, 12));
        tlb.insert(0, Iova(0x5000), page(0x5000, 12));
        tlb.flush_range(0, Iova(0x5000), 12);
    }
    assert!(tlb.occupied() <= 16 && tlb.order.len() <= 33 && tlb.identities.len() <= 16);
    assert!(tlb.ordered.len() <= tlb.order.len());
}

#[test]
fn huge_pass_through_blocks_are_cut() {
    let mut tlb = Tlb::new(8);
    tlb.insert(1, Iova(0x1_2345_6000), page(0, 48));
    let hit = tlb.lookup(1, Iova(0x1_2345_6789)).unwrap();
    assert_eq!((hit.gpa_of(Iova(0x1_2345_6789)), hit.page_shift), (Gpa(0x1_2345_6789), 30));
}

#[test]
fn a_flush_costs_what_it_drops_and_leaves_the_rest() {
    // 512 pages of 4 KiB in each of 200 blocks of 2 MiB.
    let mut tlb = Tlb::new(1 << 17);
    for number in 0..200 * 512u64 {
        tlb.insert(number % 2, Iova(number << 12), page(number << 12, 12));
    }
    let cost = |tlb: &mut Tlb<u64>, iova, shift| {
        let (before, entries) = (COMPARISONS.get(), tlb.occupied());
        tlb.flush_range(0, Iova(iova), shift);
        (COMPARISONS.get() - before, entries - tlb.occupied())
    };
    for (iova, shift, dropped) in
        [(0x20_1000, 12, 0), (0x20_2000, 12, 1), (0x40_0000, 21, 256), (0x40_0000, 21, 0), (1 << 40, 39, 0)]
    {
        let (comparisons, entries) = cost(&mut tlb, iova, shift);
        assert_eq!(entries, dropped, "{iova:#x}, {shift}");
        assert!(comparisons <= 400, "{iova:#x}, {shift}: {comparisons} comparisons");
    }
    assert!(tlb.lookup(0, Iova(0x3f_e000)).is_some() && tlb.lookup(0, Iova(0x60_0000)).is_some());
    assert!(tlb.lookup(1, Iova(0x40_1000)).is_some());
}

/// What a cache may answer: of each tag, the blocks that were inserted and not flushed, nor overlapped since.
#[derive(Default)]
struct Reference(Vec<(u8, u64, Translation)>);

impl Reference {
    fn forget(&mut self, tag: u8, at: u64, shift: u8) {
        let overlaps = |first: u64, size: u8| {
            let shift = shift.max(size);
            shift >= 64 || first >> shift == at >> shift
        };
        self.0.retain(|(of, first, block)| *of != tag || !overlaps(*first, block.page_shift));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u64, u8),
    Flush(u8, u64, u8),
    FlushTag(u8),
    FlushOdd,
    FlushAll,
}

fn steps() -> impl Strategy<Value = Step> {
    // Addresses near each other, in both halves.
    let at = || {
        (0u64..1 << 12, any::<bool>())
            .prop_map(|(page, high)| (page << 12) | if high { 0xffff_8000 << 32 } else { 0 })
    };
    let size = || prop_oneof![6 => Just(12u8), 2 => Just(21), 1 => Just(30), 1 => Just(48)];
    prop_oneof![
        8 => (0u8..3, at(), size()).prop_map(|(tag, at, shift)| Step::Insert(tag, at, shift)),
        4 => (0u8..3, at(), 12u8..=64).prop_map(|(tag, at, shift)| Step::Flush(tag, at, shift)),
        1 => (0u8..3).prop_map(Step::FlushTag),
        1 => Just(Step::FlushOdd),
        1 => Just(Step::FlushAll),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn it_answers_as_a_plain_list_does(steps in proptest::collection::vec(steps(), 1..80)) {
        let (mut tlb, mut reference) = (Tlb::new(1000), Reference::default());
        let mut asked = Vec::new();
        for (step, number) in steps.into_iter().zip(1u64..) {
            match step {
                Step::Insert(tag, at, shift) => {
                    // No two frames are alike, so an old answer is not taken for a new one.
                    let (frame, cut) = (number << 31, shift.min(30));
                    tlb.insert(tag, Iova(at), page(frame, shift));
                    let gpa = page(frame, shift).gpa_of(Iova(at).align_down(cut)).0;
                    reference.forget(tag, at, cut);
                    reference.0.push((tag, Iova(at).align_down(cut).0, page(gpa, cut)));
                    asked.extend([at, at ^ 0x1000, at ^ 0x20_0000, at ^ 0x8000]);
                }
                Step::Flush(tag, at, shift) => {
                    tlb.flush_range(tag, Iova(at), shift);
                    reference.forget(tag, at, shift);
                }
                Step::FlushTag(tag) => {
                    tlb.flush_tag(tag);
                    reference.forget(tag, 0, 64);
                }
                Step::FlushOdd => {
                    tlb.flush_tags(|tag| tag % 2 == 1);
                    reference.0.retain(|(tag, ..)| tag % 2 == 0);
                }
                Step::FlushAll => {
                    tlb.flush_all();
                    reference.0.clear();
                }
            }
            for (&at, tag) in asked.iter().flat_map(|at| [(at, 0u8), (at, 1), (at, 2)]) {
                let expected = reference.0.iter().find(|(of, first, block)| {
                    *of == tag && at >> block.page_shift == first >> block.page_shift
                });
                prop_assert_eq!(tlb.lookup(tag, Iova(at)), expected.map(|&(_, _, block)| block));
            }
        }
    }
}
