//! The page request interface: its switches in config space, its states, responses that fit no request.

use refault_abi::codes::{CAUSE_BLOCKED, CAUSE_PAGE_FAILURE, WC_REM_ACCESS_ERR, WC_SUCCESS};
use refault_abi::command::{CMD_DESTROY_CONTEXT, STATUS_BUSY};
use refault_abi::regs::{REG_STATUS, STATUS_FATAL};
use refault_bus::ats::RequestKind;
use refault_bus::pri::ResponseCode;
use refault_bus::{Pasid, PrgIndex};

use super::{HEAP, more_pairs};
use crate::support::*;

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
        assert!(kinds.iter().all(|kind| *kind == RequestKind::Untranslated));
    }
    assert_eq!(pair.bench.bytes(gpa, 8), pair.bench.bytes(pair.from, 8));
    pair.run(&pair.write(3, 8, HEAP + 0x1000, pair.process));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_BLOCKED);
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
