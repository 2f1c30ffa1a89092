//! Fault conditions, their codes and completions, and the registers that record them.

use refault_bus::ats::{RequestKind, TranslationAgent, TranslationError, TranslationRequest};
use refault_bus::{Bdf, Iova, Pasid};

use crate::support::descriptors as d;
use crate::support::*;

/// The completion of an ATS translation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ats {
    NoRights,
    Unsupported,
    Abort,
}

/// A condition: its code, the completion of a translation request, and how a guest causes it.
type Condition = (u8, Ats, fn(&Guest));

fn entry(guest: &Guest, quad: u64, change: impl Fn(u64) -> u64) {
    let at = pasid_entry_at(guest, PASID.get()) + quad * 8;
    guest.store(at, change(guest.load(at)));
}

fn context_entry(guest: &Guest, quad: u64, change: impl Fn(u64) -> u64) {
    let at = context_entry_at(guest, NIC) + quad * 8;
    guest.store(at, change(guest.load(at)));
}

fn root_entry(guest: &Guest, change: impl Fn(u64) -> u64) {
    guest.store(guest.layout.root, change(guest.load(guest.layout.root)));
}

fn set_root_register(guest: &Guest, value: u64) {
    guest.write64(reg::RTADDR, value);
    guest.write32(reg::GCMD, reg::TE | reg::QIE | reg::SRTP);
}

const CONDITIONS: &[Condition] = &[
    (0x30, Ats::Abort, |g| set_root_register(g, g.layout.root)),
    (0x30, Ats::Abort, |g| set_root_register(g, g.layout.root | 0b11 << 10)),
    (0x38, Ats::Abort, |g| set_root_register(g, HOLE | 1 << 10)),
    (0x38, Ats::Abort, |g| set_root_register(g, !0xfff | 1 << 10)),
    (0x39, Ats::Unsupported, |g| root_entry(g, |e| e & !1)),
    (0x3a, Ats::Abort, |g| root_entry(g, |e| e | 0x800)),
    (0x3a, Ats::Abort, |g| root_entry(g, |e| e | 1 << 60)),
    (0x40, Ats::Abort, |g| root_entry(g, |_| HOLE | 1)),
    (0x41, Ats::Unsupported, |g| context_entry(g, 0, |e| e & !1)),
    (0x42, Ats::Abort, |g| context_entry(g, 0, |e| e | 1 << 5)),
    (0x42, Ats::Abort, |g| context_entry(g, 1, |_| 1)),
    (0x42, Ats::Abort, |g| context_entry(g, 3, |_| 1 << 63)),
    (0x43, Ats::Abort, |g| context_entry(g, 0, |e| e & !(1 << 2))),
    (0x45, Ats::Unsupported, |g| context_entry(g, 0, |e| e & !(1 << 3))),
    (0x50, Ats::Abort, |g| context_entry(g, 0, |_| context(HOLE))),
    (0x51, Ats::NoRights, |g| g.store(g.layout.directory, 0)),
    (0x52, Ats::Abort, |g| g.store(g.layout.directory, g.load(g.layout.directory) | 4)),
    (0x58, Ats::Abort, |g| g.store(g.layout.directory, HOLE | 1)),
    (0x59, Ats::NoRights, |g| entry(g, 0, |e| e & !1)),
    (0x5a, Ats::Abort, |g| entry(g, 1, |e| e | 1 << 16)),
    (0x5a, Ats::Abort, |g| entry(g, 2, |e| e | 1)),
    (0x5a, Ats::Abort, |g| entry(g, 2, |e| e | 1 << 7)),
    (0x5a, Ats::Abort, |g| entry(g, 7, |_| 1)),
    (0x5b, Ats::Abort, |g| entry(g, 0, |e| e & !(7 << 6))),
    (0x5b, Ats::Abort, |g| entry(g, 0, |e| e & !(7 << 6) | 2 << 6)),
    (0x5b, Ats::Abort, |g| entry(g, 0, |e| e & !(7 << 6) | 3 << 6)),
    (0x5b, Ats::Abort, |g| entry(g, 2, |e| e | 1 << 2)),
    (0x70, Ats::NoRights, |g| g.store(top(g), HOLE | 7)),
    (0x71, Ats::NoRights, |g| g.store(top(g), g.load(top(g)) & !1)),
    (0x72, Ats::NoRights, |g| g.store(top(g), g.load(top(g)) | Pte::LARGE)),
    (0x73, Ats::NoRights, |g| entry(g, 2, |_| HOLE)),
    (0x81, Ats::NoRights, |g| g.store(top(g), g.load(top(g)) & !Pte::USER)),
];

/// The top-level entry of [`VA`].
fn top(guest: &Guest) -> u64 {
    guest.layout.user_tables + (VA.0 >> 39 & 0x1ff) * 8
}

#[test]
fn every_condition_blocks_an_untranslated_access_and_records_its_code() {
    for (index, &(code, _, cause)) in CONDITIONS.iter().enumerate() {
        let guest = Guest::booted();
        guest.map_user(VA, 0x8000);
        cause(&guest);
        let blocked = guest.dma(Some(PASID), VA, false);
        assert!(matches!(blocked, Err(TranslationError::Blocked { .. })), "condition {index}");
        let [fault] = guest.faults()[..] else { panic!("condition {index}: one fault is recorded") };
        let expected = FaultSeen { page: VA.0, source: NIC.0, reason: code, pasid: Some(1), ..fault };
        assert_eq!(fault, expected, "condition {index}");
        assert_eq!(fault.info >> 60 & 0b111, 0b100, "condition {index}: a read, untranslated");
        assert_eq!(guest.messages(), [FAULT_MSI]);
    }
}

#[test]
fn every_condition_answers_a_translation_request_as_the_specification_has_it() {
    for (index, &(code, answer, cause)) in CONDITIONS.iter().enumerate() {
        let guest = Guest::booted();
        guest.map_user(VA, 0x8000);
        cause(&guest);
        let seen = match guest.ats(VA, true) {
            Ok(seen) if !seen.read && !seen.write => Ats::NoRights,
            Err(TranslationError::UnsupportedRequest { .. }) => Ats::Unsupported,
            Err(TranslationError::CompleterAbort { .. }) => Ats::Abort,
            other => panic!("condition {index}: {other:?}"),
        };
        assert_eq!(seen, answer, "condition {index}, code {code:#x}");
        let recorded: Vec<_> = guest.faults().iter().map(|fault| fault.reason).collect();
        let expected = if answer == Ats::NoRights { vec![] } else { vec![code] };
        assert_eq!(recorded, expected, "condition {index}");
    }
}

#[test]
fn no_condition_outlives_its_cause() {
    for &(_, _, cause) in CONDITIONS {
        let mut guest = Guest::booted();
        cause(&guest);
        guest.dma(Some(PASID), VA, false).unwrap_err();
        // The tables are repaired, and nothing is flushed except by ESRTPS.
        guest.build_tables();
        guest.set_root();
        guest.map_user(VA, 0x8000);
        guest.dma(Some(PASID), VA, false).unwrap();
    }
}

#[test]
fn a_fault_processing_disable_bit_anywhere_on_the_way_keeps_qualified_faults_out() {
    let set_fpd: [fn(&Guest); 3] = [
        |g| context_entry(g, 0, |e| e | 2),
        |g| g.store(g.layout.directory, g.load(g.layout.directory) | 2),
        |g| entry(g, 0, |e| e | 2),
    ];
    for set in set_fpd {
        let guest = Guest::booted();
        set(&guest);
        guest.dma(Some(PASID), VA, false).unwrap_err();
        assert!(guest.faults().is_empty());
    }
    // FPD is valid in an entry that is not present too. An unqualified fault is recorded all the same.
    let guest = Guest::booted();
    entry(&guest, 0, |_| 2);
    guest.dma(Some(PASID), VA, false).unwrap_err();
    assert!(guest.faults().is_empty());
    context_entry(&guest, 0, |_| context(HOLE) | 2);
    guest.submit(&[d::context_device(NIC, 0)]);
    guest.dma(Some(PASID), VA, false).unwrap_err();
    assert_eq!(guest.faults()[0].reason, 0x50);
}

#[test]
fn translation_requests_need_dte_and_pasids_need_room_in_the_directory() {
    let guest = Guest::booted();
    guest.map_user(VA, 0x8000);
    context_entry(&guest, 0, |e| e & !(1 << 2) & !(1 << 4));
    assert!(matches!(guest.ats(VA, true), Err(TranslationError::UnsupportedRequest { .. })));
    assert_eq!(guest.faults()[0].reason, 0x44);
    guest.dma(Some(PASID), VA, true).unwrap();
    guest.service_faults();
    // PDTS 0: 128 directory entries, 8192 PASIDs.
    context_entry(&guest, 0, |_| context(guest.layout.directory) & !(7 << 9));
    guest.submit(&[d::context_global()]);
    let far = guest.request(Pasid::new(0x2000), VA, false);
    assert!(matches!(guest.iommu.translate(&far), Err(TranslationError::UnsupportedRequest { .. })));
    assert_eq!(guest.faults()[0].reason, 0x46);
}

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
    // With translation off the ring starts again.
    guest.clear_command(reg::TE);
    guest.set_command(reg::TE);
    stray(&guest, 1);
    assert_eq!(guest.read32(reg::FSTS) >> 8, 0);
}

#[test]
fn a_requester_with_a_pending_fault_gets_no_second_record() {
    let guest = Guest::booted();
    stray(&guest, 1);
    stray(&guest, 1);
    stray(&guest, 2);
    assert_eq!(guest.faults().len(), 2);
    assert_eq!(guest.iommu.statistics().faults_compressed, 1);
    guest.service_faults();
    stray(&guest, 1);
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
        context_entry(&guest, 0, |e| e & !(1 << 3));
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
