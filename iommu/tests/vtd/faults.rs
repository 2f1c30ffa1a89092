//! The registers that record faults.

use refault_bus::ats::{RequestKind, TranslationAgent, TranslationRequest};
use refault_bus::{Bdf, Iova, Pasid};

use crate::support::*;

/// A DMA of another function, which has no mapping. Each function is a requester of its own.
fn stray(guest: &Guest, function: u16) {
    let requester = Bdf(NIC.0 + function);
    let request = guest.request(None, Iova(0x1000 * u64::from(function)), true);
    let kind = RequestKind::Untranslated;
    guest.iommu.translate(&TranslationRequest { requester, kind, ..request }).unwrap_err();
}

#[test]
fn faults_fill_the_ring_then_overflow_and_software_recovers() {
    let guest = Guest::booted();
    for function in 1..=8 {
        stray(&guest, function);
    }
    assert_eq!(guest.read32(reg::FSTS), 0b10, "eight records hold eight faults");
    stray(&guest, 9);
    assert_eq!(guest.read32(reg::FSTS), 0b11);
    // Until the overflow is cleared nothing is recorded, even if there is room.
    guest.write32(reg::FRCD + 12, 1 << 31);
    stray(&guest, 10);
    assert_eq!(guest.faults().len(), 7);
    assert_eq!(guest.messages(), [FAULT_MSI], "one event until all is serviced");
    guest.write32(reg::FRCD + 12, 0);
    for index in 1..8 {
        guest.write32(reg::FRCD + index * 16 + 12, 1 << 31);
    }
    guest.write32(reg::FSTS, 1);
    assert_eq!(guest.read32(reg::FSTS), 0);
    stray(&guest, 11);
    assert_eq!((guest.faults()[0].source, guest.messages()), (NIC.0 + 11, vec![FAULT_MSI]));
    let statistics = guest.iommu.statistics();
    assert_eq!((statistics.faults_recorded, statistics.faults_overflowed), (9, 2));
}

#[test]
fn the_ring_continues_and_fri_names_the_first_record() {
    let guest = Guest::booted();
    for function in 1..=20 {
        stray(&guest, function);
        assert_eq!(guest.read32(reg::FSTS) >> 8, u32::from(function - 1) % 8);
        assert_eq!(guest.service_faults(), 1);
        assert_eq!(guest.messages(), [FAULT_MSI]);
    }
    // A command that leaves translation on leaves the ring where it is; with translation off it starts again.
    guest.set_root();
    stray(&guest, 21);
    assert_eq!((guest.read32(reg::FSTS) >> 8, guest.service_faults()), (4, 1));
    guest.clear_command(reg::TE);
    guest.set_command(reg::TE);
    stray(&guest, 1);
    assert_eq!(guest.read32(reg::FSTS) >> 8, 0);
}

#[test]
fn pending_records_are_not_overtaken_when_translation_is_turned_off() {
    let guest = Guest::booted();
    stray(&guest, 1);
    guest.service_faults();
    stray(&guest, 2);
    guest.clear_command(reg::TE);
    guest.set_command(reg::TE);
    // It comes after the pending record, where software finds it.
    stray(&guest, 3);
    assert_eq!(guest.read32(reg::FSTS), 1 << 8 | 0b10);
    assert_eq!((guest.service_faults(), guest.read32(reg::FSTS)), (2, 0));
}

#[test]
fn a_fault_that_equals_a_pending_one_gets_no_record_of_its_own() {
    let guest = Guest::booted();
    let fault = |iova, write| guest.dma(Some(PASID), Iova(iova), write).unwrap_err();
    fault(0x1000, false);
    fault(0x1fff, true);
    assert_eq!(guest.faults().len(), 1, "the same page, PASID and reason");
    assert_eq!(guest.iommu.statistics().faults_compressed, 1);
    fault(0x2000, false);
    guest.dma(None, Iova(0x1000), false).unwrap_err();
    stray(&guest, 1);
    guest.iommu.translate(&guest.request(Pasid::new(0), Iova(0x1000), false)).unwrap_err();
    let seen = guest.faults();
    let seen = seen.iter().map(|fault| (fault.page, fault.pasid, fault.source - NIC.0, fault.reason));
    let expected = [
        (0x1000, Some(1), 0, 0x71),
        (0x2000, Some(1), 0, 0x71),
        (0x1000, None, 0, 0x71),
        (0x1000, None, 1, 0x41),
        (0x1000, Some(0), 0, 0x48),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    guest.service_faults();
    fault(0x1000, false);
    assert_eq!(guest.faults().len(), 1);
}

#[test]
fn a_masked_fault_event_is_latched_until_unmasked_and_dropped_if_serviced() {
    let guest = Guest::booted();
    guest.write32(reg::FECTL, 1 << 31);
    stray(&guest, 1);
    assert_eq!(guest.read32(reg::FECTL), 0b11 << 30);
    assert!(guest.messages().is_empty());
    guest.write32(reg::FECTL, 0);
    assert_eq!((guest.messages(), guest.read32(reg::FECTL)), (vec![FAULT_MSI], 0));
    guest.service_faults();
    guest.write32(reg::FECTL, 1 << 31);
    stray(&guest, 1);
    guest.service_faults();
    assert_eq!(guest.read32(reg::FECTL), 1 << 31);
    guest.write32(reg::FECTL, 0);
    assert!(guest.messages().is_empty());
}

#[test]
fn a_record_distinguishes_reads_writes_translations_and_page_requests() {
    // T1 (bit 126), AT (bits 125:124) and T2 (bit 92) of the record, from its upper quadword.
    let kind_of = |guest: &Guest| {
        let info = guest.faults()[0].info;
        (info >> 62 & 1, info >> 60 & 3, info >> 28 & 1)
    };
    let broken = || {
        let guest = Guest::booted();
        edit(&guest, context_entry_at(&guest, NIC), |e| e & !(1 << 3));
        guest
    };
    let guest = broken();
    guest.dma(Some(PASID), VA, true).unwrap_err();
    assert_eq!(kind_of(&guest), (0, 0, 0));
    let guest = broken();
    guest.ats(VA, false).unwrap_err();
    assert_eq!(kind_of(&guest), (1, 1, 0));
    let guest = broken();
    guest.ask(VA, true, 1);
    assert_eq!(kind_of(&guest), (0, 0, 1));
    // Without PASID, PP is clear.
    let guest = Guest::booted();
    guest.dma(None, VA, false).unwrap_err();
    assert_eq!((guest.faults()[0].pasid, guest.faults()[0].reason), (None, 0x71));
}
