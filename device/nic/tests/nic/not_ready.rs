//! A responder that sends an RNR NAK when a page of its memory is missing, instead of stalling the request.

use refault_abi::codes::{OP_RDMA_WRITE, WC_RNR_RETRY_EXC_ERR, WC_SUCCESS};
use refault_abi::command::{FAULT_REFUSED, FAULT_RESOLVED, ModifyQp};
use refault_bus::pri::ResponseCode;
use refault_nic::{NicConfig, RemoteFaults};

use crate::support::driver::*;
use crate::support::table::*;
use crate::support::*;

const PAGE: u64 = 0x7f00_0013_0000;
/// The delay of timer code 12.
const DELAY_NS: u64 = 640_000;

fn pair(attributes: ModifyQp) -> Pair {
    let config = NicConfig { remote_faults: RemoteFaults::Rnr, fault_window: 1, ..NicConfig::default() };
    Pair::on(Bench::new(config), attributes)
}

#[test]
fn the_requester_comes_again_after_the_responder_s_time_and_not_before() {
    let mut pair = pair(PATIENT);
    let mut region = OnDemand::new(&pair.bench, pair.pd, PAGE, 1 << 20);
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.bench.advance(DELAY_NS - 1);
    assert!(pair.cq_a.drain(&pair.bench).is_empty(), "the answer does not shorten the wait");
    pair.bench.advance(1);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.nic.stats().rnr_waits, 1);
}

#[test]
fn the_page_is_asked_for_once_however_often_the_requester_comes() {
    let mut pair = pair(PATIENT);
    let mut region = OnDemand::new(&pair.bench, pair.pd, PAGE, 1 << 20);
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    for _ in 0..20 {
        pair.bench.advance(DELAY_NS);
    }
    assert!(region.faults(&pair.bench).is_empty() && pair.cq_a.drain(&pair.bench).is_empty());
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.bench.advance(DELAY_NS);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn the_requester_gives_up_after_its_retries_and_a_late_answer_wakes_no_waiter() {
    let mut pair = pair(ModifyQp { rnr_retry: 2, ..PATIENT });
    let mut region = OnDemand::new(&pair.bench, pair.pd, PAGE, 1 << 20);
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    pair.bench.advance(DELAY_NS);
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    pair.bench.advance(DELAY_NS);
    pair.cq_a.expect(&pair.bench, WC_RNR_RETRY_EXC_ERR);
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
}

#[test]
fn a_refusal_is_seen_when_the_requester_comes_again() {
    let mut pair = pair(PATIENT);
    let mut region = OnDemand::new(&pair.bench, pair.pd, PAGE, 1 << 20);
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    resume(&pair.bench, fault.token, FAULT_REFUSED).unwrap();
    pair.bench.advance(DELAY_NS);
    let entry = pair.cq_a.expect(&pair.bench, REFUSED.0);
    assert_eq!(entry.vendor_error, REFUSED.1);
}

#[test]
fn the_requester_s_own_page_only_stalls_it() {
    let mut pair = pair(PATIENT);
    let mut region = OnDemand::new(&pair.bench, pair.pd, PAGE, 1 << 20);
    let wqe = request(OP_RDMA_WRITE, 1, &[sge(PAGE, 8, region.key)]);
    pair.run(&refault_abi::queue::SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..wqe });
    let fault = region.fault(&pair.bench);
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.nic.stats().rnr_waits, 0);
}

#[test]
fn page_requests_of_pasid_regions_are_handled_alike() {
    let mut pair = pair(PATIENT);
    pair.run(&pair.write(1, 8, PAGE, pair.process));
    let asked = pair.bench.iommu.take_requests()[0];
    pair.map_page(PAGE, true);
    pair.bench.iommu.answer(&asked, ResponseCode::Success);
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    pair.bench.advance(DELAY_NS);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}
