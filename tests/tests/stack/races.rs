//! Races, each with a test of its own (docs/architecture.md, "What keeps it correct").

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights,
    CAUSE_REVOKED, WC_REM_ACCESS_ERR, WC_SUCCESS,
};
use refault_abi::command::{CMD_REVOKE_MR, ObjectId};
use refault_bus::pri::ResponseCode;
use refault_bus::probe::Stage;
use refault_bus::{Iova, Pasid, PrgIndex};
use refault_model::memory::FRAME;
use refault_model::nic::work;
use refault_model::vtd::{Answer, QueuedRequest};
use refault_nic::NicConfig;
use refault_rig::clock::WallClock;
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::session::Session;
use refault_tests::threads;

use crate::support::*;

/// A machine with traps on memory accesses, with `pages` pages of the target present and warm.
fn trapped(pages: u64) -> (Machine, Session) {
    let (machine, mut session) = ready(MachineSetup { hooked: true, ..MachineSetup::default() });
    session.process.populate(TARGET, pages * FRAME).unwrap();
    session.write(0, SOURCE, TARGET, (pages * FRAME) as u32);
    machine.settle();
    assert_success(&session.drain(), [0]);
    machine.trace.take();
    (machine, session)
}

/// Runs the NIC until it waits for pages. Returns the page requests, unanswered.
fn unanswered(machine: &Machine) -> Vec<QueuedRequest> {
    let mut kept = Vec::new();
    machine.settle_with(|request| {
        kept.push(*request);
        Answer::Later
    });
    kept
}

#[test]
fn an_invalidation_between_translation_and_copy_waits_for_the_copy() {
    let (machine, mut session) = trapped(1);
    let frame = session.process.space.lookup(TARGET).unwrap().unwrap().gpa;
    let bytes = fill_source(&session, 4096, 1);
    let (flushed, flushed_early) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (sender, kernel) = mpsc::channel();
    let hook = {
        let (process, memory, trace) =
            (session.process.clone(), machine.memory.clone(), machine.trace.clone());
        let (flushed, flushed_early) = (flushed.clone(), flushed_early.clone());
        move || {
            // The device has translated, and is about to copy. Now the kernel takes the page away, and as soon
            // as the flush returns gives it to another owner.
            let returned = flushed.clone();
            let thread = thread::spawn(move || {
                let taken = process.take_page(TARGET).unwrap();
                returned.store(true, Ordering::SeqCst);
                let copied = memory.bytes(taken.gpa, FRAME as usize).unwrap();
                memory.fill(taken.gpa, FRAME, 0xcc).unwrap();
                copied
            });
            while trace.count(Stage::Invalidate) == 0 {
                thread::yield_now();
            }
            // The invalidation has arrived at the device: give a faulty device time to complete it too early.
            thread::sleep(Duration::from_millis(20));
            flushed_early.store(flushed.load(Ordering::SeqCst), Ordering::SeqCst);
            sender.send(thread).unwrap();
        }
    };
    machine.hooked.as_ref().unwrap().before_write(frame, FRAME, hook);
    session.write(1, SOURCE, TARGET, 4096);
    machine.settle();
    let copied = kernel.recv().unwrap().join().unwrap();
    assert!(!flushed_early.load(Ordering::SeqCst), "the flush returned before the copy had landed");
    assert_success(&session.drain(), [1]);
    assert_eq!(copied, bytes, "the copy was not whole when the flush returned");
    session.write(2, SOURCE, TARGET, 4096);
    machine.settle();
    assert_success(&session.drain(), [2]);
    assert_eq!(machine.memory.bytes(frame, FRAME as usize).unwrap(), vec![0xcc; FRAME as usize]);
    assert_eq!(page_requests(&machine), 1);
}

#[test]
fn a_response_for_an_unknown_or_finished_group_is_ignored() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.write(1, SOURCE, TARGET, 8);
    let kept = unanswered(&machine);
    assert_eq!(kept.len(), 1);
    for group in (0..512).map(PrgIndex::truncated).filter(|&group| group != kept[0].group) {
        machine.unit.respond(&QueuedRequest { group, ..kept[0] }, ResponseCode::InvalidRequest).unwrap();
    }
    for pasid in [None, Pasid::new(2)] {
        machine.unit.respond(&QueuedRequest { pasid, ..kept[0] }, ResponseCode::InvalidRequest).unwrap();
    }
    machine.settle();
    assert_eq!(session.drain(), [], "a response to nothing ended the wait");
    let code = machine.fault(&kept[0]);
    machine.unit.respond(&kept[0], code).unwrap();
    machine.settle();
    assert_success(&session.drain(), [1]);
    // The group is finished: the same answer once more has no effect, not even on the next fault.
    session.write(2, SOURCE, Iova(TARGET.0 + FRAME), 8);
    let next = unanswered(&machine);
    machine.unit.respond(&kept[0], ResponseCode::InvalidRequest).unwrap();
    machine.settle();
    assert_eq!(session.drain(), []);
    machine.unit.respond(&next[0], machine.fault(&next[0])).unwrap();
    machine.settle();
    assert_success(&session.drain(), [2]);
}

#[test]
fn responses_may_come_in_any_order() {
    let (machine, mut session) = ready(MachineSetup::default());
    let len = 8 * FRAME as usize;
    let bytes = fill_source(&session, len, 3);
    session.write(1, SOURCE, TARGET, len as u32);
    let mut kept = unanswered(&machine);
    while !kept.is_empty() {
        for request in kept.iter().rev() {
            machine.unit.respond(request, machine.fault(request)).unwrap();
        }
        kept = unanswered(&machine);
    }
    assert_success(&session.drain(), [1]);
    assert_eq!(bytes_at(&session, TARGET, len), bytes);
}

#[test]
fn a_full_page_request_queue_loses_no_access() {
    let (machine, mut session) = ready(MachineSetup { page_request_order: 0, ..MachineSetup::default() });
    let bytes = fill_source(&session, 8, 4);
    let key = session.region.key;
    let mut pairs: Vec<_> = (0..200).map(|_| session.add_pair(&machine.driver)).collect();
    for ((sender, _), page) in pairs.iter_mut().zip(0..) {
        let local = work::piece(SOURCE, 8, key);
        let to = Iova(TARGET.0 + page * FRAME);
        sender.post(&work::rdma_write(page, local, to, key)).unwrap();
    }
    machine.poll();
    assert!(machine.unit.page_requests.overflowed(), "the queue of 127 entries took 200 requests");
    let mut completions = Vec::new();
    while completions.len() < 200 {
        machine.settle();
        completions.extend(session.drain());
        assert!(completions.len() == 200 || machine.pass_time(), "accesses were lost");
    }
    completions.sort_by_key(|cqe| cqe.wr_id);
    assert_success(&completions, 0..200);
    (0..200).for_each(|page| assert_eq!(bytes_at(&session, Iova(TARGET.0 + page * FRAME), 8), bytes));
    assert!(!machine.unit.page_requests.overflowed());
}

/// How far the faults of a killed process have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// In the queue, not taken yet.
    Queued,
    /// Taken from the queue, being handled.
    Handled,
    /// Answered; the device has not retried yet.
    Answered,
}

#[test]
fn a_pasid_is_torn_down_while_its_faults_are_in_flight() {
    for row in [Row::Queued, Row::Handled, Row::Answered] {
        for dies_first in [false, true] {
            tear_down(row, dies_first);
        }
    }
}

fn tear_down(row: Row, dies_first: bool) {
    let (machine, mut session) = ready(MachineSetup::default());
    let mut bystander = open(&machine, 2);
    session.write(1, SOURCE, TARGET, 4 * FRAME as u32);
    machine.poll();
    let kept = if row == Row::Queued { Vec::new() } else { unanswered(&machine) };
    if row == Row::Answered {
        kept.iter().for_each(|request| machine.unit.respond(request, machine.fault(request)).unwrap());
    }
    if dies_first {
        // exit_mmap: the kernel clears the entry before any driver is notified.
        machine.function.release(session.pasid).unwrap();
    }
    machine.driver.stop_context(session.context).unwrap();
    if row == Row::Handled {
        kept.iter().for_each(|request| {
            machine.unit.respond(request, ResponseCode::InvalidRequest).unwrap();
        });
    }
    machine.unbind(&session);
    machine.settle();
    let completions = session.drain();
    assert_eq!(completions.len(), 1, "{row:?} {dies_first}");
    // Stopping takes effect before any work that a worker has not begun: also before a retry whose page is present by now.
    assert_ne!(completions[0].status, WC_SUCCESS, "{row:?} {dies_first}");
    assert!(machine.unit.page_requests.is_empty());
    // The address space is gone: its tables may hold anything now, and must not be walked.
    let walks = machine.iommu.statistics().walks;
    session.write(2, SOURCE, TARGET, 8);
    machine.settle();
    assert_eq!(machine.iommu.statistics().walks, walks, "{row:?} {dies_first}");
    // The PASID may belong to another process now; neither that nor a bystander is affected.
    let mut successor = open(&machine, 1);
    for other in [&mut successor, &mut bystander] {
        let bytes = fill_source(other, 9000, 5);
        other.write(3, SOURCE, TARGET, 9000);
        machine.settle();
        assert_success(&other.drain(), [3]);
        assert_eq!(bytes_at(other, TARGET, 9000), bytes);
    }
}

#[test]
fn a_region_revoked_during_the_copy_takes_no_byte_afterwards() {
    const PAGES: u64 = 200;
    let nic = NicConfig { workers: 2, ..NicConfig::default() };
    let clock = Arc::new(WallClock::default());
    let setup = MachineSetup { hooked: true, nic, clock: Some(clock.clone()), ..MachineSetup::default() };
    let (machine, mut session) = ready(setup);
    session.process.populate(TARGET, PAGES * FRAME).unwrap();
    let region = machine.driver.register_range(session.pd, TARGET, AREA, ALL).unwrap();
    let bytes = fill_source(&session, (PAGES * FRAME) as usize, 6);
    let (mut sender, _receiver) = session.add_pair(&machine.driver);
    let frame = session.process.space.lookup(Iova(TARGET.0 + 40 * FRAME)).unwrap().unwrap().gpa;
    let (begun, revocation) = mpsc::channel();
    let driver = machine.driver.clone();
    let hook = move || {
        // The third chunk is translated, and not yet copied. Another processor of the guest takes the region
        // away: lane 1 answers on the thread that rings it, which waits for this copy.
        let thread = thread::spawn(move || {
            let region = ObjectId { id: region.key, reserved: 0 };
            driver.lane1().execute::<[u8; 0]>(CMD_REVOKE_MR, &region).unwrap();
        });
        thread::sleep(Duration::from_millis(20));
        let early = thread.is_finished();
        begun.send((thread, early)).unwrap();
    };
    machine.hooked.as_ref().unwrap().before_write(frame, FRAME, hook);
    let local = work::piece(SOURCE, (PAGES * FRAME) as u32, session.region.key);
    let after_answer = threads::run(&machine, &*clock, || {
        sender.post(&work::rdma_write(1, local, TARGET, region.key)).unwrap();
        let (thread, early) = revocation.recv_timeout(Duration::from_secs(60)).expect("the copy begins");
        assert!(!early, "the revocation was answered before the copy had landed");
        thread.join().expect("the revocation");
        let after_answer = bytes_at(&session, TARGET, bytes.len());
        machine
            .driver
            .pause()
            .until("the completion", || Ok(session.poll()))
            .map(|cqe| {
                assert_eq!(outcomes(&[cqe]), [(1, WC_REM_ACCESS_ERR, CAUSE_REVOKED)]);
            })
            .unwrap();
        after_answer
    });
    let copied =
        (0..bytes.len()).step_by(FRAME as usize).take_while(|&at| after_answer[at] == bytes[at]).count();
    assert!(copied > 40 && copied < PAGES as usize, "{copied} pages were copied");
    assert_eq!(bytes_at(&session, TARGET, bytes.len()), after_answer);
}

/// All access rights of a region.
const ALL: AccessRights =
    ACCESS_LOCAL_WRITE.union(ACCESS_REMOTE_WRITE).union(ACCESS_REMOTE_READ).union(ACCESS_REMOTE_ATOMIC);
