//! Whom a missing page holds up, and whom it does not.

use refault_bus::pri::ResponseCode;
use refault_nic::NicConfig;

use super::{HEAP, more_pairs};
use crate::support::driver::*;
use crate::support::*;

#[test]
fn a_parked_queue_pair_blocks_no_other() {
    let bench = Bench::new(NicConfig { workers: 1, fault_window: 1, ..NicConfig::default() });
    let mut pair = Pair::on(bench, PATIENT);
    let mut others = more_pairs(&pair, 3);
    pair.run(&pair.write(1, 100, HEAP, pair.process));
    for (a, _) in &mut others {
        a.send(&pair.bench, &pair.write(2, 4096, pair.to, pair.rkey));
    }
    pair.bench.settle();
    let done: Vec<u64> = pair.cq_a.drain(&pair.bench).iter().map(|entry| entry.wr_id).collect();
    assert_eq!(done, [2, 2, 2]);
    // Commands and invalidations are not held up either.
    pair.bench.pd(pair.context);
    pair.bench.iommu.invalidate(Some(PASID), HEAP, 12);
    pair.bench.iommu.invalidate(None, 0, 64);
}

#[test]
fn requests_behind_a_fault_keep_their_order() {
    let mut pair = Pair::new();
    pair.a.prepare(&pair.bench, &pair.write(1, 8, HEAP, pair.process));
    pair.a.prepare(&pair.bench, &pair.write(2, 8, pair.to, pair.rkey));
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    let request = pair.bench.iommu.take_requests()[0];
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    pair.bench.settle();
    let ids: Vec<u64> = pair.cq_a.drain(&pair.bench).iter().map(|entry| entry.wr_id).collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn queue_pairs_that_miss_the_same_page_wait_for_one_request() {
    let mut pair = Pair::new();
    let mut others = more_pairs(&pair, 3);
    for (a, _) in &mut others {
        a.send(&pair.bench, &pair.write(2, 8, HEAP, pair.process));
    }
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let requests = pair.bench.iommu.take_requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(pair.bench.nic.stats().page_waits_joined, 3);
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&requests[0], ResponseCode::Success);
    pair.bench.settle();
    assert_eq!(pair.cq_a.drain(&pair.bench).len(), 4);
}
