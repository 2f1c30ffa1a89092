//! Credits bound the page requests; a waiter for an answer or a credit may give up.

use refault_abi::codes::{CAUSE_PAGE_TIMEOUT, WC_REM_ACCESS_ERR, WC_SUCCESS};
use refault_bus::pri::ResponseCode;
use refault_nic::NicConfig;

use super::{HEAP, more_pairs};
use crate::support::driver::*;
use crate::support::*;

#[test]
fn credits_bound_the_requests_and_pass_on_in_order() {
    // Half of them for one process.
    let config = NicConfig { page_request_credits: 4, fault_window: 1, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let mut others = more_pairs(&pair, 4);
    for ((a, _), page) in others.iter_mut().zip(0..) {
        a.send(&pair.bench, &pair.write(page, 8, HEAP + page * 0x1000, pair.process));
        pair.bench.settle();
    }
    let mut open = pair.bench.iommu.take_requests();
    assert_eq!(open.len(), 2);
    let mut done = Vec::new();
    while let Some(request) = open.pop() {
        pair.map_page(request.page.0, true);
        pair.bench.iommu.answer(&request, ResponseCode::Success);
        pair.bench.settle();
        open.extend(pair.bench.iommu.take_requests());
        assert!(open.len() <= 2);
        done.extend(pair.cq_a.drain(&pair.bench));
    }
    assert_eq!(done.len(), 4);
    assert!(done.iter().all(|entry| entry.status == WC_SUCCESS));
}

#[test]
fn a_credit_given_to_a_destroyed_queue_pair_goes_to_the_next() {
    // The fault is that of the responder, which is not destroyed.
    if IN_PACKETS {
        return;
    }
    let config = NicConfig { page_request_credits: 1, fault_window: 1, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let mut others = more_pairs(&pair, 2);
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let first = pair.bench.iommu.take_requests()[0];
    for ((a, _), page) in others.iter_mut().zip(1..) {
        a.send(&pair.bench, &pair.write(page, 8, HEAP + page * 0x1000, pair.process));
        pair.bench.settle();
    }
    others[0].0.destroy(&pair.bench).unwrap();
    pair.bench.iommu.answer(&first, ResponseCode::InvalidRequest);
    pair.bench.settle();
    let pages: Vec<u64> = pair.bench.iommu.take_requests().iter().map(|request| request.page.0).collect();
    assert_eq!(pages, [HEAP + 0x2000]);
}

/// A waiter that gets a credit, and finds its page present already, passes the credit on.
#[test]
fn a_credit_not_needed_any_more_goes_to_the_next() {
    let config = NicConfig { page_request_credits: 1, fault_window: 1, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let mut others = more_pairs(&pair, 2);
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let first = pair.bench.iommu.take_requests()[0];
    for ((a, _), page) in others.iter_mut().zip(1..) {
        a.send(&pair.bench, &pair.write(page, 8, HEAP + page * 0x1000, pair.process));
        pair.bench.settle();
    }
    pair.map_page(HEAP, true);
    pair.map_page(HEAP + 0x1000, true);
    pair.bench.iommu.answer(&first, ResponseCode::Success);
    pair.bench.settle();
    assert_eq!(pair.cq_a.drain(&pair.bench).len(), 2);
    let pages: Vec<u64> = pair.bench.iommu.take_requests().iter().map(|request| request.page.0).collect();
    assert_eq!(pages, [HEAP + 0x2000]);
}

#[test]
fn waiting_for_a_credit_times_out_too() {
    let config = NicConfig {
        page_request_credits: 1,
        page_request_timeout_ns: Some(1000),
        fault_window: 1,
        ..NicConfig::default()
    };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let mut others = more_pairs(&pair, 1);
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    others[0].0.send(&pair.bench, &pair.write(2, 8, HEAP + 0x1000, pair.process));
    pair.bench.settle();
    pair.bench.advance(1000);
    let entries = pair.cq_a.drain(&pair.bench);
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry.vendor_error == CAUSE_PAGE_TIMEOUT));
}

#[test]
fn a_timeout_is_an_error_and_the_index_stays_in_use_until_the_answer_comes() {
    let config = NicConfig {
        page_request_timeout_ns: Some(1000),
        // Half of them for one process.
        page_request_credits: 4,
        fault_window: 1,
        ..NicConfig::default()
    };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let mut others = more_pairs(&pair, 2);
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let late = pair.bench.iommu.take_requests()[0];
    pair.bench.advance(999);
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    pair.bench.advance(1);
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_PAGE_TIMEOUT);
    assert_eq!(pair.bench.nic.stats().page_timeouts, 1);
    // One credit is left; the index of the late one is not used again.
    others[0].0.send(&pair.bench, &pair.write(2, 8, HEAP, pair.process));
    pair.bench.settle();
    let second = pair.bench.iommu.take_requests()[0];
    assert_ne!(second.group, late.group);
    // The late answer closes its own group, gives its credit back and wakes no waiter.
    pair.bench.iommu.answer(&late, ResponseCode::InvalidRequest);
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    others[1].0.send(&pair.bench, &pair.write(3, 8, HEAP + 0x1000, pair.process));
    pair.bench.settle();
    assert_eq!(pair.bench.iommu.take_requests().len(), 1);
}
