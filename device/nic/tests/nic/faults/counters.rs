//! What the counters say of page faults of both kinds.

use refault_abi::codes::WC_SUCCESS;
use refault_abi::command::{FAULT_RESOLVED, STATUS_NO_OBJECT};
use refault_bus::pri::ResponseCode;
use refault_nic::NicConfig;

use super::{HEAP, more_pairs};
use crate::support::driver::*;
use crate::support::table::*;
use crate::support::*;

#[test]
fn faults_of_processes_and_of_on_demand_regions_are_counted_apart_and_their_waits_together() {
    // A process gets one of two credits.
    let config =
        NicConfig { page_request_credits: 2, page_fault_credits: 2, fault_window: 1, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let mut region = OnDemand::new(&pair.bench, pair.pd, HEAP, 0x10_0000);
    // The first asks, those after the same page join it, the others wait for its credit.
    let process = [0, 0, 0, 1].map(|page| (pair.process, page));
    let on_demand = [0, 0, 0, 0, 1, 2].map(|page| (region.key, page));
    let mut others = more_pairs(&pair, process.len() + on_demand.len());
    for ((a, _), (key, page)) in others.iter_mut().zip(process.into_iter().chain(on_demand)) {
        a.send(&pair.bench, &pair.write(page, 8, HEAP + page * 0x1000, key));
        pair.bench.settle();
    }
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.page_requests, stats.page_faults), (1, 1));
    assert_eq!((stats.page_waits_joined, stats.page_credit_waits, stats.page_quota_waits), (5, 3, 3));
    for page in 0..2 {
        let request = pair.bench.iommu.take_requests()[0];
        pair.map_page(HEAP + page * 0x1000, true);
        // The second answer is one too many.
        for _ in 0..2 {
            pair.bench.iommu.answer(&request, ResponseCode::Success);
        }
        pair.bench.settle();
    }
    for page in 0..3 {
        let fault = region.fault(&pair.bench);
        region.fill(&pair.bench, HEAP + page * 0x1000, true);
        resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
        assert_eq!(resume(&pair.bench, fault.token, FAULT_RESOLVED), Err(STATUS_NO_OBJECT));
        pair.bench.settle();
    }
    let done = pair.cq_a.drain(&pair.bench);
    assert!(done.len() == others.len() && done.iter().all(|entry| entry.status == WC_SUCCESS));
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.page_requests, stats.page_responses, stats.page_responses_unexpected), (2, 2, 2));
    assert_eq!((stats.page_faults, stats.page_fault_answers, stats.page_fault_answers_unexpected), (3, 3, 3));
    assert_eq!((stats.page_timeouts, stats.page_fault_timeouts, stats.page_requests_called_off), (0, 0, 0));
}
