//! The counters.

use refault_bus::Bdf;
use refault_iommu::Statistics;

use crate::support::descriptors as d;
use crate::support::*;

/// Something that is counted, and how.
type Case = (fn(&Guest), fn(&mut Statistics));

fn is_granted(guest: &Guest) {
    assert!(guest.ats(VA, true).unwrap().write);
}

/// An untranslated access to a page that is not there.
fn is_blocked(guest: &Guest) {
    guest.dma(None, VA, true).unwrap_err();
}

#[test]
fn every_event_is_counted_once_and_where_it_belongs() {
    let cases: &[Case] = &[
        (is_granted, |s| (s.translations, s.walks) = (s.translations + 1, s.walks + 1)),
        // From the IOTLB.
        (is_granted, |s| s.translations += 1),
        (is_blocked, |s| {
            (s.translations, s.walks, s.faults_recorded) =
                (s.translations + 1, s.walks + 1, s.faults_recorded + 1);
        }),
        // The same fault again.
        (is_blocked, |s| {
            (s.translations, s.walks, s.faults_compressed) =
                (s.translations + 1, s.walks + 1, s.faults_compressed + 1);
        }),
        (
            |g| g.ask(VA, true, 1),
            |s| {
                (s.page_requests, s.page_requests_queued) = (s.page_requests + 1, s.page_requests_queued + 1);
                s.page_request_interrupts += 1;
            },
        ),
        // Its event is not serviced.
        (
            |g| g.ask(VA, true, 2),
            |s| {
                (s.page_requests, s.page_requests_queued) = (s.page_requests + 1, s.page_requests_queued + 1);
            },
        ),
        (|g| g.submit_raw(&[d::group_response(NIC, PASID, 1, 0)]), |s| s.page_group_responses += 1),
        (
            |g| g.submit_raw(&[d::group_response(Bdf(0xffff), PASID, 1, 0)]),
            |s| {
                s.page_group_responses += 1;
                s.page_group_responses_lost += 1;
            },
        ),
        (|g| g.submit_raw(&[d::iotlb_global()]), |s| s.iotlb_invalidations += 1),
        (|g| g.submit_raw(&[d::piotlb_all(SVA_DOMAIN, PASID)]), |s| s.pasid_iotlb_invalidations += 1),
        (|g| g.submit_raw(&[d::pasid_cache_global()]), |s| s.pasid_cache_invalidations += 1),
        (|g| g.submit_raw(&[d::device_tlb(NIC, d::EVERYTHING, true)]), |s| s.device_tlb_invalidations += 1),
        (
            |g| g.submit_raw(&[d::context_global()]),
            |s| {
                (s.context_invalidations, s.device_tlbs_emptied) =
                    (s.context_invalidations + 1, s.device_tlbs_emptied + 1);
            },
        ),
        (|g| g.submit_raw(&[d::fence()]), |s| s.waits += 1),
        // Without a queue.
        (|g| g.write64(reg::PQA, 0), |_| ()),
        (
            |g| g.ask(VA, true, 3),
            |s| {
                (s.page_requests, s.page_requests_refused) =
                    (s.page_requests + 1, s.page_requests_refused + 1);
            },
        ),
        (|g| g.submit_raw(&[[0; 4]]), |s| s.queue_errors += 1),
    ];
    let guest = Guest::booted();
    guest.map_user(VA, 0x8000);
    let mut expected = guest.iommu.statistics();
    for (index, (event, count)) in cases.iter().enumerate() {
        event(&guest);
        count(&mut expected);
        assert_eq!(guest.iommu.statistics(), expected, "case {index}");
    }
}
