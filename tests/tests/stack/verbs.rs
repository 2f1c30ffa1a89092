//! Datagrams, shared receive queues, FLUSH, ATOMIC WRITE and moderation through the IOMMU, with faults.

use refault_abi::codes::{
    CAUSE_NOT_PERSISTENT, FLUSH_GLOBAL, FLUSH_PERSISTENT, QPT_UD, WC_REM_ACCESS_ERR, WC_SUCCESS,
};
use refault_abi::command::{CAP_FLUSH_PERSISTENT, CMD_DESTROY_QP, CMD_DESTROY_SRQ};
use refault_abi::event::{EVENT_COMPLETION, EVENT_SRQ, SRQ_EVENT_LIMIT_REACHED};
use refault_abi::queue::CQE_RECEIVE;
use refault_bus::Iova;
use refault_bus::clock::Clock;
use refault_model::memory::FRAME;
use refault_model::nic::work;
use refault_nic::{DatagramFaults, NicConfig};
use refault_tests::machine::MachineSetup;

use crate::support::*;

const QKEY: u32 = 11;
/// Bytes in front of a datagram's payload in a receive buffer.
const GRH: u64 = 40;

#[test]
fn datagrams_into_a_shared_receive_queue_fault_pages_in() {
    let nic = NicConfig { datagram_faults: DatagramFaults::Hold, ..MachineSetup::default().nic };
    let (machine, mut session) = ready(MachineSetup { nic, ..MachineSetup::default() });
    let driver = &machine.driver;
    let mut srq = driver.create_shared_receive_queue(session.pd, session.events.number(), 3).unwrap();
    let create = || {
        let qp = driver.create_queue_pair_of(session.setup, QPT_UD, srq.number()).unwrap();
        driver.raise_datagram(qp.number(), QKEY).unwrap();
        qp
    };
    let (mut speaker, listeners) = (create(), [create(), create(), create()]);
    // Each request lies across two absent pages.
    for index in 0..8 {
        let place = Iova(TARGET.0 + (2 * index + 1) * FRAME - 100);
        srq.post(&work::receive(100 + index, work::piece(place, 1000, session.region.key))).unwrap();
    }
    assert!(srq.post(&work::receive(0, work::piece(TARGET, 1000, session.region.key))).is_err());
    driver.arm_shared_receive_queue(&srq, 3).unwrap();
    let bytes = fill_source(&session, 700, 5);
    for index in 0..6u64 {
        let to = listeners[index as usize % listeners.len()].number();
        let local = work::piece(SOURCE, 700, session.region.key);
        speaker.post(&work::datagram(index, local, to, QKEY)).unwrap();
    }
    machine.settle();
    let completions = session.drain();
    let received: Vec<_> = completions.iter().filter(|cqe| cqe.flags.contains(CQE_RECEIVE)).collect();
    assert_eq!((received.len(), completions.len(), page_requests(&machine)), (6, 12, 12));
    for cqe in received {
        assert_eq!((cqe.status, cqe.byte_len, cqe.src_qpn), (WC_SUCCESS, 740, speaker.number()));
        let place = Iova(TARGET.0 + (2 * (cqe.wr_id - 100) + 1) * FRAME - 100);
        assert_eq!(bytes_at(&session, Iova(place.0 + GRH), 700), bytes);
    }
    assert_eq!(srq.consumer().unwrap(), 6);
    let event = session.events.poll().unwrap().unwrap();
    let expected = (EVENT_SRQ, SRQ_EVENT_LIMIT_REACHED.0, srq.number());
    assert_eq!((event.kind, event.code, event.number), expected);
    let state = driver.query_shared_receive_queue(&srq).unwrap();
    assert_eq!((state.limit, state.consumer), (0, 6));
    for qp in listeners.iter().chain([&speaker]) {
        assert!(driver.destroy(CMD_DESTROY_SRQ, srq.number()).is_err());
        driver.destroy(CMD_DESTROY_QP, qp.number()).unwrap();
    }
    driver.destroy(CMD_DESTROY_SRQ, srq.number()).unwrap();
}

#[test]
fn a_flush_faults_pages_in_and_fails_for_volatile_memory() {
    let (machine, mut session) = ready(MachineSetup::default());
    assert_eq!(machine.driver.capabilities().unwrap().features & CAP_FLUSH_PERSISTENT, 0);
    let key = session.region.key;
    session.post(&work::flush(1, FLUSH_GLOBAL, TARGET, 3 * FRAME, key));
    machine.settle();
    assert_success(&session.drain(), [1]);
    assert_eq!(page_requests(&machine), 3);
    session.post(&work::flush(2, FLUSH_PERSISTENT, TARGET, 8, key));
    machine.settle();
    assert_eq!(outcomes(&session.drain()), [(2, WC_REM_ACCESS_ERR, CAUSE_NOT_PERSISTENT)]);
}

#[test]
fn an_atomic_write_faults_its_page_in() {
    let (machine, mut session) = ready(MachineSetup::default());
    let (key, bytes) = (session.region.key, fill_source(&session, 8, 6));
    session.post(&work::atomic_write(1, work::piece(SOURCE, 8, key), Iova(TARGET.0 + 64), key));
    machine.settle();
    assert_success(&session.drain(), [1]);
    assert_eq!((bytes_at(&session, Iova(TARGET.0 + 64), 8), page_requests(&machine)), (bytes, 1));
}

#[test]
fn a_moderated_queue_sends_one_event_for_many_and_none_too_late() {
    let (machine, mut session) = ready(MachineSetup::default());
    machine.driver.moderate(&session.completions, 4, 20).unwrap();
    session.completions.arm();
    for id in 0..3 {
        session.write(id, SOURCE, TARGET, 64);
        machine.settle();
    }
    assert!(session.events.poll().unwrap().is_none());
    session.write(3, SOURCE, TARGET, 64);
    machine.settle();
    assert_eq!(session.events.poll().unwrap().map(|event| event.kind), Some(EVENT_COMPLETION));
    assert_success(&session.drain(), 0..4);
    session.completions.arm();
    session.write(4, SOURCE, TARGET, 64);
    machine.settle();
    assert!(session.events.poll().unwrap().is_none());
    let before = machine.clock.now_ns();
    while session.events.poll().unwrap().is_none() {
        assert!(machine.pass_time(), "a timer is pending");
        machine.settle();
    }
    assert_eq!(machine.clock.now_ns() - before, 20_000);
}
