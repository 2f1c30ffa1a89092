//! Linux 7.2 from power-on to the end of a bound process, step by step.

use refault_bus::ats::InvalidationRequest;
use refault_bus::pri::{PageGroupResponse, ResponseCode};
use refault_bus::probe::Stage;
use refault_bus::{Gpa, Iova, PrgIndex};

use crate::support::descriptors as d;
use crate::support::*;

#[test]
fn linux_brings_the_unit_up_binds_faults_unmaps_and_unbinds() {
    let mut guest = Guest::powered();
    discover(&guest);
    bring_up(&mut guest);
    fault_a_page_in(&guest);
    unmap(&guest);
    unbind(&guest);
}

/// alloc_iommu, dmar_fault(-1).
fn discover(guest: &Guest) {
    // 1. CAP and ECAP are not all ones, and have the features that SVA needs.
    let (cap, ecap) = (guest.read64(reg::CAP), guest.read64(reg::ECAP));
    assert_ne!((cap, ecap), (u64::MAX, u64::MAX));
    for bit in [1, 2, 29, 40, 42, 43, 47, 48] {
        assert_ne!(ecap & 1 << bit, 0, "ECAP bit {bit}");
    }
    // 2. A version, and a clear status.
    assert_ne!(guest.read32(reg::VER) >> 4, 0);
    assert_eq!(guest.read32(reg::GSTS), 0);
    // 3. No fault is left over; events are masked.
    assert_eq!(guest.read32(reg::FSTS), 0);
    assert_eq!([reg::FECTL, reg::PECTL].map(|at| guest.read32(at)), [1 << 31; 2]);
}

/// init_dmars and everything before translation is on.
fn bring_up(guest: &mut Guest) {
    // 4. Queued invalidation.
    guest.enable_queue();
    // 5. Root table. ESRTPS makes the global flushes unnecessary; a kernel may still send them.
    guest.build_tables();
    guest.set_root();
    assert_ne!(guest.read64(reg::CAP) >> 63, 0);
    assert!(guest.submit(&[d::context_global()]));
    assert!(guest.submit(&[d::pasid_cache_global()]));
    assert!(guest.submit(&[d::iotlb_global()]));
    // 6. Page request queue with its interrupt, then the fault interrupt.
    guest.enable_page_requests();
    guest.program_event(reg::FECTL, FAULT_MSI);
    // 7. Translation. Until now the device's DMA passes untranslated.
    assert_eq!(guest.dma(None, Iova(0x1234), true).unwrap().gpa_of(Iova(0x1234)), Gpa(0x1234));
    assert!(guest.ats(VA, false).is_err());
    guest.set_command(reg::TE);
    assert_eq!(guest.read32(reg::GSTS), reg::TE | reg::SRTP | reg::QIE);
    // The device was emptied with the new root table, the context flush, and translation.
    assert!(guest.device.invalidations().iter().all(InvalidationRequest::everything));
    // 8. The device's DMA now uses PASID 0. Linux sets accessed and dirty in leaves of the DMA domain in advance.
    let preset = Pte::USER | Pte::WRITE | Pte::ACCESSED | Pte::DIRTY;
    map(guest, guest.layout.dma_tables, Iova(0xffff_f000), 0x5000, 12, preset);
    assert_eq!(guest.dma(None, Iova(0xffff_f008), true).unwrap().gpa_of(Iova(0xffff_f008)), Gpa(0x5008));
}

/// A miss, the page request, the interrupt, the response, and the second translation.
fn fault_a_page_in(guest: &Guest) {
    // 9. Nothing is mapped: a completion without rights, and no fault record.
    let miss = guest.ats(VA, true).unwrap();
    assert!(!miss.read && !miss.write);
    // 10. The page request is queued, and Linux gets an interrupt.
    guest.ask(Iova(VA.0 + 0x123), true, 7);
    assert_eq!(guest.messages(), [PRQ_MSI]);
    assert_eq!(guest.read32(reg::PRS), 1);
    // 11. prq_event_thread reads it ...
    let [request] = guest.take_page_requests()[..] else { panic!("one request is queued") };
    assert_eq!(request, [0x1_0018_0101, VA.0 | 7 << 3 | 0b111, 0, 0]);
    // 12. ... handle_mm_fault maps the page; nothing announces that ...
    let leaf = guest.map_user(VA, 0x8000);
    // 13. ... and the response comes through the invalidation queue.
    assert!(guest.submit(&[d::group_response(NIC, PASID, 7, 0)]));
    let answer =
        PageGroupResponse { pasid: Some(PASID), group: PrgIndex::truncated(7), code: ResponseCode::Success };
    assert_eq!(guest.device.responses(), [answer]);
    // 14. The device translates again, and the page is accessed and dirty.
    let hit = guest.ats(VA, true).unwrap();
    assert!(hit.read && hit.write && hit.gpa == Gpa(0x8000) && hit.page_shift == 12);
    assert_eq!(guest.load(leaf) & (Pte::ACCESSED | Pte::DIRTY), Pte::ACCESSED | Pte::DIRTY);
    let stages: Vec<_> = guest.events().iter().map(|event| (event.stage, event.group)).collect();
    let group = Some(PrgIndex::truncated(7));
    assert_eq!(stages, [(Stage::Queued, group), (Stage::Interrupt, group), (Stage::Response, group)]);
}

/// munmap: zap, then IOTLB and device TLB, then the page is freed.
fn unmap(guest: &Guest) {
    // 15. The two flushes and their wait, as traced.
    let leaf = guest.map_user(VA, 0x8000);
    guest.store(leaf, 0);
    let flushes = [d::piotlb(SVA_DOMAIN, PASID, VA, 0), d::device_tlb_pasid(NIC, PASID, VA.0, false)];
    assert!(guest.submit(&flushes));
    let request = InvalidationRequest { pasid: Some(PASID), iova: VA, size_shift: 12 };
    assert_eq!(guest.device.invalidations(), [request]);
    // 16. The translation is gone.
    assert!(!guest.ats(VA, false).unwrap().read);
}

/// intel_pasid_tear_down_entry and intel_iommu_drain_pasid_prq.
fn unbind(guest: &Guest) {
    guest.map_user(VA, 0x8000);
    assert!(guest.ats(VA, false).unwrap().read);
    // 17. P is cleared, the rest not yet; three flushes, each with a wait of its own.
    let entry = pasid_entry_at(guest, PASID.get());
    guest.store(entry, guest.load(entry) & !1);
    assert!(guest.submit(&[d::pasid_cache(SVA_DOMAIN, PASID)]));
    assert!(guest.submit(&[d::piotlb_all(SVA_DOMAIN, PASID)]));
    assert!(guest.submit(&[d::device_tlb_pasid(NIC, PASID, d::EVERYTHING, true)]));
    assert!(guest.device.invalidations()[0].everything());
    set_pasid_entry(guest, PASID.get(), [0; 3]);
    // 18. The drain: a fence, a flush tagged with the domain of the device's own DMA, and a wait behind all
    //     page requests.
    let status = guest.page();
    guest.submit_raw(&[
        d::fence(),
        d::piotlb_all(DMA_DOMAIN, PASID),
        d::device_tlb_pasid(NIC, PASID, d::EVERYTHING, true),
        d::wait_drain(status),
    ]);
    assert_eq!(guest.load(status), 2);
    assert_eq!(guest.read64(reg::PQH), guest.read64(reg::PQT));
    assert_eq!(guest.read32(reg::PRS), 0);
    // 19. The PASID is gone, and none of this was a fault.
    assert!(!guest.ats(VA, false).unwrap().read);
    assert_eq!((guest.read32(reg::FSTS), guest.messages().len()), (0, 0));
}

#[test]
fn a_kernel_that_takes_over_finds_a_unit_it_can_set_up_again() {
    let mut guest = Guest::booted();
    guest.map_user(VA, 0x8000);
    assert!(guest.ats(VA, true).unwrap().write);
    // intel_iommu_shutdown: translation off, then dmar_disable_qi.
    guest.clear_command(reg::TE);
    assert!(guest.ats(VA, true).is_err());
    guest.clear_command(reg::QIE);
    assert_eq!(guest.read32(reg::IQH), 0);
    // The next kernel, with tables of its own.
    guest.enable_queue();
    guest.build_tables();
    guest.set_root();
    guest.enable_page_requests();
    guest.set_command(reg::TE);
    assert!(!guest.ats(VA, true).unwrap().read, "a translation of the old kernel survived");
    guest.map_user(VA, 0x9000);
    assert_eq!(guest.ats(VA, true).unwrap().gpa, Gpa(0x9000));
    assert!(guest.submit(&[d::iotlb_global()]));
}

#[test]
fn a_machine_reset_leaves_nothing_behind() {
    let guest = Guest::booted();
    guest.map_user(VA, 0x8000);
    assert!(guest.ats(VA, true).unwrap().write);
    guest.ask(VA, false, 1);
    guest.dma(None, Iova(0xdead_0000), false).unwrap_err();
    guest.messages();
    guest.iommu.reset();
    let fresh = Guest::powered();
    for at in (0..0x1000).step_by(4) {
        assert_eq!(guest.read32(at), fresh.read32(at), "register {at:#x}");
    }
    assert!(guest.ats(VA, true).is_err());
    assert_eq!(guest.dma(None, VA, true).unwrap().gpa_of(VA), Gpa(VA.0));
    assert!(guest.messages().is_empty());
}
