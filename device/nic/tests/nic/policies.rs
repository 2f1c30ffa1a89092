//! What a responder in packets does when a page of its memory is missing, policy by policy.

use refault_abi::codes::{OP_FETCH_ADD, OP_RDMA_READ, WC_RETRY_EXC_ERR, WC_RNR_RETRY_EXC_ERR, WC_SUCCESS};
use refault_abi::command::{FAULT_REFUSED, FAULT_RESOLVED, ModifyQp};
use refault_abi::queue::SqWqe;
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_nic::{Loopback, NicConfig, PacketConfig, RemoteFaults};

use crate::support::driver::*;
use crate::support::table::*;
use crate::support::*;

const PAGE: u64 = 0x7f00_0013_0000;
/// The delay of timer code 12, which the queue pairs have.
const OWN_DELAY_NS: u64 = 640_000;
/// That of code 20, which a responder sends that will say when its page is there.
const LONG_DELAY_NS: u64 = 10_240_000;
/// The ACK timeout of code 8.
const TIMEOUT_NS: u64 = 1_048_576;

fn pair_with(remote_faults: RemoteFaults, packets: PacketConfig, attributes: ModifyQp) -> Pair {
    let loopback = Loopback::Packets { loss_ppm: 0 };
    let config = NicConfig { loopback, remote_faults, packets, fault_window: 1, ..NicConfig::default() };
    Pair::on(Bench::new(config), ModifyQp { path_mtu: 5, timeout: 8, ..attributes })
}

fn pair(remote_faults: RemoteFaults) -> Pair {
    pair_with(remote_faults, PacketConfig::default(), PATIENT)
}

/// The only page request there is.
fn asked(pair: &Pair) -> PageRequest {
    let asked = pair.bench.iommu.take_requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    asked[0]
}

fn answer(pair: &Pair, asked: &PageRequest) -> u64 {
    let gpa = pair.map_page(asked.page.0, true);
    pair.bench.iommu.answer(asked, ResponseCode::Success);
    pair.bench.settle();
    gpa
}

#[test]
fn a_packet_that_was_dropped_comes_again_after_the_ack_timeout() {
    let mut pair = pair(RemoteFaults::Drop);
    pair.run(&pair.write(1, 8, PAGE, pair.process));
    let gpa = answer(&pair, &asked(&pair));
    pair.bench.advance(TIMEOUT_NS - 1);
    assert!(pair.cq_a.drain(&pair.bench).is_empty(), "the answer wakes no requester");
    pair.bench.advance(1);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(gpa, 8), pair.bench.bytes(pair.from, 8));
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.requests_dropped_on_fault, stats.transport_retries, stats.rnr_naks), (1, 1, 0));
    assert_eq!((stats.packets, stats.packets_repeated, stats.held_bytes_peak), (3, 1, 0));
}

#[test]
fn what_follows_a_dropped_packet_brings_it_back_once() {
    let mut pair = pair(RemoteFaults::Drop);
    for id in 0..3 {
        pair.a.prepare(&pair.bench, &pair.write(id, 8, PAGE, pair.process));
    }
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    // Three packets, a NAK, three again: they are dropped like the first time, and cause no other NAK.
    assert_eq!(pair.bench.nic.stats().packets, 7);
    answer(&pair, &asked(&pair));
    pair.bench.advance(TIMEOUT_NS);
    assert_eq!(pair.cq_a.drain(&pair.bench).len(), 3);
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.requests_dropped_on_fault, stats.transport_retries), (2, 1));
}

#[test]
fn a_page_that_takes_longer_than_all_timeouts_fails_the_dropped_request() {
    let mut pair =
        pair_with(RemoteFaults::Drop, PacketConfig::default(), ModifyQp { retry_count: 2, ..PATIENT });
    pair.run(&pair.write(1, 8, PAGE, pair.process));
    let asked = asked(&pair);
    for _ in 0..2 {
        pair.bench.advance(TIMEOUT_NS);
        assert!(pair.cq_a.drain(&pair.bench).is_empty());
    }
    pair.bench.advance(TIMEOUT_NS);
    pair.cq_a.expect(&pair.bench, WC_RETRY_EXC_ERR);
    answer(&pair, &asked);
    assert!(pair.bench.iommu.take_requests().is_empty());
}

#[test]
fn a_resume_nak_ends_the_delay_when_the_page_is_there() {
    let mut pair = pair(RemoteFaults::ResumeNak);
    let wqe = SqWqe { compare_add: 5, ..request(OP_FETCH_ADD, 1, &[pair.source(0, 8)]) };
    pair.run(&SqWqe { remote_addr: PAGE, rkey: pair.process, ..wqe });
    pair.bench.advance(2 * OWN_DELAY_NS);
    assert_eq!(pair.bench.nic.stats().packets, 2, "the request and the NAK: its delay is a long one");
    let gpa = answer(&pair, &asked(&pair));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(gpa, 8), 5u64.to_le_bytes(), "once");
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.rnr_naks, stats.rnr_waits, stats.rnr_resumes), (1, 1, 1));
    assert_eq!((stats.transport_retries, stats.held_bytes_peak), (0, 0));
}

#[test]
fn a_page_later_than_the_long_delay_is_asked_for_once_and_announced_once() {
    let mut pair = pair(RemoteFaults::ResumeNak);
    let mut region = OnDemand::new(&pair.bench, pair.pd, PAGE, 1 << 20);
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    for _ in 0..3 {
        pair.bench.advance(LONG_DELAY_NS);
    }
    assert!(region.faults(&pair.bench).is_empty() && pair.cq_a.drain(&pair.bench).is_empty());
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.rnr_naks, stats.rnr_resumes), (4, 1));
}

#[test]
fn delays_that_are_resumed_count_as_delays() {
    let attributes = ModifyQp { rnr_retry: 1, ..PATIENT };
    let mut pair = pair_with(RemoteFaults::ResumeNak, PacketConfig::default(), attributes);
    pair.run(&pair.write(1, 8, PAGE, pair.process));
    // The page is gone again before the request comes.
    let first = asked(&pair);
    pair.bench.iommu.answer(&first, ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_RNR_RETRY_EXC_ERR);
}

#[test]
fn a_refusal_is_seen_when_the_request_comes_again() {
    for (policy, wait_ns) in [(RemoteFaults::Drop, TIMEOUT_NS), (RemoteFaults::ResumeNak, 0)] {
        let mut pair = pair(policy);
        let mut region = OnDemand::new(&pair.bench, pair.pd, PAGE, 1 << 20);
        pair.run(&pair.write(1, 8, PAGE, region.key));
        let fault = region.fault(&pair.bench);
        resume(&pair.bench, fault.token, FAULT_REFUSED).unwrap();
        pair.bench.advance(wait_ns);
        let entry = pair.cq_a.expect(&pair.bench, REFUSED.0);
        assert_eq!(entry.vendor_error, REFUSED.1, "{policy:?}");
    }
}

#[test]
fn reads_are_treated_as_writes_are() {
    for (policy, wait_ns) in
        [(RemoteFaults::Rnr, OWN_DELAY_NS), (RemoteFaults::Drop, TIMEOUT_NS), (RemoteFaults::ResumeNak, 0)]
    {
        let mut pair = pair(policy);
        let wqe = request(OP_RDMA_READ, 1, &[pair.source(0, 8)]);
        pair.run(&SqWqe { remote_addr: PAGE, rkey: pair.process, ..wqe });
        let gpa = pair.map_page(PAGE, true);
        pair.bench.fill(gpa, &[0x5a; 8]);
        pair.bench.iommu.answer(&asked(&pair), ResponseCode::Success);
        pair.bench.settle();
        if wait_ns > 0 {
            assert!(pair.cq_a.drain(&pair.bench).is_empty(), "{policy:?}");
            pair.bench.advance(wait_ns);
        }
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        assert_eq!(pair.bench.bytes(pair.from, 8), [0x5a; 8], "{policy:?}");
    }
}

#[test]
fn all_pages_of_a_message_are_asked_for_with_its_first_packet() {
    let packets = PacketConfig { prefault: true, ..PacketConfig::default() };
    for policy in [RemoteFaults::Stall, RemoteFaults::Rnr, RemoteFaults::Drop, RemoteFaults::ResumeNak] {
        let mut pair = pair_with(policy, packets, PATIENT);
        // The first two are there.
        let gpas: Vec<_> = (0..2).map(|page| pair.map_page(PAGE + page * 0x1000, true)).collect();
        pair.run(&pair.write(1, 0x8000, PAGE, pair.process));
        let asked = pair.bench.iommu.take_requests();
        let pages: Vec<_> = asked.iter().map(|asked| (asked.page.0 - PAGE) >> 12).collect();
        assert_eq!(pages, [2, 3, 4, 5, 6, 7], "{policy:?}");
        let more: Vec<_> = asked.iter().map(|asked| answer(&pair, asked)).collect();
        pair.bench.advance(TIMEOUT_NS.max(OWN_DELAY_NS));
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        assert!(pair.bench.iommu.take_requests().is_empty(), "{policy:?}");
        for (page, gpa) in (0u64..).zip(gpas.iter().chain(&more)) {
            let source = pair.bench.bytes(pair.from + page * 0x1000, 0x1000);
            assert!(pair.bench.bytes(*gpa, 0x1000) == source, "{policy:?}, page {page}");
        }
        let stats = pair.bench.nic.stats();
        let treated = stats.rnr_naks + stats.requests_dropped_on_fault;
        assert!(treated <= 6, "{policy:?}: {treated} times for six pages");
    }
}

#[test]
fn a_driver_hears_of_the_whole_message_at_once() {
    let packets = PacketConfig { prefault: true, ..PacketConfig::default() };
    let mut pair = pair_with(RemoteFaults::ResumeNak, packets, PATIENT);
    let mut region = OnDemand::new(&pair.bench, pair.pd, PAGE, 1 << 20);
    region.fill(&pair.bench, PAGE, true);
    pair.run(&pair.write(1, 0x1_0000, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    assert_eq!((fault.address - PAGE, fault.length), (0x1000, 0xf000));
    (1..16).for_each(|page| _ = region.fill(&pair.bench, PAGE + page * 0x1000, true));
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn behind_a_dam_requests_wait_for_the_ack_timeout() {
    let packets = PacketConfig { damming: true, ..PacketConfig::default() };
    let mut pair = pair_with(RemoteFaults::Rnr, packets, PATIENT);
    pair.a.prepare(&pair.bench, &pair.write(1, 8, PAGE, pair.process));
    pair.a.prepare(&pair.bench, &pair.write(2, 8, pair.to, pair.rkey));
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    answer(&pair, &asked(&pair));
    pair.bench.advance(OWN_DELAY_NS);
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 1);
    pair.bench.advance(TIMEOUT_NS - 1);
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    pair.bench.advance(1);
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 2);
}

#[test]
fn a_stalled_responder_keeps_as_much_as_its_buffer_holds() {
    for (fault_buffer, lost) in [(256, 0), (4, 12)] {
        let packets = PacketConfig { fault_buffer, ..PacketConfig::default() };
        let mut pair = pair_with(RemoteFaults::Stall, packets, PATIENT);
        pair.run(&pair.write(1, 0x1_0000, PAGE, pair.process));
        let stats = pair.bench.nic.stats();
        assert_eq!(stats.packets_lost, lost);
        let kept = u64::from(16 - u32::try_from(lost).unwrap());
        assert!((kept * 4096..kept * 4300).contains(&stats.held_bytes_peak), "{}", stats.held_bytes_peak);
        for round in 0.. {
            assert!(round < 40);
            for asked in pair.bench.iommu.take_requests() {
                answer(&pair, &asked);
            }
            if round % 8 == 7 {
                pair.bench.advance(TIMEOUT_NS);
            }
            if let Some(entry) = pair.cq_a.drain(&pair.bench).first() {
                assert_eq!(entry.status, WC_SUCCESS);
                break;
            }
        }
    }
}
