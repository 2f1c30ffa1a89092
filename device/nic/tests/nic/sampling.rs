//! Sampled requests: which requests are sampled, and that each row is stamped when it is passed.

use refault_abi::codes::{OP_RDMA_WRITE, WC_REM_ACCESS_ERR, WC_SUCCESS};
use refault_abi::command::FAULT_RESOLVED;
use refault_abi::queue::{SqWqe, WqeFlags};
use refault_bus::pri::ResponseCode;
use refault_bus::probe::{RequestEvent, Translator};
use refault_nic::NicConfig;

use crate::support::driver::*;
use crate::support::table::*;
use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;

/// A pair of which every `every`-th request is sampled.
fn pair(every: u32) -> Pair {
    let config = NicConfig { fault_window: 1, sample_every: every, ..NicConfig::default() };
    Pair::on(Bench::new(config), PATIENT)
}

/// Runs `count` writes, one after the other, and returns the indices of those that were sampled.
fn sampled(pair: &mut Pair, count: u64) -> Vec<u32> {
    for wr_id in 0..count {
        pair.run(&pair.write(wr_id, 8, pair.to, pair.rkey));
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    }
    pair.bench.probe.take_requests().iter().map(|request| request.index).collect()
}

fn only(pair: &Pair) -> RequestEvent {
    let requests = pair.bench.probe.take_requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests[0]
}

#[test]
fn the_first_request_of_a_queue_pair_and_one_in_so_many_after_it_are_sampled() {
    assert_eq!(sampled(&mut pair(7), 20), [0, 7, 14]);
    assert_eq!(sampled(&mut pair(1), 3), [0, 1, 2]);
    assert_eq!(sampled(&mut pair(100), 250), [0, 100, 200]);
    assert_eq!(sampled(&mut pair(0), 50), [0; 0]);
}

#[test]
fn each_row_is_stamped_when_it_is_passed() {
    let mut pair = pair(1);
    pair.eq.doorbell(&pair.bench, true);
    pair.cq_a.arm(&pair.bench, false);
    pair.bench.clock.advance(1000);
    pair.a.send(&pair.bench, &pair.write(1, 100, HEAP, pair.process));
    pair.bench.clock.advance(100);
    pair.bench.settle();
    assert!(pair.bench.probe.take_requests().is_empty(), "it is not over");
    let missing = pair.bench.iommu.take_requests()[0];
    pair.bench.clock.advance(50);
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&missing, ResponseCode::Success);
    pair.bench.settle();
    let expected = RequestEvent {
        qpn: pair.a.qpn,
        index: 0,
        opcode: OP_RDMA_WRITE.0,
        status: WC_SUCCESS.0,
        bytes: 100,
        faults: 1,
        doorbell_ns: Some(1000),
        fetched_ns: 1100,
        translated_ns: Some(1150),
        translator: Some(Translator::Iommu),
        landed_ns: Some(1150),
        written_ns: Some(1150),
        interrupted: true,
        end_ns: 1150,
    };
    assert_eq!(only(&pair), expected);
}

#[test]
fn a_sample_names_the_source_of_the_translation() {
    let mut pair = pair(1);
    pair.map_page(HEAP, true);
    let translator = |pair: &mut Pair, key| {
        let to = if key == pair.rkey { pair.to + 0x3000 } else { HEAP };
        pair.run(&pair.write(1, 8, to, key));
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        only(pair).translator
    };
    let (pinned, process) = (pair.rkey, pair.process);
    // The source was used when its region was made.
    assert_eq!(translator(&mut pair, pinned), Some(Translator::Table));
    assert_eq!(translator(&mut pair, pinned), Some(Translator::DeviceTlb));
    assert_eq!(translator(&mut pair, process), Some(Translator::Iommu));
    assert_eq!(translator(&mut pair, process), Some(Translator::DeviceTlb));
}

#[test]
fn a_hole_counts_as_a_fault_of_its_request() {
    let mut pair = pair(1);
    let mut region = OnDemand::new(&pair.bench, pair.pd, HEAP, 1 << 20);
    pair.run(&pair.write(1, 8, HEAP, region.key));
    let fault = region.fault(&pair.bench);
    region.fill(&pair.bench, HEAP, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    let request = only(&pair);
    assert_eq!((request.faults, request.translator), (1, Some(Translator::Table)));
}

#[test]
fn requests_found_together_share_the_doorbell_that_came_first() {
    let mut pair = pair(1);
    for wr_id in [1, 2] {
        pair.bench.clock.advance(1000);
        pair.a.send(&pair.bench, &pair.write(wr_id, 8, pair.to, pair.rkey));
    }
    pair.bench.settle();
    pair.a.send(&pair.bench, &pair.write(3, 8, pair.to, pair.rkey));
    pair.bench.settle();
    let doorbells: Vec<_> = pair.bench.probe.take_requests().iter().map(|r| r.doorbell_ns).collect();
    assert_eq!(doorbells, [Some(1000), Some(1000), Some(2000)]);
}

#[test]
fn failed_requests_are_sampled_too_and_without_a_completion_there_is_no_time_for_it() {
    let mut pair = pair(1);
    let silent = SqWqe { flags: WqeFlags::NONE, ..pair.write(1, 8, pair.to, pair.rkey) };
    pair.run(&silent);
    let request = only(&pair);
    assert_eq!((request.status, request.written_ns, request.landed_ns), (WC_SUCCESS.0, None, Some(0)));
    pair.run(&pair.write(2, 8, pair.to, 0xdead00));
    let request = only(&pair);
    assert_eq!((request.status, request.translated_ns, request.landed_ns), (WC_REM_ACCESS_ERR.0, None, None));
    assert_eq!(request.written_ns, Some(0));
}
