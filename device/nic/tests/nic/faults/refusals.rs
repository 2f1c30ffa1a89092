//! Pages that are refused, or never stay.

use refault_abi::codes::{
    CAUSE_NONE, CAUSE_PAGE_REFUSED, CAUSE_PAGE_RETRIES, OP_RDMA_WRITE, OP_SEND, QPS_ERR, QPS_RTS,
    WC_LOC_PROT_ERR, WC_REM_ACCESS_ERR, WC_REM_OP_ERR, WC_SUCCESS, WC_WR_FLUSH_ERR, WcStatus,
};
use refault_abi::event::{EVENT_QP, QP_EVENT_ACCESS_ERROR};
use refault_abi::queue::{CQE_RECEIVE, SqWqe};
use refault_bus::pri::ResponseCode;
use refault_bus::probe::Stage;
use refault_nic::NicConfig;

use super::{HEAP, more_pairs};
use crate::support::driver::*;
use crate::support::*;

#[test]
fn a_refused_remote_page_is_a_remote_access_error_and_others_do_not_notice() {
    let mut pair = Pair::new();
    let mut others = more_pairs(&pair, 1);
    pair.b.receive(&pair.bench, 50, &[]);
    pair.a.prepare(&pair.bench, &pair.write(1, 8, HEAP, pair.process));
    pair.a.prepare(&pair.bench, &pair.write(2, 8, pair.to, pair.rkey));
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    let request = pair.bench.iommu.take_requests()[0];
    pair.bench.probe.take();
    pair.bench.iommu.answer(&request, ResponseCode::InvalidRequest);
    pair.bench.settle();
    let entries = pair.cq_a.drain(&pair.bench);
    let seen: Vec<(u64, WcStatus, u32)> =
        entries.iter().map(|e| (e.wr_id, e.status, e.vendor_error)).collect();
    assert_eq!(seen, [(1, WC_REM_ACCESS_ERR, CAUSE_PAGE_REFUSED), (2, WC_WR_FLUSH_ERR, CAUSE_NONE)]);
    assert_eq!((pair.a.state(&pair.bench), pair.b.state(&pair.bench)), (QPS_ERR, QPS_ERR));
    let flushed = pair.cq_b.expect(&pair.bench, WC_WR_FLUSH_ERR);
    assert_eq!((flushed.wr_id, flushed.flags), (50, CQE_RECEIVE));
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_ACCESS_ERROR.0, pair.b.qpn)]);
    assert_eq!(pair.bench.probe.stages(), [Stage::Matched, Stage::Failed]);
    others[0].0.send(&pair.bench, &pair.write(3, 8, pair.to, pair.rkey));
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 3);
}

#[test]
fn a_refused_local_page_is_a_local_protection_error() {
    let mut pair = Pair::new();
    let wqe = request(OP_RDMA_WRITE, 1, &[sge(HEAP, 8, pair.process)]);
    pair.run(&SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..wqe });
    let request = pair.bench.iommu.take_requests()[0];
    pair.bench.iommu.answer(&request, ResponseCode::InvalidRequest);
    pair.bench.settle();
    let entry = pair.cq_a.expect(&pair.bench, WC_LOC_PROT_ERR);
    assert_eq!(entry.vendor_error, CAUSE_PAGE_REFUSED);
    assert_eq!((pair.a.state(&pair.bench), pair.b.state(&pair.bench)), (QPS_ERR, QPS_RTS));
}

#[test]
fn a_refused_receive_page_fails_the_receiver_and_the_sender() {
    let mut pair = Pair::new();
    pair.b.receive(&pair.bench, 5, &[sge(HEAP, 64, pair.process)]);
    pair.run(&request(OP_SEND, 6, &[pair.source(0, 64)]));
    let request = pair.bench.iommu.take_requests()[0];
    pair.bench.iommu.answer(&request, ResponseCode::InvalidRequest);
    pair.bench.settle();
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_LOC_PROT_ERR).vendor_error, CAUSE_PAGE_REFUSED);
    pair.cq_a.expect(&pair.bench, WC_REM_OP_ERR);
}

#[test]
fn a_refusal_decided_before_others_joined_does_not_fail_them() {
    let mut pair = Pair::new();
    let mut others = more_pairs(&pair, 2);
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let early = pair.bench.iommu.take_requests()[0];
    // The guest has decided. Now it allows the page, and only then more requests are posted; its answer is still to
    // come.
    for ((a, _), id) in others.iter_mut().zip(2..) {
        a.send(&pair.bench, &pair.write(id, 8, HEAP, pair.process));
    }
    pair.bench.settle();
    assert!(pair.bench.iommu.take_requests().is_empty());
    pair.bench.iommu.answer(&early, ResponseCode::InvalidRequest);
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).wr_id, 1);
    let late = pair.bench.iommu.take_requests();
    assert_eq!(late.len(), 1, "they ask again, and together");
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&late[0], ResponseCode::Success);
    pair.bench.settle();
    let entries = pair.cq_a.drain(&pair.bench);
    assert!(entries.len() == 2 && entries.iter().all(|entry| entry.status == WC_SUCCESS), "{entries:?}");
}

#[test]
fn a_page_that_never_stays_is_given_up_after_bounded_retries_with_pauses() {
    let config = NicConfig { page_retry_limit: 12, fault_window: 1, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    pair.bench.iommu.handle(|_, _| Some(ResponseCode::Success));
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let prompt = pair.bench.iommu.take_requests().len();
    assert!(prompt < 13, "{prompt} without a pause");
    let mut waits = 0;
    while let Some(deadline) = pair.bench.next_deadline_ns().filter(|_| waits < 100) {
        let now = refault_bus::clock::Clock::now_ns(&*pair.bench.clock);
        pair.bench.advance(deadline.saturating_sub(now));
        waits += 1;
        if pair.a.state(&pair.bench) == QPS_ERR {
            break;
        }
    }
    let entry = pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR);
    assert_eq!(entry.vendor_error, CAUSE_PAGE_RETRIES);
    assert_eq!(prompt + pair.bench.iommu.take_requests().len(), 13);
}
