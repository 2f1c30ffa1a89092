//! The page request queue, its event and its overflow, and the drain of a PASID.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use refault_bus::ats::TranslationAgent;
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_bus::probe::Stage;
use refault_bus::{AddressSpace, Bdf, Iova, Pasid, PrgIndex};

use crate::support::descriptors as d;
use crate::support::*;

fn page(index: u64) -> Iova {
    Iova(VA.0 + (index << 12))
}

/// Codes of the responses that the device got since the last call.
fn codes(guest: &Guest) -> Vec<ResponseCode> {
    guest.device.responses().iter().map(|response| response.code).collect()
}

#[test]
fn a_request_arrives_with_all_its_fields() {
    let guest = Guest::booted();
    let request = PageRequest {
        pasid: None,
        read: true,
        write: false,
        last: false,
        group: PrgIndex::truncated(0x1ff),
        ..page_request(Iova(0x1_0000_0000), false, 0)
    };
    // Without PASID, PASID 0 is looked up, and the entry has no PASID.
    guest.iommu.page_request(request);
    assert_eq!(guest.take_page_requests(), [[0x18_0001, 0x1_0000_0000 | 0x1ff << 3 | 1, 0, 0]]);
}

#[test]
fn every_queued_request_has_an_interrupt_behind_it_even_in_the_middle_of_a_group() {
    let guest = Guest::booted();
    let partial = PageRequest { last: false, ..page_request(VA, true, 1) };
    guest.iommu.page_request(partial);
    assert_eq!(guest.messages(), [PRQ_MSI]);
    // While PPR is set there is no second event: the handler will find both requests.
    guest.iommu.page_request(partial);
    assert!(guest.messages().is_empty());
    assert_eq!(guest.take_page_requests().len(), 2);
    guest.iommu.page_request(partial);
    assert_eq!(guest.messages(), [PRQ_MSI]);
    assert_eq!(guest.iommu.statistics().page_request_interrupts, 2);
}

#[test]
fn a_masked_page_request_event_is_latched_and_sent_on_unmask() {
    let guest = Guest::booted();
    guest.write32(reg::PECTL, 1 << 31);
    guest.ask(VA, true, 1);
    assert!(guest.messages().is_empty());
    assert_eq!(guest.read32(reg::PECTL), 0b11 << 30);
    // The affinity changed while it was masked: the message is the one that stands at unmask.
    guest.write32(reg::PECTL + 4, 0x55);
    guest.write32(reg::PECTL, 0);
    assert_eq!(guest.messages(), [refault_bus::irq::MsiMessage { data: 0x55, ..PRQ_MSI }]);
    let stages: Vec<_> = guest.events().iter().map(|event| event.stage).collect();
    assert_eq!(stages, [Stage::Queued, Stage::Interrupt]);
}

#[test]
fn the_events_of_a_request_name_its_space_its_page_its_group_and_its_right() {
    let cases = [(Some(PASID), true), (Some(PASID), false), (None, true), (None, false)];
    for (group, (pasid, write)) in (3..).zip(cases) {
        let guest = Guest::booted();
        let request = PageRequest { pasid, ..page_request(page(group), write, group) };
        guest.iommu.page_request(request);
        let seen: Vec<_> =
            guest.events().iter().map(|e| (e.stage, e.space, e.iova, e.group, e.write)).collect();
        let of = |stage| (stage, AddressSpace::of(pasid), request.page, Some(request.group), write);
        assert_eq!(seen, [of(Stage::Queued), of(Stage::Interrupt)]);
    }
}

#[test]
fn a_masked_event_whose_requests_were_taken_is_not_sent() {
    let guest = Guest::booted();
    guest.write32(reg::PECTL, 1 << 31);
    guest.ask(VA, true, 1);
    guest.take_page_requests();
    guest.write32(reg::PECTL, 0);
    assert!(guest.messages().is_empty());
}

#[test]
fn a_full_queue_overflows_answers_success_and_recovers() {
    let guest = Guest::booted();
    for index in 0..2047 {
        guest.ask(page(index), false, index);
    }
    assert!(guest.device.responses().is_empty());
    assert_eq!(guest.messages(), [PRQ_MSI]);
    // One entry stays empty: the next request finds no room.
    guest.ask(page(2047), false, 2047);
    assert_eq!(guest.read32(reg::PRS), 0b11);
    let [answer] = guest.device.responses()[..] else { panic!("one answer") };
    assert_eq!((answer.code, answer.group.get()), (ResponseCode::Success, 0x1ff));
    // prq_event_thread takes them all, and clears PRO when it finds the ring empty.
    assert_eq!(guest.take_page_requests().len(), 2047);
    assert_eq!(guest.read32(reg::PRS), 0b10);
    // Until then everything is dropped, room or not, without an event.
    guest.ask(page(2048), false, 1);
    assert_eq!(codes(&guest), [ResponseCode::Success]);
    assert!(guest.messages().is_empty());
    assert_eq!(guest.read64(reg::PQH), guest.read64(reg::PQT));
    guest.write32(reg::PRS, 0b10);
    guest.ask(page(2049), false, 1);
    assert_eq!((guest.messages(), guest.take_page_requests().len()), (vec![PRQ_MSI], 1));
    let statistics = guest.iommu.statistics();
    assert_eq!((statistics.page_requests_queued, statistics.page_requests_overflowed), (2048, 2));
}

#[test]
fn a_ring_of_every_size_is_filled_to_its_end_and_no_further() {
    for size in 0..8 {
        let guest = Guest::booted();
        let (base, bytes) = (guest.pages(1 << size), 0x1000u64 << size);
        let end = guest.page();
        assert_eq!(end, base + bytes);
        guest.write64(reg::PQA, base | size);
        // All entries but the last, which stays empty.
        let entries = bytes / 32;
        (1..entries).for_each(|_| guest.ask(VA, true, 1));
        assert_eq!((guest.read64(reg::PQT), guest.read32(reg::PRS)), (bytes - 32, 0b01), "size {size}");
        guest.ask(VA, true, 1);
        assert_eq!((guest.read64(reg::PQT), guest.read32(reg::PRS)), (bytes - 32, 0b11), "size {size}");
        assert!((0..entries - 1).all(|index| guest.load(base + index * 32) != 0), "size {size}");
        assert_eq!(guest.load(base + bytes - 32), 0, "size {size}");
        // Room again: the last entry, then the first.
        guest.write64(reg::PQH, bytes - 32);
        guest.write32(reg::PRS, 0b11);
        guest.store(base, 0);
        (0..2).for_each(|_| guest.ask(VA, true, 1));
        assert_eq!(guest.read64(reg::PQT), 32, "size {size}");
        let written = [base + bytes - 32, base, end].map(|at| guest.load(at) != 0);
        assert_eq!(written, [true, true, false], "size {size}");
    }
}

#[test]
fn an_overflow_with_nothing_pending_is_an_event_of_its_own() {
    let guest = Guest::booted();
    for index in 0..2047 {
        guest.ask(page(index), false, index);
    }
    // The handler cleared PPR and is still walking the ring.
    guest.write32(reg::PRS, 1);
    guest.messages();
    guest.ask(page(2047), false, 0);
    assert_eq!(guest.messages(), [PRQ_MSI]);
    assert_eq!(guest.read32(reg::PRS), 0b10);
}

#[test]
fn an_overflowed_request_in_the_middle_of_a_group_has_no_answer() {
    let guest = Guest::booted();
    guest.write64(reg::PQA, guest.layout.requests);
    for index in 0..128 {
        guest.iommu.page_request(PageRequest { last: false, ..page_request(page(index), false, 1) });
    }
    assert_eq!(guest.read32(reg::PRS), 0b11, "a ring of one page holds 127 requests");
    assert!(guest.device.responses().is_empty());
}

#[test]
fn requests_that_the_tables_do_not_allow_are_answered_invalid() {
    type Case = (Option<u8>, fn(&Guest));
    let cases: [Case; 8] = [
        (Some(0x47), |g| g.store(context_entry_at(g, NIC), context(g.layout.directory) & !(1 << 4))),
        (Some(0x45), |g| g.store(context_entry_at(g, NIC), context(g.layout.directory) & !(1 << 3))),
        (Some(0x41), |g| g.store(context_entry_at(g, NIC), 0)),
        (Some(0x50), |g| g.store(context_entry_at(g, NIC), context(HOLE))),
        (Some(0x39), |g| g.store(g.layout.root, 0)),
        // A PASID that is being torn down is not recorded.
        (None, |g| g.store(pasid_entry_at(g, PASID.get()), 0x48)),
        (None, |g| g.store(g.layout.directory, 0)),
        (None, |g| g.clear_command(reg::TE)),
    ];
    for (reason, cause) in cases {
        let guest = Guest::booted();
        cause(&guest);
        guest.ask(VA, true, 5);
        assert_eq!(codes(&guest), [ResponseCode::InvalidRequest]);
        assert_eq!(guest.faults().first().map(|fault| fault.reason), reason);
        assert_eq!((guest.read64(reg::PQT), guest.read32(reg::PRS)), (0, 0));
        // In the middle of a group there is no response.
        guest.iommu.page_request(PageRequest { last: false, ..page_request(VA, true, 5) });
        assert!(codes(&guest).is_empty());
        assert_eq!(guest.iommu.statistics().page_requests_refused, 2);
    }
}

#[test]
fn without_a_queue_in_memory_requests_are_answered_invalid() {
    for address in [0, HOLE | 4, !0xfff | 4, u64::MAX] {
        let guest = Guest::booted();
        guest.write64(reg::PQA, address);
        guest.ask(VA, true, 5);
        assert_eq!(codes(&guest), [ResponseCode::InvalidRequest], "PQA {address:#x}");
        // No overflow: it would end when software has taken what is in the queue, and nothing is.
        assert_eq!((guest.read64(reg::PQT), guest.read32(reg::PRS)), (0, 0));
        assert!(guest.messages().is_empty());
    }
}

#[test]
fn wild_heads_and_tails_never_leave_the_ring() {
    for (head, tail) in [(u64::MAX, 0), (0, u64::MAX), (0x1f, 0x1f), (0x7_ffe0, 0x7_ffe0), (0, 0x1_0000)] {
        let guest = Guest::booted();
        let end = guest.layout.requests + 0x1_0000;
        guest.store(end, 0x5a5a);
        guest.write64(reg::PQH, head);
        guest.write64(reg::PQT, tail);
        for index in 0..3000 {
            guest.ask(page(index), true, 1);
        }
        assert_eq!(guest.load(end), 0x5a5a, "head {head:#x}, tail {tail:#x}");
    }
}

#[test]
fn a_request_drops_its_page_from_the_iotlb() {
    let guest = Guest::booted();
    let leaf = guest.map_user(VA, 0x8000);
    guest.ats(VA, true).unwrap();
    guest.store(leaf, 0x9000 | Pte::PRESENT | Pte::USER | Pte::WRITE);
    assert_eq!(guest.ats(VA, true).unwrap().gpa.0, 0x8000);
    guest.ask(VA, true, 1);
    assert_eq!(guest.ats(VA, true).unwrap().gpa.0, 0x9000);
}

#[test]
fn a_pasid_is_drained_while_its_requests_are_in_flight() {
    // Unbind while the ring holds a request of the PASID: Linux waits for the handler, tears the entry down, responds
    // and drains. To a request that comes later, the unit responds.
    let guest = Guest::booted();
    guest.ask(VA, true, 1);
    assert_eq!(guest.take_page_requests().len(), 1);
    set_pasid_entry(&guest, PASID.get(), [0; 3]);
    assert!(guest.submit(&[
        d::pasid_cache(SVA_DOMAIN, PASID),
        d::piotlb_all(SVA_DOMAIN, PASID),
        d::device_tlb_pasid(NIC, PASID, d::EVERYTHING, true),
    ]));
    guest.ask(VA, true, 2);
    let status = guest.page();
    guest.submit_raw(&[
        d::fence(),
        d::group_response(NIC, PASID, 1, 1),
        d::piotlb_all(DMA_DOMAIN, PASID),
        d::device_tlb_pasid(NIC, PASID, d::EVERYTHING, true),
        d::wait_drain(status),
    ]);
    assert_eq!(guest.load(status), 2);
    let responses: Vec<_> = guest.device.responses().iter().map(|r| (r.group.get(), r.code)).collect();
    assert_eq!(responses, [(2, ResponseCode::InvalidRequest), (1, ResponseCode::InvalidRequest)]);
    assert_eq!((guest.read64(reg::PQH), guest.read32(reg::PRS)), (guest.read64(reg::PQT), 0));
}

#[test]
fn a_response_from_inside_a_request_may_call_the_unit() {
    let guest = Guest::booted();
    guest.map_user(VA, 0x8000);
    guest.write64(reg::PQA, 0);
    let left = Arc::new(AtomicU32::new(3));
    let (iommu, counter, request) = (guest.iommu.clone(), left.clone(), guest.request(Some(PASID), VA, true));
    guest.device.on_call(move || {
        iommu.translate(&request).unwrap();
        if counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            iommu.statistics();
        }
    });
    guest.ask(VA, true, 1);
    assert_eq!(left.load(Ordering::SeqCst), 2);
    assert_eq!(codes(&guest), [ResponseCode::InvalidRequest]);
}

#[test]
fn unsolicited_responses_are_forwarded_or_dropped() {
    let guest = Guest::booted();
    // Forwarded, because the device matches groups; dropped if the device is not attached.
    assert!(guest.submit(&[
        d::group_response(NIC, Pasid::truncated(0xf_ffff), 0x1ff, 0),
        d::group_response(Bdf(0xffff), PASID, 1, 0),
    ]));
    assert_eq!(guest.device.responses().len(), 1);
    let statistics = guest.iommu.statistics();
    assert_eq!((statistics.page_group_responses, statistics.page_group_responses_lost), (2, 1));
    assert_eq!(guest.read32(reg::FSTS), 0);
}

#[test]
fn a_stop_marker_is_queued_and_never_answered() {
    let marker = PageRequest { read: false, ..page_request(VA, false, 3) };
    let guest = Guest::booted();
    guest.iommu.page_request(marker);
    let [[low, high, ..]] = guest.take_page_requests()[..] else { panic!("one request") };
    assert_eq!((low >> 16 & 0xffff, high & 0b111), (u64::from(NIC.0), 0b100), "LPIG without R and W");
    // Refused by the tables, without a queue, and lost to an overflow.
    guest.store(pasid_entry_at(&guest, PASID.get()), 0x48);
    guest.submit(&[d::pasid_cache(SVA_DOMAIN, PASID)]);
    guest.iommu.page_request(marker);
    assert!(codes(&guest).is_empty());
    let guest = Guest::booted();
    guest.write64(reg::PQA, HOLE);
    guest.iommu.page_request(marker);
    assert!(codes(&guest).is_empty());
    guest.write64(reg::PQA, guest.layout.requests);
    for index in 0..128 {
        guest.ask(page(index), false, index);
    }
    assert_eq!(codes(&guest), [ResponseCode::Success], "the queue is full");
    guest.iommu.page_request(marker);
    assert!(codes(&guest).is_empty());
}
