//! Connections in packets: what both ends do at the same time, and what a wire that loses all leads to.

use refault_abi::codes::{OP_RDMA_READ, OP_RDMA_WRITE, QPS_RTS, WC_RETRY_EXC_ERR, WC_SUCCESS};
use refault_abi::command::ModifyQp;
use refault_abi::queue::{SqWqe, WQE_FENCE, WQE_SIGNALED};
use refault_bus::pri::ResponseCode;
use refault_nic::{Loopback, NicConfig};

use crate::support::driver::*;
use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;

#[test]
fn both_ends_fault_at_the_same_time_and_neither_holds_up_the_other() {
    let mut pair = Pair::on(
        Bench::new(NicConfig {
            loopback: Loopback::Packets { loss_ppm: 0 },
            fault_window: 1,
            ..NicConfig::default()
        }),
        ModifyQp { path_mtu: 5, ..PATIENT },
    );
    // The responder of A faults, and so does its requester.
    let present = pair.map_page(HEAP + 0x10_0000, true);
    pair.bench.fill(present, &[0x77; 0x1000]);
    pair.b.send(&pair.bench, &pair.write(1, 8, HEAP, pair.process));
    let wqe = request(OP_RDMA_WRITE, 2, &[sge(HEAP + 0x20_0000, 8, pair.process)]);
    pair.a.send(&pair.bench, &SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..wqe });
    pair.bench.settle();
    let mut asked = pair.bench.iommu.take_requests();
    assert_eq!(asked.len(), 2);
    // In the other order.
    asked.reverse();
    for (index, asked) in asked.iter().enumerate() {
        pair.map_page(asked.page.0, true);
        pair.bench.iommu.answer(asked, ResponseCode::Success);
        pair.bench.settle();
        let done = (pair.cq_a.drain(&pair.bench).len(), pair.cq_b.drain(&pair.bench).len());
        assert_eq!(done.0 + done.1, 1, "answer {index}");
    }
}

#[test]
fn a_wire_that_loses_all_ends_in_the_transport_s_error() {
    let loopback = Loopback::Packets { loss_ppm: 1_000_000 };
    let bench = Bench::new(NicConfig { loopback, ..NicConfig::default() });
    let mut pair = Pair::on(bench, ModifyQp { timeout: 1, retry_count: 3, ..PATIENT });
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    for _ in 0..3 {
        pair.bench.advance(8192);
        assert!(pair.cq_a.drain(&pair.bench).is_empty());
    }
    pair.bench.advance(8192);
    pair.cq_a.expect(&pair.bench, WC_RETRY_EXC_ERR);
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.packets, stats.packets_lost, stats.transport_retries), (4, 4, 3));
}

#[test]
fn packets_that_another_queue_pair_sends_are_dropped() {
    let loopback = Loopback::Packets { loss_ppm: 0 };
    let bench = Bench::new(NicConfig { loopback, ..NicConfig::default() });
    let mut pair = Pair::on(bench, PATIENT);
    // It says that B is its peer; B says that A is.
    let command = Qp::command(&pair.bench, pair.pd, [pair.cq_b.cqn; 2], pair.eq.eqn, LOG);
    let mut stranger = Qp::create(&pair.bench, pair.context, &command);
    stranger.raise(&pair.bench, pair.b.qpn, QPS_RTS, PATIENT);
    stranger.send(&pair.bench, &pair.write(1, 8, pair.to, pair.rkey));
    pair.bench.settle();
    assert_eq!(pair.bench.bytes(pair.to, 8), [0; 8]);
    pair.run(&pair.write(2, 8, pair.to, pair.rkey));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

/// While a requester waits for a credit to ask for one page, a response finds another page gone. The credit, when it comes,
/// must still be its own: a credit that is given to a wait which was forgotten is lost to all.
#[test]
fn a_response_that_finds_no_page_does_not_make_a_stalled_requester_forget_its_credit() {
    let config = NicConfig {
        loopback: Loopback::Packets { loss_ppm: 0 },
        workers: 1,
        page_request_credits: 1,
        fault_window: 1,
        ..NicConfig::default()
    };
    let (gone, missing, other) = (HEAP, HEAP + 0x1000, HEAP + 0x2000);
    let mut pair = Pair::on(Bench::new(config), ModifyQp { path_mtu: 5, max_rd_atomic: 4, ..PATIENT });
    pair.map_page(gone, true);
    // B's own request takes the credit.
    pair.b.send(&pair.bench, &pair.write(1, 8, other, pair.process));
    pair.bench.settle();
    let held = pair.bench.iommu.take_requests()[0];
    let local = |opcode, id, page| {
        let wqe = request(opcode, id, &[sge(page, 8, pair.process)]);
        SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..wqe }
    };
    let (read, write) = (local(OP_RDMA_READ, 2, gone), local(OP_RDMA_WRITE, 3, missing));
    pair.a.prepare(&pair.bench, &read);
    pair.a.prepare(&pair.bench, &write);
    pair.a.ring(&pair.bench);
    // A sends the READ, and then waits for a credit.
    assert!(pair.bench.poll(0));
    assert_eq!(pair.bench.nic.stats().page_credit_waits, 1);
    pair.bench.iommu.unmap(PASID, gone);
    pair.bench.iommu.invalidate(Some(PASID), gone, 12);
    pair.bench.settle();
    pair.map_page(other, true);
    pair.bench.iommu.answer(&held, ResponseCode::Success);
    for _ in 0..8 {
        pair.bench.settle();
        for asked in pair.bench.iommu.take_requests() {
            pair.map_page(asked.page.0, true);
            pair.bench.iommu.answer(&asked, ResponseCode::Success);
        }
    }
    let done: Vec<_> = pair.cq_a.drain(&pair.bench).iter().map(|entry| (entry.wr_id, entry.status)).collect();
    assert_eq!(done, [(2, WC_SUCCESS), (3, WC_SUCCESS)]);
    pair.cq_b.expect(&pair.bench, WC_SUCCESS);
}

/// A packet is sent again, and its page is gone. Meanwhile the answer to the first time arrives. That the page will not come is
/// then of no concern, least of all to the request behind.
#[test]
fn a_page_that_is_refused_when_its_request_has_completed_fails_no_other() {
    let config =
        NicConfig { loopback: Loopback::Packets { loss_ppm: 0 }, fault_window: 1, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), ModifyQp { path_mtu: 5, timeout: 1, ..PATIENT });
    assert_ne!(pair.a.qpn % 2, pair.b.qpn % 2, "each has a worker of its own");
    let of_a = pair.a.qpn as usize % 2;
    pair.map_page(HEAP, true);
    let first = request(OP_RDMA_WRITE, 1, &[sge(HEAP, 8, pair.process)]);
    pair.a.prepare(&pair.bench, &SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..first });
    let read = request(OP_RDMA_READ, 2, &[pair.source(64, 8)]);
    pair.a.prepare(&pair.bench, &SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..read });
    // This one has not been sent when the first is sent again: it waits for the READ.
    let behind = pair.write(3, 8, pair.to + 128, pair.rkey);
    pair.a.prepare(&pair.bench, &SqWqe { flags: WQE_SIGNALED | WQE_FENCE, ..behind });
    pair.a.ring(&pair.bench);
    pair.bench.settle_worker(of_a);
    pair.bench.iommu.unmap(PASID, HEAP);
    pair.bench.iommu.invalidate(Some(PASID), HEAP, 12);
    pair.bench.clock.advance(8192);
    pair.bench.expire();
    pair.bench.settle_worker(of_a);
    let asked = pair.bench.iommu.take_requests()[0];
    pair.bench.settle();
    pair.bench.iommu.answer(&asked, ResponseCode::InvalidRequest);
    pair.bench.settle();
    let done: Vec<_> = pair.cq_a.drain(&pair.bench).iter().map(|entry| (entry.wr_id, entry.status)).collect();
    assert_eq!(done, [(1, WC_SUCCESS), (2, WC_SUCCESS), (3, WC_SUCCESS)]);
}
