//! The walk against a slow but obviously correct one, over random and mostly broken tables.

use proptest::prelude::*;
use refault_bus::ats::Translation;
use refault_bus::{Gpa, Iova};

use crate::support::descriptors as d;
use crate::support::*;

/// Number of table pages: few, so that random pointers share tables and form loops.
const TABLES: u64 = 6;

/// The result of the reference: the page, its size, whether it is writable, and the entries on the way.
struct Found {
    gpa: u64,
    size: u64,
    writable: bool,
    passed: Vec<u64>,
}

/// Follows one entry after the other (Intel SDM vol. 3, 5.5.4, for user-mode data accesses).
fn reference(guest: &Guest, root: u64, iova: u64) -> Option<Found> {
    let sign = iova >> 47;
    if sign != 0 && sign != 0x1_ffff {
        return None;
    }
    let indices = [iova >> 39 & 511, iova >> 30 & 511, iova >> 21 & 511, iova >> 12 & 511];
    let sizes = [1u64 << 39, 1 << 30, 1 << 21, 1 << 12];
    let (mut table, mut writable, mut passed) = (root, true, Vec::new());
    for level in 0..4 {
        let at = table + indices[level] * 8;
        if !in_memory(at) {
            return None;
        }
        let entry = guest.load(at);
        let (present, write, user, large) = (entry & 1, entry & 2, entry & 4, entry & 128);
        if present == 0 || user == 0 {
            return None;
        }
        writable &= write != 0;
        passed.push(at);
        let address = entry % (1 << 52) / 4096 * 4096;
        let size = sizes[level];
        if level == 0 && large != 0 {
            return None;
        }
        if level == 3 {
            return Some(Found { gpa: address, size, writable, passed });
        }
        if large != 0 {
            // Address bits below the page must be zero, but bit 12 is a memory type bit.
            let without_pat = address & !0x1000;
            if !without_pat.is_multiple_of(size) {
                return None;
            }
            return Some(Found { gpa: without_pat, size, writable, passed });
        }
        table = address;
    }
    None
}

fn in_memory(at: u64) -> bool {
    at < 16 << 20 || (1 << 32..(1 << 32) + (4 << 20)).contains(&at)
}

/// An entry: mostly present, mostly user, mostly pointing to one of the tables.
fn entry(first_table: u64) -> impl Strategy<Value = u64> {
    let target = prop_oneof![
        12 => (0..TABLES).prop_map(move |table| first_table + (table << 12)),
        2 => (0u64..1 << 22).prop_map(|frame| frame << 21 & 0x000f_ffff_ffff_f000),
        1 => (0u64..1 << 40).prop_map(|frame| frame << 12),
        1 => Just(0x4000_0000),
    ];
    let flag = |weight: f64| proptest::bool::weighted(weight).prop_map(u64::from);
    let flags = (flag(0.9), flag(0.8), flag(0.9), flag(0.3), flag(0.3), flag(0.25), flag(0.5));
    (target, flags, 0u64..8, 0u64..0x800).prop_map(|(target, (p, w, u, a, d, large, nx), low, high)| {
        target | p | w << 1 | u << 2 | a << 5 | d << 6 | large << 7 | low << 9 | high << 52 | nx << 63
    })
}

/// Addresses with small indices, so that they use entries that were written.
fn address() -> impl Strategy<Value = u64> {
    let index = 0u64..4;
    prop_oneof![
        12 => (index.clone(), index.clone(), index.clone(), index, 0u64..4096, any::<bool>()).prop_map(
            |(a, b, c, d, offset, kernel)| {
                let low = a << 39 | b << 30 | c << 21 | d << 12 | offset;
                if kernel { low | 1 << 47 | 0xffff << 48 } else { low }
            }
        ),
        1 => any::<u64>(),
    ]
}

/// Entries 0 to 3 and, for the kernel half, 256 to 259 of every table.
fn slots() -> impl Iterator<Item = u64> {
    (0..TABLES).flat_map(|table| (0..4).chain(256..260).map(move |index| (table << 12) + index * 8))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_walk_finds_and_marks_what_the_reference_does(
        entries in proptest::collection::vec(entry(0x20_0000), 48),
        accesses in proptest::collection::vec((address(), any::<bool>()), 1..12),
    ) {
        let guest = Guest::booted();
        let root = 0x20_0000;
        for (offset, value) in slots().zip(&entries) {
            guest.store(root + offset, *value);
        }
        set_pasid_entry(&guest, PASID.get(), [0x49, 0x80_0001, root]);
        for (iova, write) in accesses {
            let before: Vec<u64> = slots().map(|offset| guest.load(root + offset)).collect();
            let found = reference(&guest, root, iova);
            let seen = guest.ats(Iova(iova), write);
            let (expected, marks) = expectation(found, write);
            // The reference does not know the interrupt range: an address inside is refused, and of a page around it comes
            // a part.
            let interrupts = 0xfee0_0000u64..0xfef0_0000;
            let (start, size) = (expected.gpa.0, 1 << expected.page_shift);
            if interrupts.contains(&expected.gpa_of(Iova(iova)).0) {
                prop_assert!(seen.is_err());
                guest.service_faults();
                continue;
            } else if start < interrupts.end && start + size > interrupts.start {
                let part = seen.unwrap();
                prop_assert_eq!(part.gpa_of(Iova(iova)), expected.gpa_of(Iova(iova)));
                prop_assert!(part.page_shift < expected.page_shift && part.write == expected.write);
            } else {
                prop_assert_eq!(seen, Ok(expected));
            }
            for (offset, old) in slots().zip(before) {
                let mark = marks.iter().filter(|(at, _)| *at == root + offset).fold(0, |all, (_, bits)| all | bits);
                prop_assert_eq!(guest.load(root + offset), old | mark, "entry at {:#x}", offset);
            }
            guest.submit(&[d::piotlb_all(SVA_DOMAIN, PASID)]);
        }
    }
}

/// The expected translation, and the bits set in each entry on the way.
fn expectation(found: Option<Found>, write: bool) -> (Translation, Vec<(u64, u64)>) {
    let Some(found) = found else { return (Translation::NONE, Vec::new()) };
    let write = write && found.writable;
    let page_shift = found.size.trailing_zeros() as u8;
    let answer = Translation { gpa: Gpa(found.gpa), page_shift, read: true, write };
    let last = found.passed.len() - 1;
    let marks = found.passed.iter().enumerate();
    let marks = marks.map(|(index, &at)| (at, if index == last && write { 0x60 } else { 0x20 })).collect();
    (answer, marks)
}
