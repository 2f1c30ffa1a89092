//! Translations: the completion of a request, and the bits that it sets in the tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use refault_bus::ats::{Translation, TranslationAgent, TranslationError, TranslationRequest};
use refault_bus::dma::{DmaMemory, GuestRam};
use refault_bus::{Bdf, Gpa, Iova, Pasid};

use crate::support::descriptors as d;
use crate::support::*;

const MARKS: u64 = Pte::ACCESSED | Pte::DIRTY;

/// The four entries that map `iova` for the bound process, from the top.
fn path(guest: &Guest, iova: Iova) -> [u64; 4] {
    let mut table = guest.layout.user_tables;
    [39, 30, 21, 12].map(|shift| {
        let at = table + (iova.0 >> shift & 0x1ff) * 8;
        table = guest.load(at) & 0x000f_ffff_ffff_f000;
        at
    })
}

#[test]
fn absence_and_refusal_are_never_cached() {
    let guest = Guest::booted();
    assert_eq!(guest.ats(VA, true), Ok(Translation::NONE));
    // Absent to read-only, read-only to writable: no flush in between, as Linux sends none.
    let leaf = map(&guest, guest.layout.user_tables, VA, 0x8000, 12, Pte::USER);
    let seen = guest.ats(VA, true).unwrap();
    assert!(seen.read && !seen.write);
    guest.store(leaf, 0x8000 | Pte::PRESENT | Pte::USER | Pte::WRITE);
    assert!(guest.ats(VA, true).unwrap().write);
}

#[test]
fn a_translation_stays_cached_until_it_is_flushed() {
    let guest = Guest::booted();
    let leaf = guest.map_user(VA, 0x8000);
    guest.ats(VA, true).unwrap();
    let walks = guest.iommu.statistics().walks;
    guest.store(leaf, 0x9000 | Pte::PRESENT | Pte::USER | Pte::WRITE);
    assert_eq!(guest.ats(VA, true).unwrap().gpa, Gpa(0x8000));
    assert_eq!(guest.ats(VA, false).unwrap().gpa, Gpa(0x8000));
    assert_eq!(guest.iommu.statistics().walks, walks);
    guest.submit(&[d::piotlb(SVA_DOMAIN, PASID, VA, 0)]);
    assert_eq!(guest.ats(VA, true).unwrap().gpa, Gpa(0x9000));
}

#[test]
fn a_read_marks_every_level_accessed_and_nothing_dirty() {
    let guest = Guest::booted();
    guest.map_user(VA, 0x8000);
    let seen = guest.ats(VA, false).unwrap();
    assert!(seen.read && !seen.write, "a request with the no-write flag was granted write");
    assert_eq!(path(&guest, VA).map(|at| guest.load(at) & MARKS), [Pte::ACCESSED; 4]);
}

#[test]
fn a_granted_write_marks_the_leaf_dirty_even_after_a_cached_read() {
    let guest = Guest::booted();
    let leaf = guest.map_user(VA, 0x8000);
    guest.ats(VA, false).unwrap();
    assert_eq!(guest.load(leaf) & MARKS, Pte::ACCESSED);
    assert!(guest.ats(VA, true).unwrap().write);
    assert_eq!(path(&guest, VA).map(|at| guest.load(at) & Pte::DIRTY), [0, 0, 0, Pte::DIRTY]);
    // The cached writable entry does not leak write to a read-only request.
    assert!(!guest.ats(VA, false).unwrap().write);
}

#[test]
fn a_write_that_is_not_granted_marks_nothing_dirty() {
    let guest = Guest::booted();
    let leaf = map(&guest, guest.layout.user_tables, VA, 0x8000, 12, Pte::USER);
    guest.ats(VA, true).unwrap();
    assert_eq!(guest.load(leaf) & MARKS, Pte::ACCESSED);
    guest.submit(&[d::piotlb_all(SVA_DOMAIN, PASID)]);
    guest.store(leaf, guest.load(leaf) & !Pte::ACCESSED);
    // An untranslated write fails, and does not mark the leaf.
    assert!(guest.dma(Some(PASID), VA, true).is_err());
    assert_eq!(guest.load(leaf) & MARKS, 0);
}

#[test]
fn rights_are_what_every_level_allows() {
    for level in 0..4 {
        let guest = Guest::booted();
        guest.map_user(VA, 0x8000);
        let at = path(&guest, VA)[level];
        guest.store(at, guest.load(at) & !Pte::WRITE);
        let seen = guest.ats(VA, true).unwrap();
        assert!(seen.read && !seen.write, "level {level} forbids writing");
        guest.store(at, guest.load(at) & !Pte::USER);
        guest.submit(&[d::piotlb_all(SVA_DOMAIN, PASID)]);
        assert_eq!(guest.ats(VA, false), Ok(Translation::NONE), "level {level} is the supervisor's");
    }
}

#[test]
fn execute_disable_protection_keys_and_software_bits_are_ignored() {
    let guest = Guest::booted();
    let leaf = guest.map_user(VA, 0x8000);
    // Software bits 11:9 and 58:52 (58 is set on every DAX page of older kernels), key 62:59, PAT, global.
    guest.store(leaf, guest.load(leaf) | Pte::NO_EXECUTE | 0x7ff << 52 | 0xe00 | 1 << 7 | 1 << 8);
    let top = path(&guest, VA)[0];
    guest.store(top, guest.load(top) | Pte::NO_EXECUTE | 0x7ff << 52);
    assert_eq!(guest.ats(VA, true).unwrap().gpa, Gpa(0x8000));
}

#[test]
fn an_entry_without_p_is_absent_whatever_else_it_holds() {
    let guest = Guest::booted();
    let leaf = guest.map_user(VA, 0x8000);
    // A swap entry, a migration entry, PROT_NONE with its frame.
    for entry in [u64::MAX - 1, 0x7fff_ff00_0000_0002, 0x8000 | 1 << 8 | Pte::USER | Pte::WRITE] {
        guest.store(leaf, entry);
        assert_eq!(guest.ats(VA, true), Ok(Translation::NONE));
    }
    assert!(guest.faults().is_empty());
}

#[test]
fn large_leaves_translate_their_whole_block() {
    let guest = Guest::booted();
    let tables = guest.layout.user_tables;
    let bits = Pte::USER | Pte::WRITE;
    map(&guest, tables, Iova(0x4020_0000), 0x60_0000 | 1 << 12, 21, bits | Pte::NO_EXECUTE);
    map(&guest, tables, Iova(0x80_0000_0000), 0x1_0000_0000, 30, bits);
    let two = guest.ats(Iova(0x4023_4567), true).unwrap();
    assert_eq!((two.gpa, two.page_shift), (Gpa(0x60_0000), 21));
    let one = guest.ats(Iova(0x80_3fff_fff8), true).unwrap();
    assert_eq!((one.gpa, one.page_shift), (Gpa(0x1_0000_0000), 30));
}

#[test]
fn the_kernel_half_is_walked_and_refused_and_what_is_not_canonical_is_refused_unwalked() {
    let guest = Guest::booted();
    let kernel = Iova(0xffff_8880_0000_0000);
    map(&guest, guest.layout.user_tables, kernel, 0x8000, 12, Pte::WRITE);
    assert_eq!(guest.ats(kernel, false), Ok(Translation::NONE));
    for iova in [0x0000_8000_0000_0000, 0xffff_7fff_ffff_f000, 0x8000_0000_0000_0000] {
        assert_eq!(guest.ats(Iova(iova), false), Ok(Translation::NONE));
    }
    assert!(guest.faults().is_empty());
}

#[test]
fn address_spaces_of_one_domain_do_not_see_each_other() {
    let guest = Guest::booted();
    let other = Pasid::truncated(0x5_4321);
    let tables = guest.page();
    set_pasid_entry(&guest, other.get(), [0x49, 0x80_0001, tables]);
    guest.map_user(VA, 0x8000);
    map(&guest, tables, VA, 0x9000, 12, Pte::USER);
    assert_eq!(guest.ats(VA, false).unwrap().gpa, Gpa(0x8000));
    let theirs = guest.iommu.translate(&guest.request(Some(other), VA, false)).unwrap();
    assert_eq!(theirs.gpa, Gpa(0x9000));
    // Flushing one leaves the other alone.
    let walks = guest.iommu.statistics().walks;
    guest.submit(&[d::piotlb_all(SVA_DOMAIN, other)]);
    assert_eq!(guest.ats(VA, false).unwrap().gpa, Gpa(0x8000));
    assert_eq!(guest.iommu.statistics().walks, walks);
}

#[test]
fn requests_without_pasid_use_pasid_zero() {
    let guest = Guest::booted();
    map(&guest, guest.layout.dma_tables, Iova(0x1000), 0x7000, 12, Pte::USER | Pte::WRITE);
    assert_eq!(guest.dma(None, Iova(0x1000), true).unwrap().gpa, Gpa(0x7000));
    let ats = guest.iommu.translate(&guest.request(None, Iova(0x1000), true)).unwrap();
    assert!(ats.gpa == Gpa(0x7000) && ats.write);
    // With the prefix, that PASID may not be named (SCT.9).
    let zero = guest.iommu.translate(&guest.request(Pasid::new(0), Iova(0x1000), true));
    assert!(matches!(zero, Err(TranslationError::UnsupportedRequest { .. })));
    assert_eq!(guest.faults()[0].reason, 0x48);
}

#[test]
fn snooping_can_be_turned_on_in_an_entry_in_use() {
    // intel_pasid_setup_page_snoop_control, for a domain that VFIO or KVM wants coherent.
    let guest = Guest::booted();
    assert_ne!(guest.read64(reg::ECAP) & 1 << 7, 0, "PGSNP is a reserved bit without SC");
    let leaf = guest.map_user(VA, 0x8000);
    for pgtt in [1, 4] {
        let entry = pasid_entry_at(&guest, PASID.get());
        edit(&guest, entry, |low| low & !(7 << 6) | pgtt << 6);
        edit(&guest, entry + 8, |domain| domain | 1 << 24);
        guest.submit(&[d::pasid_cache(SVA_DOMAIN, PASID), d::piotlb_all(SVA_DOMAIN, PASID)]);
        let expected = if pgtt == 1 { Gpa(0x8000) } else { Gpa(VA.0) };
        assert_eq!(guest.dma(Some(PASID), VA, true).unwrap().gpa_of(VA), expected);
    }
    assert_eq!(guest.load(leaf) & MARKS, MARKS);
    assert!(guest.faults().is_empty());
}

#[test]
fn a_pass_through_entry_translates_to_itself() {
    let guest = Guest::booted();
    set_pasid_entry(&guest, 0, [0x109, 0x80_0001, 0]);
    for iova in [0, 0x1234_5678, 0xbfff_ffff, 0xc000_0000, 0xfed9_0000, 0x1_2345_6789] {
        let seen = guest.dma(None, Iova(iova), true).unwrap();
        assert!(seen.write && seen.gpa_of(Iova(iova)) == Gpa(iova));
        let ats = guest.iommu.translate(&guest.request(None, Iova(iova), false)).unwrap();
        assert!(ats.read && !ats.write && ats.gpa_of(Iova(iova)) == Gpa(iova));
    }
    assert!(guest.dma(None, Iova(1 << 52), true).is_err());
    assert_eq!(guest.faults()[0].reason, 0x83);
}

#[test]
fn no_pass_through_block_holds_the_interrupt_range() {
    let guest = Guest::booted();
    set_pasid_entry(&guest, 0, [0x109, 0x80_0001, 0]);
    let interrupts = 0xfee0_0000..0xfef0_0000u64;
    for iova in [0xc000_0000, 0xfec0_0000, 0xfedf_f000, 0xfef0_0000, 0xff00_0000] {
        let seen = guest.dma(None, Iova(iova), false).unwrap();
        let block = seen.gpa.0..seen.gpa.0 + (1 << seen.page_shift);
        assert!(block.end <= interrupts.start || block.start >= interrupts.end, "{iova:#x}: {seen:?}");
    }
}

#[test]
fn the_interrupt_range_without_pasid_is_not_translated() {
    let guest = Guest::booted();
    let msi = Iova(0xfee0_1004);
    map(&guest, guest.layout.dma_tables, msi.align_down(12), 0x7000, 12, Pte::USER | Pte::WRITE);
    assert_eq!(guest.dma(None, msi, true).unwrap().gpa_of(msi), Gpa(msi.0));
    assert_eq!(guest.iommu.translate(&guest.request(None, msi, true)), Ok(Translation::NONE));
    // With PASID it is an address like any other.
    map(&guest, guest.layout.user_tables, msi.align_down(12), 0x7000, 12, Pte::USER | Pte::WRITE);
    assert_eq!(guest.ats(msi, true).unwrap().gpa, Gpa(0x7000));
    assert!(guest.faults().is_empty());
}

#[test]
fn nothing_translates_into_the_interrupt_range() {
    // A page, and addresses inside larger pages that contain the range.
    for (gpa, shift, offset) in
        [(0xfee0_0000, 12, 0), (0xfee0_0000, 21, 0xf_f000), (0xc000_0000, 30, 0x3ee0_0000)]
    {
        let guest = Guest::booted();
        let iova = Iova(0x40_0000_0000 + offset);
        let leaf =
            map(&guest, guest.layout.user_tables, iova.align_down(shift), gpa, shift, Pte::USER | Pte::WRITE);
        assert!(matches!(guest.ats(iova, true), Err(TranslationError::CompleterAbort { .. })));
        assert_eq!(guest.faults()[0].reason, 0x87);
        guest.service_faults();
        assert!(matches!(guest.dma(Some(PASID), iova, true), Err(TranslationError::Blocked { .. })));
        assert_eq!(guest.faults()[0].reason, 0x87);
        assert_eq!(guest.load(leaf) & MARKS, 0, "a refused access marks nothing");
    }
}

#[test]
fn a_page_around_the_interrupt_range_translates_beside_it_and_its_parts_are_one_page_to_a_flush() {
    let guest = Guest::booted();
    let base = Iova(0x40_0000_0000);
    let leaf = map(&guest, guest.layout.user_tables, base, 0xc000_0000, 30, Pte::USER | Pte::WRITE);
    let parts = [(0, 21), (0x3edf_ffff, 21), (0x3ef0_0000, 12), (0x3fff_ffff, 21)];
    for (offset, shift) in parts {
        let iova = Iova(base.0 + offset);
        for seen in [guest.ats(iova, true), guest.dma(Some(PASID), iova, true)] {
            let seen = seen.unwrap();
            assert_eq!((seen.gpa_of(iova), seen.page_shift), (Gpa(0xc000_0000 + offset), shift));
        }
    }
    // The page goes, and the flush names a single address in it, which covers the page as on any TLB.
    guest.store(leaf, 0);
    guest.submit(&[d::piotlb(SVA_DOMAIN, PASID, base, 0)]);
    for (offset, _) in parts {
        assert_eq!(guest.ats(Iova(base.0 + offset), true), Ok(Translation::NONE));
    }
}

#[test]
fn with_translation_off_only_plain_accesses_pass() {
    let guest = Guest::booted();
    guest.clear_command(reg::TE);
    assert_eq!(guest.dma(None, VA, true).unwrap().gpa_of(VA), Gpa(VA.0));
    for refused in [guest.dma(Some(PASID), VA, true), guest.ats(VA, true)] {
        assert!(matches!(refused, Err(TranslationError::UnsupportedRequest { .. })));
    }
    assert!(guest.faults().is_empty());
}

#[test]
fn a_pasid_torn_down_answers_without_rights_and_without_a_record() {
    let guest = Guest::booted();
    guest.map_user(VA, 0x8000);
    let entry = pasid_entry_at(&guest, PASID.get());
    // First P is cleared and the rest stays; then FPD alone is set, as Linux does when a process dies.
    for control in [0x48, 0x2] {
        guest.store(entry, control);
        guest.submit(&[d::pasid_cache(SVA_DOMAIN, PASID)]);
        assert_eq!(guest.ats(VA, true), Ok(Translation::NONE));
    }
    let far = guest.request(Pasid::new(0xf_ffff), VA, true);
    assert_eq!(guest.iommu.translate(&far), Ok(Translation::NONE));
    assert!(guest.faults().is_empty());
}

#[test]
fn requesters_are_found_in_both_halves_of_their_bus_root_entry() {
    let guest = Guest::booted();
    map(&guest, guest.layout.dma_tables, Iova(0x1000), 0x7000, 12, Pte::USER | Pte::WRITE);
    for (requester, half) in [(Bdf(0x0100), 0), (Bdf(0x017f), 0), (Bdf(0x0180), 8), (Bdf(0x01ff), 8)] {
        let at = guest.layout.root + 16 + half;
        if guest.load(at) == 0 {
            guest.store(at, guest.page() | 1);
        }
        let table = guest.load(at) & !0xfff;
        let request = TranslationRequest { requester, ..guest.request(None, Iova(0x1000), true) };
        assert!(guest.iommu.translate(&request).is_err(), "{requester} has no entry yet");
        guest.service_faults();
        guest.store(table + u64::from(requester.devfn() & 0x7f) * 32, context(guest.layout.directory));
        assert_eq!(guest.iommu.translate(&request).unwrap().gpa, Gpa(0x7000), "{requester}");
    }
}

/// A guest whose tables are all marked accessed except the leaf of [`VA`]; the address of that leaf; and a counter of how
/// often a vCPU will change an entry after a walk has read and before it has marked it.
fn racing() -> (Guest, u64, Arc<AtomicU32>) {
    let losses = Arc::<AtomicU32>::default();
    let counter = losses.clone();
    let before_exchange = move |ram: &GuestRam, at: Gpa, seen: u64| {
        let count = |left: u32| left.checked_sub(1);
        if counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok() {
            // The vCPU moves the page by one frame.
            ram.store_u64(at, seen + 0x1000).unwrap();
        }
    };
    let mut guest = Guest::powered_with(|ram| Arc::new(Interposed { ram, before_exchange }));
    guest.boot();
    let leaf = guest.map_user(VA, 0x10_0000);
    guest.ats(VA, true).unwrap();
    guest.store(leaf, 0x10_0000 | Pte::PRESENT | Pte::USER | Pte::WRITE);
    guest.submit(&[d::piotlb_all(SVA_DOMAIN, PASID)]);
    (guest, leaf, losses)
}

#[test]
fn a_lost_race_for_the_dirty_bit_is_walked_again() {
    let (guest, leaf, losses) = racing();
    losses.store(3, Ordering::Relaxed);
    // The page moved three times during the walk: the translation is the last one.
    assert_eq!(guest.ats(VA, true).unwrap().gpa, Gpa(0x10_3000));
    assert_eq!(guest.load(leaf) & MARKS, MARKS);
}

#[test]
fn a_race_that_is_always_lost_ends_without_rights() {
    let (guest, leaf, losses) = racing();
    losses.store(u32::MAX, Ordering::Relaxed);
    assert_eq!(guest.ats(VA, true), Ok(Translation::NONE));
    assert_eq!(guest.faults()[0].reason, 0x91);
    assert_eq!(guest.load(leaf) & MARKS, 0);
}
