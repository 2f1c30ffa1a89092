//! Missing pages: requests, waiters, refusals, timeouts.

use refault_abi::codes::*;
use refault_abi::command::*;
use refault_abi::queue::*;
use refault_abi::regs::{REG_STATUS, STATUS_FATAL};
use refault_bus::dma::DmaMemory;
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_bus::probe::Stage;
use refault_bus::{Gpa, Iova, Pasid, PrgIndex};
use refault_nic::NicConfig;

use crate::support::driver::*;
use crate::support::*;

/// Where the process' memory is.
const HEAP: u64 = 0x7f00_0000_0000;

/// `count` more connected pairs of queue pairs, of the same process and on the same bench as `pair`.
fn more_pairs(pair: &Pair, count: usize) -> Vec<(Qp, Qp)> {
    let bench = &pair.bench;
    let qp = |cqn| Qp::create(bench, pair.context, &Qp::command(bench, pair.pd, [cqn; 2], pair.eq.eqn, LOG));
    let connected = |_| {
        let (a, b) = (qp(pair.cq_a.cqn), qp(pair.cq_b.cqn));
        a.raise(bench, b.qpn, QPS_RTS, PATIENT);
        b.raise(bench, a.qpn, QPS_RTS, PATIENT);
        (a, b)
    };
    (0..count).map(connected).collect()
}

#[test]
fn a_missing_page_is_asked_for_once_and_the_write_goes_on_after_the_answer() {
    let mut pair = Pair::new();
    pair.run(&pair.write(1, 100, HEAP + 8, pair.process));
    let requests = pair.bench.iommu.take_requests();
    let expected = PageRequest {
        requester: bdf(),
        pasid: Pasid::new(PASID),
        page: Iova(HEAP),
        read: true,
        write: true,
        last: true,
        group: requests[0].group,
    };
    assert_eq!(requests, [expected]);
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty() && pair.bench.iommu.take_requests().is_empty());
    let gpa = pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&requests[0], ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(gpa + 8, 100), pair.bench.bytes(pair.from, 100));
}

#[test]
fn every_stage_of_a_fault_is_recorded_with_its_group() {
    let mut pair = Pair::new();
    pair.bench.probe.take();
    pair.run(&pair.write(1, 100, HEAP, pair.process));
    let request = pair.bench.iommu.take_requests()[0];
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    pair.bench.settle();
    let events = pair.bench.probe.take();
    let stages: Vec<Stage> = events.iter().map(|event| event.stage).collect();
    assert_eq!(stages, [Stage::Miss, Stage::PageRequest, Stage::Matched, Stage::Copied]);
    assert!(events.iter().all(|event| event.iova == Iova(HEAP) && event.space.pasid() == Pasid::new(PASID)));
    assert!(events[1..].iter().all(|event| event.group == Some(request.group)));
    assert!(events.iter().all(|event| event.write));
    assert_eq!((events[0].qpn, events[1].qpn, events[3].qpn), (pair.a.qpn, pair.a.qpn, pair.a.qpn));
}

#[test]
fn a_warm_page_records_no_stage_and_needs_no_translation_request() {
    let mut pair = Pair::new();
    pair.map_page(HEAP, true);
    pair.run(&pair.write(1, 100, HEAP, pair.process));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.bench.probe.take();
    let before = pair.bench.iommu.translations();
    pair.run(&pair.write(2, 100, HEAP + 200, pair.process));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert!(pair.bench.probe.take().is_empty());
    assert_eq!(pair.bench.iommu.translations(), before);
}

#[test]
fn absence_is_never_cached() {
    let mut pair = Pair::new();
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let request = pair.bench.iommu.take_requests()[0];
    // The page appears without an invalidation, and the request is answered: the device must translate again.
    let gpa = pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    // Read-only becomes writable without an invalidation.
    pair.bench.iommu.map(PASID, HEAP + 0x1000, gpa, false);
    let read = request_read(&pair, HEAP + 0x1000);
    pair.run(&read);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.bench.iommu.map(PASID, HEAP + 0x1000, gpa, true);
    pair.run(&pair.write(1, 8, HEAP + 0x1000, pair.process));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert!(pair.bench.iommu.take_requests().is_empty());
}

/// An RDMA READ of 8 bytes into the pinned buffer.
fn request_read(pair: &Pair, remote_addr: u64) -> SqWqe {
    let wqe = request(OP_RDMA_READ, 3, &[sge(pair.from, 8, pair.lkey)]);
    SqWqe { remote_addr, rkey: pair.process, ..wqe }
}

#[test]
fn reading_asks_for_no_write_permission() {
    let mut pair = Pair::new();
    pair.run(&request_read(&pair, HEAP));
    let request = pair.bench.iommu.take_requests()[0];
    assert!(request.read && !request.write);
}

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
fn both_ends_of_a_copy_may_fault_and_progress_is_kept() {
    let mut pair = Pair::new();
    let (source, target) = (HEAP, HEAP + 0x10_0000);
    // From 0x800 before a page border: three source pages, three target pages, at different offsets.
    let wqe = request(OP_RDMA_WRITE, 1, &[sge(source + 0x800, 0x2000, pair.process)]);
    pair.run(&SqWqe { remote_addr: target + 0x400, rkey: pair.process, ..wqe });
    let mut places = std::collections::HashMap::new();
    let mut faults = 0;
    loop {
        let requests = pair.bench.iommu.take_requests();
        let Some(request) = requests.first() else { break };
        assert_eq!(requests.len(), 1);
        assert_eq!(request.write, request.page.0 >= target);
        let gpa = pair.map_page(request.page.0, request.write);
        if !request.write {
            let text: Vec<u8> = (0..0x1000u64).map(|at| ((request.page.0 + at) / 3) as u8).collect();
            pair.bench.fill(gpa, &text);
        }
        places.insert(request.page.0, gpa);
        faults += 1;
        pair.bench.iommu.answer(request, ResponseCode::Success);
        pair.bench.settle();
    }
    assert_eq!(faults, 6);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    for at in (0..0x2000u64).step_by(0x10) {
        let to = target + 0x400 + at;
        let from = source + 0x800 + at;
        let landed = pair.bench.bytes(places[&(to & !0xfff)] + (to & 0xfff), 1)[0];
        assert_eq!(landed, (from / 3) as u8, "at {at:#x}");
    }
}

#[test]
fn a_receive_buffer_may_fault_too() {
    let mut pair = Pair::new();
    pair.b.receive(&pair.bench, 5, &[sge(HEAP, 4096, pair.process)]);
    pair.run(&request(OP_SEND, 6, &[pair.source(0, 4096)]));
    let request = pair.bench.iommu.take_requests()[0];
    let gpa = pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).byte_len, 4096);
    assert_eq!(pair.bench.bytes(gpa, 4096), pair.bench.bytes(pair.from, 4096));
}

#[test]
fn an_atomic_is_done_once_though_its_result_page_faults() {
    let mut pair = Pair::new();
    let wqe = request(OP_FETCH_ADD, 1, &[sge(HEAP + 16, 8, pair.process)]);
    pair.run(&SqWqe { remote_addr: pair.to, rkey: pair.rkey, compare_add: 5, ..wqe });
    let request = pair.bench.iommu.take_requests()[0];
    assert!(request.write);
    assert_eq!(pair.bench.ram.load_u64(Gpa(pair.to)), Ok(0));
    let gpa = pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.ram.load_u64(Gpa(pair.to)), Ok(5));
    assert_eq!(pair.bench.ram.load_u64(Gpa(gpa + 16)), Ok(0));
}

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
    assert_eq!(
        pair.eq.drain(&pair.bench),
        [(refault_abi::event::EVENT_QP, refault_abi::event::QP_EVENT_ACCESS_ERROR.0, pair.b.qpn)]
    );
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

#[test]
fn an_answer_may_come_from_inside_the_page_request() {
    let mut pair = Pair::new();
    let gpa = pair.bench.allocate(0x1000);
    pair.bench.iommu.handle(move |iommu, request| {
        iommu.map(PASID, request.page.0, gpa, request.write);
        Some(ResponseCode::Success)
    });
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn a_timeout_is_an_error_and_the_index_stays_in_use_until_the_answer_comes() {
    let config = NicConfig {
        page_request_timeout_ns: Some(1000),
        page_request_credits: 2,
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

#[test]
fn credits_bound_the_requests_and_pass_on_in_order() {
    let config = NicConfig { page_request_credits: 2, fault_window: 1, ..NicConfig::default() };
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
fn a_response_failure_stops_page_requests_until_the_interface_is_enabled_again() {
    let mut pair = Pair::new();
    let mut others = more_pairs(&pair, 2);
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let request = pair.bench.iommu.take_requests()[0];
    pair.bench.iommu.answer(&request, ResponseCode::ResponseFailure);
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_PAGE_FAILURE);
    let pri = pair.bench.extended(0x13);
    assert_eq!(pair.bench.config16(pri + 6) & 1, 1);
    others[0].0.send(&pair.bench, &pair.write(2, 8, HEAP, pair.process));
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_PAGE_FAILURE);
    assert!(pair.bench.iommu.take_requests().is_empty());
    pair.bench.set_config_bits(pri + 4, 1, false);
    pair.bench.set_config_bits(pri + 4, 1, true);
    others[1].0.send(&pair.bench, &pair.write(3, 8, HEAP, pair.process));
    pair.bench.settle();
    assert_eq!(pair.bench.iommu.take_requests().len(), 1);
}

#[test]
fn unexpected_responses_are_noted_and_ignored() {
    let mut pair = Pair::new();
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let request = pair.bench.iommu.take_requests()[0];
    let other = PrgIndex::truncated(u64::from(request.group.get()) + 1);
    pair.bench.iommu.respond(request.pasid, other, ResponseCode::InvalidRequest);
    pair.bench.iommu.respond(Pasid::new(PASID + 1), request.group, ResponseCode::InvalidRequest);
    pair.bench.iommu.respond(None, request.group, ResponseCode::ResponseFailure);
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    let pri = pair.bench.extended(0x13);
    assert_eq!(pair.bench.config16(pri + 6) & 0b11, 0b10);
    pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    // A duplicate of the real one finds its group finished.
    pair.bench.iommu.answer(&request, ResponseCode::InvalidRequest);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.nic.stats().page_responses_unexpected, 4);
}

#[test]
fn the_window_requests_the_pages_ahead_and_each_is_recorded() {
    let config = NicConfig { fault_window: 4, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let present = pair.map_page(HEAP + 0x2000, true);
    pair.bench.probe.take();
    pair.run(&pair.write(1, 0x5000, HEAP + 0x800, pair.process));
    let requests = pair.bench.iommu.take_requests();
    let pages: Vec<u64> = requests.iter().map(|request| request.page.0 - HEAP).collect();
    assert_eq!(pages, [0, 0x1000, 0x3000]);
    for request in requests.iter().rev() {
        pair.map_page(request.page.0, true);
        pair.bench.iommu.answer(request, ResponseCode::Success);
    }
    pair.bench.settle();
    for request in pair.bench.iommu.take_requests() {
        pair.map_page(request.page.0, true);
        pair.bench.iommu.answer(&request, ResponseCode::Success);
        pair.bench.settle();
    }
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(present, 0x1000), pair.bench.bytes(pair.from + 0x1800, 0x1000));
    let stages = pair.bench.probe.stages();
    let count = |wanted| stages.iter().filter(|&&stage| stage == wanted).count();
    let counts = [Stage::Miss, Stage::PageRequest, Stage::Matched, Stage::Copied].map(count);
    assert!(counts[0] >= 5 && counts.iter().all(|&n| n == counts[0]), "{counts:?} {stages:?}");
}

#[test]
fn pages_asked_for_ahead_are_not_looked_up_again_at_every_answer() {
    const PAGES: u64 = 16;
    let config = NicConfig { fault_window: PAGES as u32, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let before = pair.bench.iommu.translations();
    pair.run(&pair.write(1, PAGES as u32 * 0x1000, HEAP, pair.process));
    let requests = pair.bench.iommu.take_requests();
    assert_eq!(requests.len() as u64, PAGES);
    for request in &requests {
        pair.map_page(request.page.0, true);
        pair.bench.iommu.answer(request, ResponseCode::Success);
        pair.bench.settle();
    }
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert!(pair.bench.iommu.take_requests().is_empty());
    // The translations grow with the number of pages, not with its square.
    let translations = pair.bench.iommu.translations() - before;
    assert!(translations <= 5 * PAGES, "{translations}");
}

#[test]
fn without_pasid_pri_or_bus_mastering_an_access_fails_with_its_cause() {
    for (capability, offset, bits) in [(0x1b, 6, 1), (0x13, 4, 1), (0, 4, 4)] {
        let mut pair = Pair::new();
        let base = if capability == 0 { 0 } else { pair.bench.extended(capability) };
        pair.a.prepare(&pair.bench, &pair.write(1, 8, HEAP, pair.process));
        pair.bench.set_config_bits(base + offset, bits, false);
        pair.a.ring(&pair.bench);
        pair.bench.settle();
        pair.bench.set_config_bits(base + offset, bits, true);
        assert!(pair.bench.iommu.take_requests().is_empty(), "{capability:#x}");
        if capability == 0 {
            // Not even a ring can be read, nor an event written to say so.
            assert_eq!(pair.bench.read32(REG_STATUS), STATUS_FATAL);
            continue;
        }
        let entry = pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR);
        assert_eq!(entry.vendor_error, CAUSE_BLOCKED, "{capability:#x}");
    }
}

#[test]
fn without_ats_every_access_is_untranslated_and_nothing_is_cached() {
    let mut pair = Pair::new();
    let gpa = pair.map_page(HEAP, true);
    let ats = pair.bench.extended(0x0f);
    pair.bench.set_config_bits(ats + 6, 0x8000, false);
    pair.bench.iommu.take_kinds();
    for wr_id in 0..2 {
        pair.run(&pair.write(wr_id, 8, HEAP, pair.process));
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        let kinds = pair.bench.iommu.take_kinds();
        assert!(kinds.len() > 3);
        assert!(kinds.iter().all(|kind| *kind == refault_bus::ats::RequestKind::Untranslated));
    }
    assert_eq!(pair.bench.bytes(gpa, 8), pair.bench.bytes(pair.from, 8));
    pair.run(&pair.write(3, 8, HEAP + 0x1000, pair.process));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_BLOCKED);
}

#[test]
fn the_interface_reads_as_stopped_only_when_nothing_is_outstanding() {
    let mut pair = Pair::new();
    let pri = pair.bench.extended(0x13);
    let stopped = |pair: &Pair| pair.bench.config16(pri + 6) >> 8 & 1;
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let request = pair.bench.iommu.take_requests()[0];
    assert_eq!(stopped(&pair), 0);
    pair.bench.set_config_bits(pri + 4, 1, false);
    assert_eq!(stopped(&pair), 0);
    pair.bench.iommu.answer(&request, ResponseCode::InvalidRequest);
    pair.bench.settle();
    assert_eq!(stopped(&pair), 1);
}

#[test]
fn a_reset_of_the_interface_forgets_groups_and_wakes_their_waiters() {
    let mut pair = Pair::new();
    let pri = pair.bench.extended(0x13);
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let request = pair.bench.iommu.take_requests()[0];
    pair.bench.set_config_bits(pri + 4, 1, false);
    pair.bench.set_config_bits(pri + 4, 2, true);
    assert_eq!(pair.bench.config16(pri + 6) >> 8 & 1, 1);
    pair.bench.settle();
    // The waiter retried, and may not send a page request.
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_BLOCKED);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    assert_eq!(pair.bench.nic.stats().page_responses_unexpected, 1);
}

#[test]
fn the_last_context_of_a_process_stays_until_its_page_requests_are_answered() {
    let mut pair = Pair::new();
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let request = pair.bench.iommu.take_requests()[0];
    let bench = &pair.bench;
    pair.empty_context();
    let another = bench.context(Some(PASID));
    bench.id_command(CMD_DESTROY_CONTEXT, pair.context).unwrap();
    assert_eq!(bench.id_command(CMD_DESTROY_CONTEXT, another), Err(STATUS_BUSY));
    bench.iommu.answer(&request, ResponseCode::InvalidRequest);
    bench.id_command(CMD_DESTROY_CONTEXT, another).unwrap();
}
