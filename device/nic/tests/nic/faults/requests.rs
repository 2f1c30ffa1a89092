//! A missing page is asked for once, and what was found is not cached.

use std::collections::HashMap;

use refault_abi::codes::{OP_FETCH_ADD, OP_RDMA_READ, OP_RDMA_WRITE, OP_SEND, WC_SUCCESS};
use refault_abi::queue::SqWqe;
use refault_bus::dma::DmaMemory;
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_bus::probe::Stage;
use refault_bus::{Gpa, Iova, Pasid};

use super::HEAP;
use crate::support::driver::*;
use crate::support::*;

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
    // The fault is that of the responder.
    if IN_PACKETS {
        return;
    }
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

#[test]
fn reading_asks_for_no_write_permission() {
    let mut pair = Pair::new();
    pair.run(&request_read(&pair, HEAP));
    let request = pair.bench.iommu.take_requests()[0];
    assert!(request.read && !request.write);
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
fn both_ends_of_a_copy_may_fault_and_progress_is_kept() {
    // Both ends fault at the same time.
    if IN_PACKETS {
        return;
    }
    let mut pair = Pair::new();
    let (source, target) = (HEAP, HEAP + 0x10_0000);
    // From 0x800 before a page border: three source pages, three target pages, at different offsets.
    let wqe = request(OP_RDMA_WRITE, 1, &[sge(source + 0x800, 0x2000, pair.process)]);
    pair.run(&SqWqe { remote_addr: target + 0x400, rkey: pair.process, ..wqe });
    let mut places = HashMap::new();
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

/// An RDMA READ of 8 bytes into the pinned buffer.
fn request_read(pair: &Pair, remote_addr: u64) -> SqWqe {
    let wqe = request(OP_RDMA_READ, 3, &[sge(pair.from, 8, pair.lkey)]);
    SqWqe { remote_addr, rkey: pair.process, ..wqe }
}
