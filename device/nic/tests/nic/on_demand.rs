//! On-demand regions: holes are faults, answers resume, invalidations win.

use refault_abi::codes::{
    CAUSE_BOUNDS, CAUSE_KEY, CAUSE_NOT_MEMORY, CAUSE_PAGE_REFUSED, CAUSE_PAGE_TIMEOUT, CAUSE_REVOKED,
    OP_FETCH_ADD, OP_RDMA_READ, OP_RDMA_WRITE, QPS_RTS, WC_LOC_PROT_ERR, WC_REM_ACCESS_ERR, WC_SUCCESS,
};
use refault_abi::command::{
    CMD_CREATE_MR, CMD_DESTROY_EQ, CMD_DESTROY_MR, CMD_REVOKE_MR, CreateMr, FAULT_REFUSED, FAULT_RESOLVED,
    ODP_PRESENT, ODP_TABLE, ODP_WRITABLE, ObjectId, PageTable, STATUS_BAD_MEMORY, STATUS_BAD_PARAMETER,
    STATUS_BUSY, STATUS_NO_OBJECT,
};
use refault_abi::event::FAULT_WRITE;
use refault_abi::queue::SqWqe;
use refault_abi::regs::{CONTROL_RESET, REG_CONTROL};
use refault_bus::dma::DmaMemory;
use refault_bus::probe::Stage;
use refault_bus::{AddressSpace, Gpa, Iova};
use refault_nic::NicConfig;

use crate::support::driver::*;
use crate::support::table::*;
use crate::support::*;

/// Where the region begins: not at a page of any size.
const START: u64 = 0x7f00_0012_3400;
const LENGTH: u64 = 16 << 20;
/// A page inside.
const PAGE: u64 = 0x7f00_0013_0000;

fn with(config: NicConfig) -> (Pair, OnDemand) {
    let pair = Pair::on(Bench::new(config), PATIENT);
    let region = OnDemand::new(&pair.bench, pair.pd, START, LENGTH);
    (pair, region)
}

fn pair() -> (Pair, OnDemand) {
    with(NicConfig { fault_window: 1, ..NicConfig::default() })
}

#[test]
fn a_hole_raises_one_fault_and_the_write_goes_on_after_the_answer() {
    let (mut pair, mut region) = pair();
    pair.run(&pair.write(1, 100, PAGE + 8, region.key));
    let fault = region.fault(&pair.bench);
    assert_eq!((fault.address, fault.length, fault.code), (PAGE, 108, FAULT_WRITE));
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty() && region.faults(&pair.bench).is_empty());
    let gpa = region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(gpa + 8, 100), pair.bench.bytes(pair.from, 100));
    assert!(pair.bench.iommu.take_requests().is_empty(), "nothing of it is the IOMMU's");
}

#[test]
fn the_first_and_the_last_page_of_a_region_belong_to_it_in_part() {
    let (mut pair, mut region) = pair();
    pair.run(&pair.write(1, 8, START, region.key));
    let fault = region.fault(&pair.bench);
    assert_eq!(fault.address, START, "what is before is not the region's");
    let gpa = region.fill(&pair.bench, START, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(gpa + 0x400, 8), pair.bench.bytes(pair.from, 8));
    pair.run(&pair.write(2, 8, START + LENGTH - 4, region.key));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_BOUNDS);
}

#[test]
fn reading_asks_for_reading_and_writing_after_it_for_writing() {
    let (mut pair, mut region) = pair();
    let read = SqWqe {
        remote_addr: PAGE,
        rkey: region.key,
        ..request(OP_RDMA_READ, 3, &[sge(pair.from, 8, pair.lkey)])
    };
    pair.run(&read);
    let fault = region.fault(&pair.bench);
    assert_eq!(fault.code, 0);
    let gpa = region.fill(&pair.bench, PAGE, false);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.run(&pair.write(4, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    assert_eq!(fault.code, FAULT_WRITE);
    region.put(&pair.bench, PAGE, gpa | ODP_PRESENT | ODP_WRITABLE);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn a_large_page_is_one_word() {
    let (mut pair, mut region) = pair();
    // The table begins at the 2 MiB block around the start.
    let block = START & !0x1f_ffff;
    region.put_large(&pair.bench, START, 0x20_0000 | ODP_PRESENT | ODP_WRITABLE);
    pair.run(&pair.write(1, 8192, PAGE, region.key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let at = 0x20_0000 + (PAGE - block);
    assert_eq!(pair.bench.bytes(at, 8192), pair.bench.bytes(pair.from, 8192));
    assert!(region.faults(&pair.bench).is_empty());
}

#[test]
fn words_that_no_driver_can_mean_fail_the_access_and_nothing_else() {
    for (large, word) in [
        (false, 0x1000 | ODP_TABLE),
        (false, 0x1000 | ODP_TABLE | ODP_PRESENT),
        (true, 0x1000 | ODP_PRESENT | ODP_WRITABLE),
        (true, MEMORY | ODP_TABLE),
        (false, MEMORY | ODP_PRESENT | ODP_WRITABLE),
    ] {
        let (mut pair, mut region) = pair();
        match large {
            true => region.put_large(&pair.bench, PAGE, word),
            false => region.put(&pair.bench, PAGE, word),
        }
        pair.run(&pair.write(1, 8, PAGE, region.key));
        let entry = pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR);
        assert_eq!(entry.vendor_error, CAUSE_NOT_MEMORY, "{word:#x}");
        assert!(region.faults(&pair.bench).is_empty());
    }
}

#[test]
fn what_was_invalidated_faults_again_and_what_was_not_is_remembered() {
    let (mut pair, mut region) = pair();
    for page in [PAGE, PAGE + 0x1000, PAGE + 0x10_0000] {
        region.fill(&pair.bench, page, true);
        pair.run(&pair.write(1, 8, page, region.key));
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    }
    // A page that is taken away may be used until it is invalidated.
    region.put(&pair.bench, PAGE, 0);
    region.invalidate(&pair.bench, PAGE, 0x1000).unwrap();
    pair.run(&pair.write(2, 8, PAGE + 0x10_0000, region.key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.run(&pair.write(3, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    let gpa = region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(gpa, 8), pair.bench.bytes(pair.from, 8));
    // The whole of it, however it is named.
    for (start, length) in [(START, LENGTH), (0, u64::MAX), (START, u64::MAX)] {
        region.put(&pair.bench, PAGE, 0);
        region.invalidate(&pair.bench, start, length).unwrap();
        pair.run(&pair.write(4, 8, PAGE, region.key));
        let fault = region.fault(&pair.bench);
        region.fill(&pair.bench, PAGE, true);
        resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    }
    // Nothing of it.
    region.invalidate(&pair.bench, START + LENGTH, 0x1000).unwrap();
    region.invalidate(&pair.bench, START, 0).unwrap();
}

#[test]
fn an_invalidation_does_not_wait_for_a_fault() {
    let (mut pair, mut region) = pair();
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    region.invalidate(&pair.bench, PAGE, 0x1000).unwrap();
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn a_page_that_is_gone_again_raises_another_fault() {
    let (mut pair, mut region) = pair();
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let first = region.fault(&pair.bench);
    resume(&pair.bench, first.token, FAULT_RESOLVED).unwrap();
    let second = region.fault(&pair.bench);
    assert_ne!(first.token, second.token);
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, second.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn a_refused_page_fails_the_request_at_the_end_that_needed_it() {
    let (mut pair, mut region) = pair();
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    resume(&pair.bench, fault.token, FAULT_REFUSED).unwrap();
    let entry = pair.cq_a.expect(&pair.bench, REFUSED.0);
    assert_eq!(entry.vendor_error, REFUSED.1);

    let (mut pair, mut region) = self::pair();
    let wqe = request(OP_RDMA_WRITE, 1, &[sge(PAGE, 8, region.key)]);
    pair.run(&SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..wqe });
    let fault = region.fault(&pair.bench);
    assert_eq!(fault.code, 0);
    resume(&pair.bench, fault.token, FAULT_REFUSED).unwrap();
    let entry = pair.cq_a.expect(&pair.bench, WC_LOC_PROT_ERR);
    assert_eq!(entry.vendor_error, CAUSE_PAGE_REFUSED);
}

#[test]
fn tokens_that_name_no_fault_are_refused() {
    let (mut pair, mut region) = pair();
    for token in [0, 1, 512, u32::MAX] {
        assert_eq!(resume(&pair.bench, token, FAULT_RESOLVED), Err(STATUS_NO_OBJECT), "never given");
    }
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    assert_eq!(resume(&pair.bench, fault.token, 2), Err(STATUS_BAD_PARAMETER));
    assert_eq!(resume(&pair.bench, fault.token + 512, FAULT_RESOLVED), Err(STATUS_NO_OBJECT));
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    assert_eq!(resume(&pair.bench, fault.token, FAULT_RESOLVED), Err(STATUS_NO_OBJECT), "given twice");
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.nic.stats().page_fault_answers_unexpected, 6);
}

#[test]
fn a_token_from_before_a_reset_names_nothing_after_it() {
    let (mut pair, mut region) = pair();
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    pair.bench.write32(REG_CONTROL, CONTROL_RESET);
    pair.bench.enable();
    assert_eq!(resume(&pair.bench, fault.token, FAULT_RESOLVED), Err(STATUS_NO_OBJECT));
    let mut pair = Pair::unconnected(pair.bench);
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, PATIENT);
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    let mut region = OnDemand::new(&pair.bench, pair.pd, START, LENGTH);
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let again = region.fault(&pair.bench);
    assert_ne!(again.token, fault.token);
    assert_eq!(resume(&pair.bench, fault.token, FAULT_REFUSED), Err(STATUS_NO_OBJECT));
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, again.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn destroying_a_region_fails_the_requests_that_wait_for_its_faults() {
    let (mut pair, mut region) = pair();
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    region.destroy(&pair.bench);
    let entry = pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR);
    assert_eq!(entry.vendor_error, CAUSE_KEY);
    assert_eq!(resume(&pair.bench, fault.token, FAULT_RESOLVED), Err(STATUS_NO_OBJECT));
    assert_eq!(region.invalidate(&pair.bench, START, LENGTH), Err(STATUS_NO_OBJECT));

    let (mut pair, mut region) = self::pair();
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    pair.bench.urgent_command(CMD_REVOKE_MR, region.key).unwrap();
    let entry = pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR);
    assert_eq!(entry.vendor_error, CAUSE_REVOKED);
    assert_eq!(resume(&pair.bench, fault.token, FAULT_RESOLVED), Err(STATUS_NO_OBJECT));
}

#[test]
fn a_queue_pair_may_be_destroyed_while_its_fault_is_outstanding() {
    let (mut pair, mut region) = pair();
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    pair.a.destroy(&pair.bench).unwrap();
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
}

#[test]
fn a_driver_that_never_answers_costs_the_request_and_nothing_else() {
    let config = NicConfig { page_request_timeout_ns: Some(1000), fault_window: 1, ..NicConfig::default() };
    let (mut pair, mut region) = with(config);
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    pair.bench.advance(1000);
    let entry = pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR);
    assert_eq!(entry.vendor_error, CAUSE_PAGE_TIMEOUT);
    assert_eq!(pair.bench.nic.stats().page_fault_timeouts, 1);
    // A late answer still belongs to its fault, and the token stays in use until then.
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    assert_eq!(resume(&pair.bench, fault.token, FAULT_RESOLVED), Err(STATUS_NO_OBJECT));
    let (mut a, _b) = second_pair(&pair);
    a.send(&pair.bench, &pair.write(2, 8, pair.to, pair.rkey));
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

/// Two more queue pairs on the first ones' queues.
fn second_pair(pair: &Pair) -> (Qp, Qp) {
    let bench = &pair.bench;
    let qp = |cqn| Qp::create(bench, pair.context, &Qp::command(bench, pair.pd, [cqn; 2], pair.eq.eqn, LOG));
    let (a, b) = (qp(pair.cq_a.cqn), qp(pair.cq_b.cqn));
    a.raise(bench, b.qpn, QPS_RTS, PATIENT);
    b.raise(bench, a.qpn, QPS_RTS, PATIENT);
    (a, b)
}

#[test]
fn only_the_queue_pairs_that_missed_wait_and_the_same_page_raises_one_fault() {
    let (mut pair, mut region) = pair();
    let (mut c, _d) = second_pair(&pair);
    pair.run(&pair.write(1, 8, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    c.send(&pair.bench, &pair.write(2, 8, pair.to, pair.rkey));
    pair.bench.settle();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 2);
    c.send(&pair.bench, &pair.write(3, 8, PAGE + 64, region.key));
    pair.bench.settle();
    assert!(region.faults(&pair.bench).is_empty(), "it joins");
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    assert_eq!(pair.cq_a.drain(&pair.bench).len(), 2);
    assert_eq!(pair.bench.nic.stats().page_waits_joined, 1);
}

#[test]
fn faults_beyond_the_limit_wait_in_order() {
    let config = NicConfig { page_fault_credits: 1, fault_window: 1, ..NicConfig::default() };
    let (mut pair, mut region) = with(config);
    let (mut c, _d) = second_pair(&pair);
    pair.run(&pair.write(1, 8, PAGE, region.key));
    c.send(&pair.bench, &pair.write(2, 8, PAGE + 0x1000, region.key));
    pair.bench.settle();
    let first = region.fault(&pair.bench);
    assert_eq!(first.address, PAGE);
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, first.token, FAULT_RESOLVED).unwrap();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 1);
    let second = region.fault(&pair.bench);
    assert_eq!(second.address, PAGE + 0x1000);
    region.fill(&pair.bench, PAGE + 0x1000, true);
    resume(&pair.bench, second.token, FAULT_RESOLVED).unwrap();
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).wr_id, 2);
}

#[test]
fn a_full_event_ring_keeps_faults_until_there_is_room() {
    let (mut pair, mut region) = pair();
    region.eq = Eq::new(&pair.bench, 0, 3);
    let command = OnDemand::command(&pair.bench, pair.pd, region.eq.eqn, START, LENGTH);
    let key = pair.bench.command::<_, ObjectId>(CMD_CREATE_MR, &command).unwrap().id;
    let (mut c, _d) = second_pair(&pair);
    pair.run(&pair.write(1, 8, PAGE, key));
    c.send(&pair.bench, &pair.write(2, 8, PAGE + 0x1000, key));
    pair.bench.settle();
    let first = region.faults(&pair.bench);
    let second = region.faults(&pair.bench);
    assert_eq!((first.len(), second.len()), (1, 1));
    for fault in [first[0], second[0]] {
        resume(&pair.bench, fault.token, FAULT_REFUSED).unwrap();
    }
    let causes: Vec<u32> = pair.cq_a.drain(&pair.bench).iter().map(|entry| entry.vendor_error).collect();
    assert_eq!(causes, [CAUSE_PAGE_REFUSED; 2]);
}

#[test]
fn a_long_request_says_how_much_it_wants() {
    let config = NicConfig { fault_window: 4, ..NicConfig::default() };
    let (mut pair, mut region) = with(config);
    pair.run(&pair.write(1, 10_000, PAGE + 0x800, region.key));
    let fault = region.fault(&pair.bench);
    assert_eq!((fault.address, fault.length), (PAGE, 10_000 + 0x800));
    let pages: Vec<u64> = (0..3).map(|page| region.fill(&pair.bench, PAGE + page * 0x1000, true)).collect();
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(pages[0] + 0x800, 0x800), pair.bench.bytes(pair.from, 0x800));
    assert_eq!(pair.bench.bytes(pages[2], 0x100), pair.bench.bytes(pair.from + 0x1800, 0x100));
    pair.run(&pair.write(2, 100_000, PAGE + 0x10_0000, region.key));
    assert_eq!(region.fault(&pair.bench).length, 4 * 0x1000);
}

#[test]
fn every_stage_of_a_fault_is_recorded_with_its_token_s_slot() {
    let (mut pair, mut region) = pair();
    region.eq.doorbell(&pair.bench, true);
    pair.bench.probe.take();
    pair.run(&pair.write(1, 100, PAGE, region.key));
    let fault = region.fault(&pair.bench);
    region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    let events = pair.bench.probe.take();
    let stages: Vec<Stage> = events.iter().map(|event| event.stage).collect();
    use Stage::*;
    assert_eq!(stages, [Miss, PageRequest, Queued, Interrupt, Response, Matched, Copied]);
    assert!(events.iter().all(|event| event.space == AddressSpace::Region(region.key)));
    assert!(events.iter().all(|event| event.iova == Iova(PAGE)));
    let slot = fault.token & 511;
    assert!(events[1..].iter().all(|event| event.group.is_some_and(|group| u32::from(group.get()) == slot)));
    pair.bench.probe.take();
    region.invalidate(&pair.bench, PAGE, 0x2000).unwrap();
    assert_eq!(pair.bench.probe.stages(), [Invalidate, Invalidated]);
}

#[test]
fn a_region_without_what_it_needs_is_refused() {
    let pair = Pair::new();
    let good = OnDemand::command(&pair.bench, pair.pd, pair.eq.eqn, START, LENGTH);
    let try_it = |command: CreateMr| {
        pair.bench.command::<_, ObjectId>(CMD_CREATE_MR, &command).map(|object| object.id)
    };
    let key = try_it(good).unwrap();
    assert_eq!(try_it(CreateMr { fault_eqn: 63, ..good }), Err(STATUS_NO_OBJECT));
    assert_eq!(try_it(CreateMr { first_offset: 2 << 20, ..good }), Err(STATUS_BAD_PARAMETER));
    let table = PageTable { levels: 0, ..good.table };
    assert_eq!(try_it(CreateMr { table, ..good }), Err(STATUS_BAD_PARAMETER));
    let table = PageTable { root: MEMORY, ..good.table };
    assert_eq!(try_it(CreateMr { table, ..good }), Err(STATUS_BAD_MEMORY));
    assert_eq!(pair.bench.id_command(CMD_DESTROY_EQ, pair.eq.eqn), Err(STATUS_BUSY));
    pair.bench.id_command(CMD_DESTROY_MR, key).unwrap();
    pair.empty_context();
    pair.bench.id_command(CMD_DESTROY_EQ, pair.eq.eqn).unwrap();
}

#[test]
fn an_event_queue_outlives_the_regions_that_name_it() {
    let (pair, region) = pair();
    assert_eq!(pair.bench.id_command(CMD_DESTROY_EQ, region.eq.eqn), Err(STATUS_BUSY));
    region.destroy(&pair.bench);
    pair.bench.id_command(CMD_DESTROY_EQ, region.eq.eqn).unwrap();
}

#[test]
fn addresses_beyond_the_table_s_reach_are_holes() {
    let pair = Pair::new();
    let mut eq = Eq::new(&pair.bench, 4, 2);
    let command = OnDemand::command(&pair.bench, pair.pd, eq.eqn, 0, u64::MAX);
    let key = pair.bench.command::<_, ObjectId>(CMD_CREATE_MR, &command).unwrap().id;
    let mut pair = pair;
    let far = u64::MAX - 0xffff;
    pair.run(&pair.write(1, 8, far, key));
    let fault = eq.poll(&pair.bench).unwrap();
    assert_eq!(fault.address, far & !0xfff);
    resume(&pair.bench, fault.token, FAULT_REFUSED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR);
}

#[test]
fn atomics_fault_for_writing() {
    let (mut pair, mut region) = pair();
    let add = request(OP_FETCH_ADD, 1, &[pair.source(0, 8)]);
    pair.run(&SqWqe { remote_addr: PAGE + 8, rkey: region.key, compare_add: 5, ..add });
    let fault = region.fault(&pair.bench);
    assert_eq!(fault.code, FAULT_WRITE);
    let gpa = region.fill(&pair.bench, PAGE, true);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.ram.load_u64(Gpa(gpa + 8)).unwrap(), 5);
}
