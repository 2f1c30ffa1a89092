//! Credits are shared: a process that lets pages go unanswered keeps no other one from its own.

use refault_abi::codes::{CAUSE_PAGE_TIMEOUT, QPS_RESET, QPS_RTS, WC_SUCCESS};
use refault_abi::command::FAULT_RESOLVED;
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_nic::NicConfig;

use super::{HEAP, more_pairs};
use crate::support::driver::*;
use crate::support::neighbour::*;
use crate::support::table::*;
use crate::support::*;

const CREDITS: u32 = 8;

fn few_credits() -> Pair {
    let config = NicConfig {
        page_request_credits: CREDITS,
        page_fault_credits: CREDITS,
        fault_window: 1,
        ..NicConfig::default()
    };
    Pair::on(Bench::new(config), PATIENT)
}

fn of(requests: &[PageRequest], pasid: u32) -> usize {
    requests.iter().filter(|request| request.pasid.is_some_and(|of| of.get() == pasid)).count()
}

/// The neighbour's write to an absent page of its own succeeds, as soon as its page request is answered.
fn neighbour_faults(bench: &Bench, neighbour: &mut Neighbour) {
    neighbour.write(bench, HEAP, neighbour.process);
    let requests = bench.iommu.take_requests();
    assert_eq!((requests.len(), of(&requests, NEIGHBOUR)), (1, 1), "the neighbour has no credit");
    bench.iommu.map(NEIGHBOUR, HEAP, bench.allocate(0x1000), true);
    bench.iommu.answer(&requests[0], ResponseCode::Success);
    bench.settle();
    neighbour.cq.expect(bench, WC_SUCCESS);
}

#[test]
fn page_requests_that_are_never_answered_leave_credits_to_other_processes() {
    let pair = few_credits();
    let mut neighbour = Neighbour::alone(&pair);
    let mut others = more_pairs(&pair, 2 * CREDITS as usize);
    for ((a, _), page) in others.iter_mut().zip(0..) {
        a.send(&pair.bench, &pair.write(page, 8, HEAP + page * 0x1000, pair.process));
        pair.bench.settle();
    }
    let mut hoard = pair.bench.iommu.take_requests();
    assert_eq!(hoard.len() as u32, CREDITS / 2);
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.page_credit_waits, stats.page_quota_waits), (12, 12));
    neighbour_faults(&pair.bench, &mut neighbour);
    // The hoarder gets no more for what the neighbour has returned, but all that it returns itself.
    assert!(pair.bench.iommu.take_requests().is_empty());
    while let Some(request) = hoard.pop() {
        pair.bench.iommu.map(PASID, request.page.0, pair.to, true);
        pair.bench.iommu.answer(&request, ResponseCode::Success);
        pair.bench.settle();
        hoard.extend(pair.bench.iommu.take_requests());
    }
    let Pair { bench, mut cq_a, .. } = pair;
    assert_eq!(cq_a.drain(&bench).len() as u32, 2 * CREDITS);
}

#[test]
fn page_faults_that_are_never_answered_leave_credits_to_other_processes() {
    let pair = few_credits();
    let mut neighbour = Neighbour::alone(&pair);
    let mut hoarder = OnDemand::new(&pair.bench, pair.pd, HEAP, 0x10_0000);
    let mut others = more_pairs(&pair, 2 * CREDITS as usize);
    for ((a, _), page) in others.iter_mut().zip(0..) {
        a.send(&pair.bench, &pair.write(page, 8, HEAP + page * 0x1000, hoarder.key));
        pair.bench.settle();
    }
    assert_eq!(hoarder.faults(&pair.bench).len() as u32, CREDITS / 2);
    let mut region = OnDemand::new(&pair.bench, neighbour.pd, HEAP, 0x1000);
    neighbour.write(&pair.bench, HEAP, region.key);
    let fault = region.fault(&pair.bench);
    region.fill(&pair.bench, HEAP, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.bench.settle();
    neighbour.cq.expect(&pair.bench, WC_SUCCESS);
    // A region that goes returns its credits; they are its owner's again, and the waiters fail.
    hoarder.destroy(&pair.bench);
    pair.bench.settle();
    let Pair { bench, mut cq_a, .. } = pair;
    assert_eq!(cq_a.drain(&bench).len() as u32, 2 * CREDITS);
}

#[test]
fn pages_that_were_given_up_still_count_for_their_process() {
    let config = NicConfig {
        page_request_credits: CREDITS,
        page_request_timeout_ns: Some(1000),
        fault_window: 1,
        ..NicConfig::default()
    };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let mut neighbour = Neighbour::alone(&pair);
    let mut requests = 0;
    // One queue pair, again and again.
    for page in 0..u64::from(2 * CREDITS) {
        pair.run(&pair.write(1, 8, HEAP + page * 0x1000, pair.process));
        pair.bench.advance(1000);
        assert_eq!(pair.cq_a.drain(&pair.bench)[0].vendor_error, CAUSE_PAGE_TIMEOUT);
        requests += pair.bench.iommu.take_requests().len();
        connect_anew(&mut pair);
    }
    assert_eq!(requests as u32, CREDITS / 2);
    neighbour_faults(&pair.bench, &mut neighbour);
}

#[test]
fn pages_of_a_queue_pair_that_was_reset_still_count_for_their_process() {
    let mut pair = few_credits();
    let mut neighbour = Neighbour::alone(&pair);
    for page in 0..u64::from(2 * CREDITS) {
        pair.run(&pair.write(1, 8, HEAP + page * 0x1000, pair.process));
        connect_anew(&mut pair);
    }
    assert_eq!(pair.bench.iommu.take_requests().len() as u32, CREDITS / 2);
    neighbour_faults(&pair.bench, &mut neighbour);
}

/// Resets both queue pairs, and connects them.
fn connect_anew(pair: &mut Pair) {
    let bench = &pair.bench;
    for qp in [&mut pair.a, &mut pair.b] {
        qp.to(bench, QPS_RESET);
        (qp.sent, qp.received) = (0, 0);
        bench.fill(qp.record, &[0; 128]);
    }
    pair.a.raise(bench, pair.b.qpn, QPS_RTS, PATIENT);
    pair.b.raise(bench, pair.a.qpn, QPS_RTS, PATIENT);
}

/// The owner of a page pays, not the process that needs it: a process cannot be
/// starved by peers that let their pages go unanswered.
#[test]
fn pages_of_a_peer_count_for_the_peer() {
    let mut pair = few_credits();
    let neighbour = Neighbour::new(&pair.bench, pair.eq.eqn);
    let command = |pd, cqn| Qp::command(&pair.bench, pd, [cqn; 2], pair.eq.eqn, LOG);
    for page in 0..u64::from(2 * CREDITS) {
        let mut a = Qp::create(&pair.bench, pair.context, &command(pair.pd, pair.cq_a.cqn));
        let b = Qp::create(&pair.bench, neighbour.context, &command(neighbour.pd, neighbour.cq.cqn));
        a.raise(&pair.bench, b.qpn, QPS_RTS, PATIENT);
        b.raise(&pair.bench, a.qpn, QPS_RTS, PATIENT);
        a.send(&pair.bench, &pair.write(page, 8, HEAP + page * 0x1000, neighbour.process));
        pair.bench.settle();
    }
    let requests = pair.bench.iommu.take_requests();
    assert_eq!((requests.len() as u32, of(&requests, NEIGHBOUR)), (CREDITS / 2, requests.len()));
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let request = pair.bench.iommu.take_requests()[0];
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn without_a_quota_one_process_may_take_all() {
    let config = NicConfig {
        page_request_credits: CREDITS,
        credit_quota: false,
        fault_window: 1,
        ..NicConfig::default()
    };
    let pair = Pair::on(Bench::new(config), PATIENT);
    let mut others = more_pairs(&pair, 2 * CREDITS as usize);
    for ((a, _), page) in others.iter_mut().zip(0..) {
        a.send(&pair.bench, &pair.write(page, 8, HEAP + page * 0x1000, pair.process));
        pair.bench.settle();
    }
    assert_eq!(pair.bench.iommu.take_requests().len() as u32, CREDITS);
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.page_credit_waits, stats.page_quota_waits), (8, 0));
}
