//! Two processes: what they may do for each other, and not to each other.

use refault_abi::codes::{
    CAUSE_KEY, OP_SEND, QPS_ERR, QPS_RESET, QPS_RTR, QPS_RTS, WC_REM_ACCESS_ERR, WC_RETRY_EXC_ERR, WC_SUCCESS,
};
use refault_abi::command::{CMD_DESTROY_CONTEXT, CMD_STOP_CONTEXT, ModifyQp, ObjectId};
use refault_bus::pri::ResponseCode;
use refault_bus::probe::Stage;
use zerocopy::IntoBytes;

use crate::support::driver::*;
use crate::support::neighbour::*;
use crate::support::table::OnDemand;
use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;

/// Retries are few and their waits short.
const IMPATIENT: ModifyQp =
    ModifyQp { timeout: 1, retry_count: 1, rnr_retry: 1, min_rnr_timer: 1, ..PATIENT };
/// Its transport timer, and the delay of its RNR NAKs.
const TIMEOUT_NS: u64 = 8192;
const RNR_DELAY_NS: u64 = 10_000;

/// From RESET to RTR again and again, with a destination of its own choice.
fn pester(bench: &Bench, qp: &Qp, destination: u32) {
    for _ in 0..10 {
        qp.to(bench, QPS_RESET);
        qp.raise(bench, destination, QPS_RTR, PATIENT);
        bench.settle();
    }
}

#[test]
fn a_write_into_another_process_faults_there() {
    let mut pair = Pair::unconnected(Bench::default());
    let neighbour = Neighbour::connected(&pair, PATIENT);
    pair.run(&pair.write(1, 8, HEAP, neighbour.process));
    let asked = pair.bench.iommu.take_requests()[0];
    assert_eq!((asked.pasid.map(|pasid| pasid.get()), asked.page.0), (Some(NEIGHBOUR), HEAP));
    let gpa = pair.bench.allocate(0x1000);
    pair.bench.iommu.map(NEIGHBOUR, HEAP, gpa, true);
    pair.bench.iommu.answer(&asked, ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(gpa, 8), pair.bench.bytes(pair.from, 8));
}

#[test]
fn the_keys_of_one_process_are_none_of_the_other_s() {
    let mut pair = Pair::unconnected(Bench::default());
    let neighbour = Neighbour::connected(&pair, PATIENT);
    // The sender's own key is not the receiver's.
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_KEY);
    assert_eq!(neighbour.qp.state(&pair.bench), QPS_ERR);
    assert_eq!(pair.b.state(&pair.bench), QPS_RESET);
}

#[test]
fn a_process_that_is_stopped_is_a_peer_that_does_not_answer_and_nothing_lands_there() {
    let mut pair = Pair::unconnected(Bench::default());
    let neighbour = Neighbour::connected(&pair, ModifyQp { timeout: 1, retry_count: 0, ..PATIENT });
    pair.run(&pair.write(1, 0x2000, HEAP, neighbour.process));
    let asked = pair.bench.iommu.take_requests()[0];
    pair.bench.urgent_command(CMD_STOP_CONTEXT, neighbour.context).unwrap();
    let gpa = pair.bench.allocate(0x1000);
    pair.bench.iommu.map(NEIGHBOUR, HEAP, gpa, true);
    pair.bench.iommu.answer(&asked, ResponseCode::Success);
    pair.bench.settle();
    pair.bench.advance(TIMEOUT_NS);
    pair.cq_a.expect(&pair.bench, WC_RETRY_EXC_ERR);
    assert_eq!(pair.bench.bytes(gpa, 8), [0; 8]);
    assert!(pair.bench.iommu.take_requests().is_empty());
}

/// Stops the neighbour between the miss and what would be sent for it. Whether that was answered.
fn stop_at_the_next_miss(bench: &Bench, neighbour: &Neighbour) -> impl Fn(&Bench) -> bool + use<> {
    let context = ObjectId { id: neighbour.context, reserved: 0 };
    let token = bench.prepare_command(1, CMD_STOP_CONTEXT, context.as_bytes());
    bench.probe.at(Stage::Miss, bench.ring_lane(1));
    move |bench| (0..4).any(|slot| bench.response(1, slot).token == token)
}

/// The requester is another context's, so stopping the context does not stop it.
#[test]
fn no_page_request_of_a_process_leaves_after_it_was_stopped() {
    let mut pair = Pair::unconnected(Bench::default());
    let neighbour = Neighbour::connected(&pair, ModifyQp { timeout: 1, retry_count: 0, ..PATIENT });
    let is_stopped = stop_at_the_next_miss(&pair.bench, &neighbour);
    pair.run(&pair.write(1, 0x2000, HEAP, neighbour.process));
    assert!(is_stopped(&pair.bench));
    assert!(pair.bench.iommu.take_requests().is_empty());
    pair.bench.advance(TIMEOUT_NS);
    pair.cq_a.expect(&pair.bench, WC_RETRY_EXC_ERR);
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.page_requests, stats.page_requests_called_off), (0, 1));
    // No answer is owed: the PASID may be unbound.
    neighbour.empty_context(&pair.bench);
    pair.bench.id_command(CMD_DESTROY_CONTEXT, neighbour.context).unwrap();
}

#[test]
fn no_page_fault_of_a_process_is_reported_after_it_was_stopped() {
    let mut pair = Pair::unconnected(Bench::default());
    let neighbour = Neighbour::connected(&pair, ModifyQp { timeout: 1, retry_count: 0, ..PATIENT });
    let mut region = OnDemand::new(&pair.bench, neighbour.pd, HEAP, 0x2000);
    let is_stopped = stop_at_the_next_miss(&pair.bench, &neighbour);
    pair.run(&pair.write(1, 0x2000, HEAP, region.key));
    assert!(is_stopped(&pair.bench));
    assert!(region.faults(&pair.bench).is_empty());
    pair.bench.advance(TIMEOUT_NS);
    pair.cq_a.expect(&pair.bench, WC_RETRY_EXC_ERR);
}

#[test]
fn another_process_does_not_end_a_wait_for_a_receive_request() {
    let mut pair = Pair::with(IMPATIENT);
    let stranger = Neighbour::new(&pair.bench, pair.eq.eqn);
    pair.run(&request(OP_SEND, 1, &[pair.source(0, 8)]));
    pester(&pair.bench, &stranger.qp, pair.a.qpn);
    pair.a.ring(&pair.bench);
    pair.bench.advance(RNR_DELAY_NS - 1);
    assert_eq!((pair.bench.nic.stats().rnr_waits, pair.cq_a.drain(&pair.bench).len()), (1, 0));
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 8, pair.rkey)]);
    pair.bench.advance(1);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn another_process_does_not_end_a_wait_for_the_peer() {
    // The first time is no retry.
    if IN_PACKETS {
        return;
    }
    let mut pair = Pair::unconnected(Bench::default());
    let stranger = Neighbour::new(&pair.bench, pair.eq.eqn);
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, IMPATIENT);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pester(&pair.bench, &stranger.qp, pair.a.qpn);
    // The transport timer runs to its end, even for the peer itself.
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, IMPATIENT);
    pair.bench.advance(TIMEOUT_NS - 1);
    assert_eq!((pair.bench.nic.stats().transport_retries, pair.cq_a.drain(&pair.bench).len()), (1, 0));
    pair.bench.advance(1);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn another_process_is_not_taken_for_a_peer_that_is_waited_for_without_a_limit() {
    // No packet says that the peer is ready.
    if IN_PACKETS {
        return;
    }
    let mut pair = Pair::unconnected(Bench::default());
    let stranger = Neighbour::new(&pair.bench, pair.eq.eqn);
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, ModifyQp { timeout: 0, ..IMPATIENT });
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pester(&pair.bench, &stranger.qp, pair.a.qpn);
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTR, IMPATIENT);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn a_page_is_waited_for_whoever_knocks() {
    let mut pair = Pair::new();
    let stranger = Neighbour::new(&pair.bench, pair.eq.eqn);
    // As often as it takes for the device to pause between page requests.
    pair.run(&pair.write(1, 8, HEAP, pair.process));
    let mut requests = 0;
    while let Some(asked) = pair.bench.iommu.take_requests().first() {
        requests += 1;
        pair.bench.iommu.answer(asked, ResponseCode::Success);
        pair.bench.settle();
    }
    pester(&pair.bench, &stranger.qp, pair.a.qpn);
    assert!(pair.bench.iommu.take_requests().is_empty(), "the pause after {requests} requests was cut short");
}
