//! Teardown with faults in flight: unbinding, killing, resetting, destroying.

use std::sync::Arc;

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, ACCESS_REMOTE_WRITE, CAUSE_KEY, CAUSE_NONE, CAUSE_PAGE_FAILURE, CAUSE_PAGE_TIMEOUT,
    WC_REM_ACCESS_ERR, WC_WR_FLUSH_ERR,
};
use refault_abi::command::{CMD_DESTROY_MR, CMD_DESTROY_QP};
use refault_bus::Iova;
use refault_bus::pri::ResponseCode;
use refault_model::memory::FRAME;
use refault_model::nic::{OnDemandRegion, PageFaultQueue, Umem, work};
use refault_model::vtd::{Answer, QueuedRequest};
use refault_nic::NicConfig;
use refault_rig::clock::WallClock;
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::session::Session;
use refault_tests::threads;

use crate::support::*;

/// Posts a write over `pages` cold pages and lets the NIC request the first of them.
fn fault(machine: &Machine, session: &mut Session, pages: u64) {
    session.write(1, SOURCE, TARGET, (pages * FRAME) as u32);
    machine.poll();
    assert!(!machine.unit.page_requests.is_empty());
}

/// Asserts that a process opened now can use the device, unaffected by earlier ones.
#[track_caller]
fn assert_usable(machine: &Machine, pasid: u32) {
    let mut session = open(machine, pasid);
    let bytes = fill_source(&session, 10_000, u64::from(pasid));
    session.write(9, SOURCE, TARGET, 10_000);
    machine.settle();
    assert_success(&session.drain(), [9]);
    assert_eq!(bytes_at(&session, TARGET, 10_000), bytes);
}

#[test]
fn unbinding_drains_the_requests_of_the_stopped_device() {
    let (machine, mut session) = ready(MachineSetup::default());
    fault(&machine, &mut session, 20);
    machine.driver.stop_context(session.context).unwrap();
    machine.unbind(&session);
    assert!(machine.unit.page_requests.is_empty());
    machine.settle();
    assert_eq!(outcomes(&session.drain()), [(1, WC_WR_FLUSH_ERR, CAUSE_NONE)]);
    // The drain returned all group indices: they can be used again.
    for pasid in 1..4 {
        assert_usable(&machine, pasid);
    }
    assert_eq!(machine.unit.take_faults(), (vec![], false));
}

/// Writes to a page whose request is kept, and lets time pass while a timer is pending.
fn write_without_an_answer(machine: &Machine, session: &mut Session) -> Vec<QueuedRequest> {
    session.write(1, SOURCE, TARGET, 8);
    let mut kept = Vec::new();
    machine.settle_with(|request| {
        kept.push(*request);
        Answer::Later
    });
    while machine.pass_time() {
        machine.poll();
    }
    kept
}

#[test]
fn a_page_is_waited_for_as_long_as_it_takes_unless_a_limit_was_set() {
    let (machine, mut session) = ready(MachineSetup::default());
    let kept = write_without_an_answer(&machine, &mut session);
    assert_eq!(outcomes(&session.drain()), []);
    machine.unit.respond(&kept[0], ResponseCode::Success).unwrap();
    machine.settle();
    assert_success(&session.drain(), [1]);
}

#[test]
fn an_unanswered_page_request_times_out_and_a_late_answer_has_no_effect() {
    let nic = NicConfig { page_request_timeout_ns: Some(1_000_000), ..NicConfig::default() };
    let (machine, mut session) = ready(MachineSetup { nic, ..MachineSetup::default() });
    let kept = write_without_an_answer(&machine, &mut session);
    assert_eq!(outcomes(&session.drain()), [(1, WC_REM_ACCESS_ERR, CAUSE_PAGE_TIMEOUT)]);
    session.reconnect(&machine.driver);
    session.write(2, SOURCE, TARGET, 8);
    machine.poll();
    machine.unit.respond(&kept[0], ResponseCode::InvalidRequest).unwrap();
    machine.settle();
    assert_success(&session.drain(), [2]);
}

#[test]
fn a_response_failure_stops_page_requests_until_they_are_enabled_again() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.write(1, SOURCE, TARGET, 8);
    machine.settle_with(|_| Answer::Now(ResponseCode::ResponseFailure));
    assert_eq!(outcomes(&session.drain()), [(1, WC_REM_ACCESS_ERR, CAUSE_PAGE_FAILURE)]);
    session.reconnect(&machine.driver);
    session.write(2, SOURCE, TARGET, 8);
    machine.settle();
    assert_eq!(outcomes(&session.drain()), [(2, WC_REM_ACCESS_ERR, CAUSE_PAGE_FAILURE)]);
    assert_eq!(page_requests(&machine), 1);
    machine.driver.config().set_page_request_allocation(64).unwrap();
    session.reconnect(&machine.driver);
    session.write(3, SOURCE, TARGET, 8);
    machine.settle();
    assert_success(&session.drain(), [3]);
}

#[test]
fn with_one_credit_every_queue_pair_gets_a_turn() {
    let (machine, mut session) = ready(MachineSetup::default());
    machine.driver.config().set_page_request_allocation(1).unwrap();
    let key = session.region.key;
    let mut pairs: Vec<_> = (0..60).map(|_| session.add_pair(&machine.driver)).collect();
    for ((sender, _), page) in pairs.iter_mut().zip(0..) {
        let to = Iova(TARGET.0 + page * 4 * FRAME);
        sender.post(&work::rdma_write(page, work::piece(SOURCE, 3 * FRAME as u32, key), to, key)).unwrap();
    }
    machine.poll();
    assert_eq!(machine.unit.page_requests.len(), 1);
    machine.settle();
    while machine.pass_time() {
        machine.settle();
    }
    let mut completions = session.drain();
    completions.sort_by_key(|cqe| cqe.wr_id);
    assert_success(&completions, 0..60);
    assert_eq!(page_requests(&machine), 180);
}

#[test]
fn the_faults_of_a_destroyed_queue_pair_end_without_effect() {
    let (machine, mut session) = ready(MachineSetup::default());
    let (mut doomed, peer) = session.add_pair(&machine.driver);
    let key = session.region.key;
    doomed.post(&work::rdma_write(5, work::piece(SOURCE, 8, key), TARGET, key)).unwrap();
    machine.poll();
    assert!(!machine.unit.page_requests.is_empty());
    machine.driver.destroy(CMD_DESTROY_QP, doomed.number()).unwrap();
    machine.settle();
    assert_eq!(session.drain(), []);
    assert_eq!(bytes_at(&session, TARGET, 8), [0; 8]);
    machine.driver.destroy(CMD_DESTROY_QP, peer.number()).unwrap();
    session.write(6, SOURCE, TARGET, 8);
    machine.settle();
    assert_success(&session.drain(), [6]);
}

#[test]
fn a_region_destroyed_during_a_fault_takes_no_byte_when_the_page_comes() {
    let (machine, mut session) = ready(MachineSetup::default());
    let all = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE;
    let region = machine.driver.register_range(session.pd, TARGET, AREA, all).unwrap();
    fill_source(&session, 8, 1);
    let local = work::piece(SOURCE, 8, session.region.key);
    session.post(&work::rdma_write(1, local, TARGET, region.key));
    machine.poll();
    machine.driver.destroy(CMD_DESTROY_MR, region.key).unwrap();
    machine.settle();
    assert_eq!(outcomes(&session.drain()), [(1, WC_REM_ACCESS_ERR, CAUSE_KEY)]);
    assert_eq!(bytes_at(&session, TARGET, 8), [0; 8]);
}

#[test]
fn a_function_level_reset_with_faults_in_flight_leaves_a_usable_device() {
    for blocked_first in [false, true] {
        let (mut machine, mut session) = ready(MachineSetup::default());
        let mut other = open(&machine, 2);
        fault(&machine, &mut session, 8);
        fault(&machine, &mut other, 8);
        if blocked_first {
            // The order of pci_dev_reset_iommu_prepare: every PASID is drained, then the reset.
            machine.unbind(&session);
            machine.unbind(&other);
            machine.poll();
            let completions = [session.drain(), other.drain()].concat();
            assert_eq!(completions.len(), 2, "unbinding leaves a request without a completion");
            machine.reset_function();
        } else {
            machine.driver.config().function_reset().unwrap();
            machine.serve_faults();
            machine.unbind(&session);
            machine.unbind(&other);
            machine.restart_driver();
        }
        machine.settle();
        assert_eq!((session.drain(), other.drain()), (vec![], vec![]), "a completion from before the reset");
        for pasid in [1, 2, 3] {
            assert_usable(&machine, pasid);
        }
        assert_eq!(machine.interrupts.strays(), 0);
    }
}

#[test]
fn the_device_s_own_reset_with_faults_in_flight_leaves_a_usable_device() {
    let (mut machine, mut session) = ready(MachineSetup::default());
    fault(&machine, &mut session, 8);
    machine.driver.reset().unwrap();
    machine.settle();
    assert_eq!(session.drain(), []);
    machine.unbind(&session);
    machine.restart_driver();
    assert_usable(&machine, 1);
}

#[test]
fn a_process_killed_a_hundred_times_with_faults_in_flight_leaves_nothing_behind() {
    let clock = Arc::new(WallClock::default());
    let nic = NicConfig { workers: 2, ..NicConfig::default() };
    let setup = MachineSetup { nic, clock: Some(clock.clone()), ..MachineSetup::default() };
    let machine = Machine::new(setup);
    threads::run(&machine, &*clock, || {
        let mut before = None;
        for round in 0..100 {
            let mut session = open(&machine, 1 + round % 3);
            let (mut more, receiver) = session.add_pair(&machine.driver);
            let key = session.region.key;
            session.write(1, SOURCE, TARGET, (AREA - FRAME) as u32);
            let local = work::piece(SOURCE, 64 * FRAME as u32, key);
            more.post(&work::rdma_write(2, local, Iova(TARGET.0 + 8 * FRAME), key)).unwrap();
            // Killed at once in some rounds, after some pages in others.
            (0..round * 20).for_each(|_| std::thread::yield_now());
            machine.driver.stop_context(session.context).unwrap();
            machine.driver.destroy(CMD_DESTROY_QP, more.number()).unwrap();
            machine.driver.destroy(CMD_DESTROY_QP, receiver.number()).unwrap();
            drop((more, receiver));
            machine.kill(session);
            // The first rounds build PASID tables, which stay.
            let free = machine.memory.free_bytes();
            if round >= 3 {
                assert_eq!(*before.get_or_insert(free), free, "round {round} leaked");
            }
        }
    });
    assert!(machine.unit.page_requests.is_empty());
    assert_eq!(machine.unit.take_faults(), (vec![], false));
    assert_usable(&machine, 1);
}

#[test]
fn a_machine_with_an_on_demand_region_is_freed_as_a_whole() {
    let (machine, session) = ready(MachineSetup::default());
    let driver = Arc::downgrade(&machine.driver);
    let faults = PageFaultQueue::new(&machine.driver, 1, 6).unwrap();
    let region =
        OnDemandRegion::create(&machine.driver, session.pd, (TARGET, AREA), ACCESS_LOCAL_WRITE, &faults);
    let umem = Umem::begin(region.unwrap(), &session.process, &faults);
    drop((umem, faults, session, machine));
    assert!(driver.upgrade().is_none(), "something still holds the driver");
}
