//! Queued invalidation: the effect of each descriptor, and the errors that stop the queue.

use refault_bus::ats::{InvalidationRequest, Translation, TranslationAgent};
use refault_bus::irq::MsiMessage;
use refault_bus::pri::ResponseCode;
use refault_bus::{Bdf, Gpa, Iova, Pasid};

use crate::support::descriptors as d;
use crate::support::*;

/// A guest with `VA` translated and cached, then moved: the old frame can only come from the cache.
fn stale() -> Guest {
    let guest = Guest::booted();
    let leaf = guest.map_user(VA, 0x8000);
    guest.ats(VA, true).unwrap();
    guest.store(leaf, 0x9000 | Pte::PRESENT | Pte::USER | Pte::WRITE);
    assert_eq!(guest.ats(VA, true).unwrap().gpa, Gpa(0x8000));
    guest
}

fn is_stale(guest: &Guest) -> bool {
    guest.ats(VA, true).unwrap().gpa == Gpa(0x8000)
}

#[test]
fn iotlb_flushes_take_exactly_what_they_name() {
    let other = Pasid::truncated(2);
    let half = Iova(0x7000_0000_0000);
    let cases = [
        (d::iotlb_global(), true),
        (d::iotlb_domain(SVA_DOMAIN), true),
        (d::iotlb_domain(DMA_DOMAIN), false),
        (d::piotlb_all(SVA_DOMAIN, PASID), true),
        (d::piotlb_all(SVA_DOMAIN, other), false),
        (d::piotlb_all(DMA_DOMAIN, PASID), false),
        (d::piotlb(SVA_DOMAIN, PASID, VA, 0), true),
        (d::piotlb(SVA_DOMAIN, PASID, Iova(VA.0 + 0x1000), 0), false),
        // 12 KiB across a 2 MiB line and across a 1 TiB line, as traced: masks 10 and 29.
        (d::piotlb(SVA_DOMAIN, PASID, VA.align_down(22), 10), true),
        (d::piotlb(SVA_DOMAIN, PASID, VA.align_down(41), 29), true),
        (d::piotlb(SVA_DOMAIN, PASID, half, 35), true),
        (d::piotlb(SVA_DOMAIN, PASID, Iova(0), 51), true),
        (d::piotlb(SVA_DOMAIN, PASID, Iova(0), 52), true),
        (d::piotlb(SVA_DOMAIN, PASID, Iova(0), 63), true),
        (d::piotlb(SVA_DOMAIN, other, Iova(0), 52), false),
        // Invalidation hint, and page-selective within a domain.
        (d::piotlb(SVA_DOMAIN, PASID, VA, 1 << 6), true),
        ([0xf2 | 1 << 16, VA.0, 0, 0], true),
    ];
    for (descriptor, takes) in cases {
        let guest = stale();
        assert!(guest.submit(&[descriptor]), "{descriptor:x?}");
        assert_eq!(is_stale(&guest), !takes, "{descriptor:x?}");
        assert_eq!(guest.read32(reg::FSTS), 0, "{descriptor:x?}");
    }
}

#[test]
fn all_bits_of_a_domain_id_are_compared() {
    let domain = 0x5aa5;
    let guest = Guest::booted();
    set_pasid_entry(&guest, PASID.get(), [0x49, 0x80_0000 | u64::from(domain), guest.layout.user_tables]);
    let leaf = guest.map_user(VA, 0x8000);
    guest.ats(VA, true).unwrap();
    guest.store(leaf, 0x9000 | Pte::PRESENT | Pte::USER | Pte::WRITE);
    guest.store(pasid_entry_at(&guest, PASID.get()), 0);
    for bit in 0..16 {
        let other = domain ^ 1 << bit;
        let flushes = [
            d::iotlb_domain(other),
            d::piotlb_all(other, PASID),
            d::piotlb(other, PASID, VA, 0),
            d::pasid_cache_domain(other),
            d::pasid_cache(other, PASID),
        ];
        assert!(guest.submit(&flushes) && is_stale(&guest), "bit {bit}");
    }
    guest.submit(&[d::iotlb_domain(domain)]);
    assert_eq!(guest.ats(VA, true).unwrap().gpa, Gpa(0x9000));
    guest.submit(&[d::pasid_cache_domain(domain)]);
    assert_eq!(guest.ats(VA, true), Ok(Translation::NONE));
}

#[test]
fn a_flush_of_kernel_addresses_is_accepted() {
    // iommu_sva_invalidate_kva_range with the masks that a randomised PAGE_OFFSET gives.
    for mask in 33..=35 {
        let guest = Guest::booted();
        let base = 0xffff_8000_0000_0000u64;
        let device = d::device_tlb_pasid(NIC, PASID, (!0u64 << 12) & !(1 << (11 + mask)), true);
        assert!(guest.submit(&[d::piotlb(SVA_DOMAIN, PASID, Iova(base), mask), device]));
        assert_eq!(guest.read32(reg::FSTS), 0);
        assert_eq!(guest.device.invalidations()[0].size_shift, 12 + mask as u8);
    }
}

#[test]
fn context_and_pasid_cache_flushes_make_the_tables_be_read_again() {
    let other = Pasid::truncated(2);
    let cases = [
        (d::context_global(), true),
        (d::context_device(NIC, 0), true),
        (d::context_device(Bdf(NIC.0 + 1), 0), false),
        // The function mask drops function bits: 7 with mask 3 covers function 0.
        (d::context_device(Bdf(NIC.0 + 7), 3), true),
        (d::context_device(Bdf(NIC.0 + 4), 1), true),
        (d::context_device(Bdf(NIC.0 + 1), 2), false),
        // Domain-selective is global in scalable mode.
        ([0x21 | 9 << 16, 0, 0, 0], true),
        (d::pasid_cache_global(), true),
        (d::pasid_cache_domain(SVA_DOMAIN), true),
        (d::pasid_cache_domain(DMA_DOMAIN), false),
        (d::pasid_cache(SVA_DOMAIN, PASID), true),
        (d::pasid_cache(SVA_DOMAIN, other), false),
    ];
    for (descriptor, takes) in cases {
        let guest = Guest::booted();
        guest.map_user(VA, 0x8000);
        guest.ats(VA, true).unwrap();
        guest.store(pasid_entry_at(&guest, PASID.get()), 0);
        assert!(guest.ats(VA, true).unwrap().write, "the PASID entry is cached");
        assert!(guest.submit(&[descriptor]));
        assert_eq!(guest.ats(VA, true) == Ok(Translation::NONE), takes, "{descriptor:x?}");
    }
}

#[test]
fn a_function_mask_drops_the_bits_of_the_function_that_table_21_has_for_it() {
    for (mask, dropped) in [(0, 0b000), (1, 0b100), (2, 0b110), (3, 0b111)] {
        for bits in 0..8 {
            let guest = Guest::booted();
            guest.map_user(VA, 0x8000);
            guest.ats(VA, true).unwrap();
            guest.store(pasid_entry_at(&guest, PASID.get()), 0);
            assert!(guest.submit(&[d::context_device(Bdf(NIC.0 ^ bits), mask)]));
            let named = guest.ats(VA, true) == Ok(Translation::NONE);
            assert_eq!(named, bits & !dropped == 0, "mask {mask}, function {bits}");
        }
    }
}

#[test]
fn device_tlb_flushes_reach_the_device_with_their_size() {
    let guest = Guest::booted();
    let request = |pasid, iova, size_shift| InvalidationRequest { pasid, iova: Iova(iova), size_shift };
    let cases = [
        (d::device_tlb(NIC, 0x1_2345_6000, false), request(None, 0x1_2345_6000, 12)),
        (d::device_tlb(NIC, 0x1_2345_6000, true), request(None, 0x1_2345_6000, 13)),
        (d::device_tlb(NIC, 0x1f_f000, true), request(None, 0, 22)),
        (d::device_tlb(NIC, d::EVERYTHING, true), request(None, 0, 64)),
        // munmap of three pages and of 2 MiB, and the kernel page-table flush, as traced.
        (d::device_tlb_pasid(NIC, PASID, 0x7f07_5d20_1000, true), request(Some(PASID), 0x7f07_5d20_0000, 14)),
        (d::device_tlb_pasid(NIC, PASID, 0x7f07_5d2f_f000, true), request(Some(PASID), 0x7f07_5d20_0000, 21)),
        (
            d::device_tlb_pasid(NIC, PASID, 0xffff_bfff_ffff_f000, true),
            request(Some(PASID), 0xffff_8000_0000_0000, 47),
        ),
        (d::device_tlb_pasid(NIC, PASID, d::EVERYTHING, true), request(Some(PASID), 0, 64)),
        (d::device_tlb_pasid(NIC, PASID, !0xfff, true), request(Some(PASID), 0, 64)),
        // Global invalidate: all address spaces.
        (d::device_tlb_pasid(NIC, PASID, 1, false), request(None, 0, 64)),
    ];
    for (descriptor, expected) in cases {
        assert!(guest.submit(&[descriptor]));
        assert_eq!(guest.device.invalidations(), [expected], "{descriptor:x?}");
    }
}

#[test]
fn the_wait_status_is_written_after_the_device_has_forgotten() {
    let guest = Guest::booted();
    let status = guest.page();
    let (ram, seen) = (guest.ram.clone(), std::sync::Arc::new(std::sync::atomic::AtomicU64::new(9)));
    let witness = seen.clone();
    guest.device.on_call(move || {
        use refault_bus::dma::DmaMemory;
        witness.store(ram.load_u64(Gpa(status)).unwrap(), std::sync::atomic::Ordering::SeqCst);
    });
    guest.submit_raw(&[d::device_tlb_pasid(NIC, PASID, VA.0, false), d::wait(status)]);
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(guest.load(status), 2);
}

#[test]
fn flushes_for_a_device_that_is_not_there_complete() {
    let guest = Guest::booted();
    let absent = Bdf(0x1234);
    assert!(guest.submit(&[
        d::device_tlb(absent, d::EVERYTHING, true),
        d::device_tlb_pasid(absent, PASID, d::EVERYTHING, true),
        d::context_device(absent, 0),
    ]));
    assert_eq!(guest.read32(reg::FSTS), 0);
}

#[test]
fn flushes_work_with_translation_off() {
    let guest = stale();
    guest.clear_command(reg::TE);
    guest.device.invalidations();
    assert!(guest.submit(&[d::iotlb_global(), d::device_tlb(NIC, d::EVERYTHING, true)]));
    assert_eq!(guest.device.invalidations().len(), 1);
}

#[test]
fn untranslated_users_of_a_mapping_are_waited_for_when_it_goes() {
    let flushes = [
        d::piotlb(SVA_DOMAIN, PASID, VA, 0),
        d::piotlb_all(SVA_DOMAIN, PASID),
        d::iotlb_domain(SVA_DOMAIN),
        d::iotlb_global(),
    ];
    for flush in flushes {
        let guest = Guest::booted();
        guest.map_user(VA, 0x8000);
        guest.submit(&[flush]);
        assert_eq!(guest.device.drains(), 0, "{flush:x?}: there was no access");
        guest.dma(Some(PASID), VA, true).unwrap();
        guest.submit(&[flush]);
        assert_eq!(guest.device.drains(), 1, "{flush:x?}");
        // Drained once, until there is a new access.
        guest.submit(&[flush]);
        assert_eq!(guest.device.drains(), 0, "{flush:x?}");
        guest.dma(Some(PASID), VA, true).unwrap();
        guest.submit(&[flush]);
        assert_eq!(guest.device.drains(), 1, "{flush:x?}");
        // Accesses through the device's own TLB are not drained, and it keeps its translations.
        guest.ats(VA, true).unwrap();
        guest.submit(&[flush]);
        assert_eq!((guest.device.drains(), guest.device.invalidations().len()), (0, 0), "{flush:x?}");
    }
}

#[test]
fn the_queue_wraps() {
    let guest = Guest::booted();
    for round in 0..600 {
        assert!(guest.submit(&[d::iotlb_global(), d::context_global()]), "round {round}");
    }
    assert_eq!(guest.read32(reg::IQH), guest.read32(reg::IQT));
    let statistics = guest.iommu.statistics();
    let counts = (statistics.iotlb_invalidations, statistics.context_invalidations, statistics.waits);
    assert_eq!(counts, (600, 600, 600));
}

#[test]
fn a_wait_with_interrupt_flag_sends_the_completion_event_once_until_serviced() {
    let guest = Guest::booted();
    let message = MsiMessage { address: 0xfee0_3004, data: 0x23 };
    guest.program_event(reg::IECTL, message);
    let interrupt = [0x15, 0, 0, 0];
    guest.submit_raw(&[interrupt, interrupt]);
    assert_eq!((guest.messages(), guest.read32(reg::ICS)), (vec![message], 1));
    guest.write32(reg::ICS, 1);
    assert_eq!(guest.read32(reg::ICS), 0);
    guest.submit_raw(&[interrupt]);
    assert_eq!(guest.messages(), [message]);
}

#[test]
fn a_fence_alone_writes_nothing() {
    let guest = Guest::booted();
    let mut fence = d::fence();
    fence[1] = guest.page();
    guest.submit_raw(&[fence]);
    assert_eq!(guest.load(fence[1]), 0);
    assert_eq!(guest.read32(reg::IQH), guest.read32(reg::IQT));
}

#[test]
fn responses_reach_the_device_without_lpig_and_with_any_code() {
    let guest = Guest::booted();
    let codes = [
        (0, ResponseCode::Success),
        (1, ResponseCode::InvalidRequest),
        (2, ResponseCode::ResponseFailure),
        (0xf, ResponseCode::ResponseFailure),
    ];
    for (bits, code) in codes {
        assert!(guest.submit(&[d::group_response(NIC, PASID, 0x1aa, bits)]));
        let [response] = guest.device.responses()[..] else { panic!("one response") };
        assert_eq!((response.code, response.group.get(), response.pasid), (code, 0x1aa, Some(PASID)));
    }
    // LPIG, which older kernels set, is ignored; so is the PASID field without PP.
    let mut with_lpig = d::group_response(NIC, PASID, 3, 0);
    with_lpig[1] |= 4;
    let mut without_pasid = d::group_response(NIC, PASID, 4, 0);
    without_pasid[0] &= !(1 << 4);
    assert!(guest.submit(&[with_lpig, without_pasid]));
    let seen: Vec<_> = guest.device.responses().iter().map(|r| (r.group.get(), r.pasid)).collect();
    assert_eq!(seen, [(3, Some(PASID)), (4, None)]);
}

#[test]
fn register_based_invalidation_is_over_when_the_write_is() {
    let guest = stale();
    guest.write64(reg::IOTLB, 1 << 63 | 1 << 60);
    assert!(!is_stale(&guest));
    assert_eq!(guest.read64(reg::IOTLB) >> 63, 0);
    guest.store(context_entry_at(&guest, NIC), 0);
    assert!(guest.ats(VA, true).is_ok(), "the context entry is cached");
    guest.write64(reg::CCMD, 1 << 63 | 1 << 61);
    assert!(guest.ats(VA, true).is_err());
    assert_eq!(guest.read64(reg::CCMD) >> 63, 0);
}

/// Malformed descriptors, and the IQEI code with which each stops the queue.
fn malformed() -> Vec<(d::Raw, u64)> {
    let mut all: Vec<(d::Raw, u64)> = vec![
        // Types 0, 4 (interrupt entry cache), 0xa to 0xf, and those with type bits 11:9.
        ([0, 0, 0, 0], 3),
        ([4, 0, 0, 0], 3),
        ([0xa, 0, 0, 0], 3),
        ([0xf, 0, 0, 0], 3),
        ([0x15 | 1 << 9, 0, 0, 0], 3),
        ([u64::MAX; 4], 3),
        // Reserved granularities.
        ([0x01, 0, 0, 0], 3),
        ([0x02, 0, 0, 0], 3),
        ([0x06, 0, 0, 0], 3),
        ([0x16, 0, 0, 0], 3),
        ([0x27, 0, 0, 0], 3),
        // Reserved bits.
        ([0x11 | 1 << 6, 0, 0, 0], 4),
        ([0x11, 1, 0, 0], 4),
        ([0x12 | 1 << 32, 0, 0, 0], 4),
        ([0x03 | 1 << 4, 0, 0, 0], 4),
        ([0x03, 1 << 1, 0, 0], 4),
        ([0x25 | 1 << 12, 0, 0, 0], 4),
        ([0x25, 2, 0, 0], 4),
        ([0x26 | 1 << 52, 0, 0, 0], 4),
        ([0x37, 1 << 63, 0, 0], 4),
        ([0x08, 1 << 10, 0, 0], 4),
        ([0x09 | 1 << 8, 0, 0, 0], 4),
        ([0x09, 1, 0, 0], 4),
    ];
    all.extend((2..4).map(|quad| {
        let mut raw = d::iotlb_global();
        raw[quad] = 1;
        (raw, 4)
    }));
    all
}

#[test]
fn a_malformed_descriptor_stops_the_queue_until_software_repairs_it() {
    for (raw, code) in malformed() {
        let guest = Guest::booted();
        assert!(guest.submit(&[d::iotlb_global()]));
        let head = guest.read32(reg::IQH);
        assert!(!guest.submit(&[raw]), "{raw:x?}");
        // qi_check_fault: IQE, the head at the bad descriptor, its error in IQERCD, and the fault event.
        assert_eq!(guest.read32(reg::FSTS), 1 << 4, "{raw:x?}");
        assert_eq!(guest.read32(reg::IQH), head, "{raw:x?}");
        assert_eq!(guest.read64(reg::IQER) & 0xf, code, "{raw:x?}");
        assert_eq!(guest.messages(), [FAULT_MSI]);
        // While IQE is set, tail updates fetch nothing.
        assert!(!guest.submit(&[d::iotlb_global()]));
        assert_eq!(guest.read32(reg::IQH), head);
        // The bad descriptor is replaced by a wait and IQE is cleared: the queue runs to its tail.
        let (at, status) = (guest.descriptor_at(u64::from(head) / 32), guest.page());
        for (quad, offset) in d::wait(status).iter().zip([0, 8, 16, 24]) {
            guest.store(at + offset, *quad);
        }
        guest.write32(reg::FSTS, 1 << 4);
        assert_eq!((guest.load(status), guest.read32(reg::FSTS)), (2, 0));
        assert_eq!(guest.read32(reg::IQH), guest.read32(reg::IQT));
        assert!(guest.submit(&[d::iotlb_global()]));
    }
}

#[test]
fn a_queue_that_stops_again_reports_it_again() {
    let guest = Guest::booted();
    guest.submit(&[[0; 4]]);
    guest.write32(reg::FSTS, 1 << 4);
    assert_eq!(guest.read32(reg::FSTS), 1 << 4);
    assert_eq!(guest.messages(), [FAULT_MSI, FAULT_MSI]);
}

#[test]
fn a_device_may_translate_during_an_invalidation() {
    let guest = Guest::booted();
    guest.map_user(VA, 0x8000);
    let (iommu, request) = (guest.iommu.clone(), guest.request(Some(PASID), VA, true));
    guest.device.on_call(move || {
        iommu.translate(&request).unwrap();
    });
    assert!(guest.submit(&[
        d::piotlb(SVA_DOMAIN, PASID, VA, 0),
        d::device_tlb_pasid(NIC, PASID, VA.0, false),
        d::group_response(NIC, PASID, 1, 0),
    ]));
    assert_eq!(guest.device.invalidations().len() + guest.device.responses().len(), 2);
}
