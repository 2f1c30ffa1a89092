//! One DMA, end to end: the table of docs/architecture.md, row by row.

use refault_abi::codes::{
    CAUSE_NONE, CAUSE_PAGE_REFUSED, WC_LOC_PROT_ERR, WC_REM_ACCESS_ERR, WC_SUCCESS, WC_WR_FLUSH_ERR,
};
use refault_bus::Iova;
use refault_bus::probe::Stage;
use refault_model::memory::FRAME;
use refault_model::nic::{page_table, work};
use refault_model::paging::{PageSize, Rights};
use refault_tests::machine::{MachineSetup, NIC_VECTOR};

use crate::support::*;

#[test]
fn a_cold_write_passes_every_stage_once_and_in_order() {
    let (machine, mut session) = ready(MachineSetup::default());
    let bytes = fill_source(&session, 100, 1);
    session.write(7, SOURCE, TARGET, 100);
    machine.settle();
    assert_success(&session.drain(), [7]);
    assert_eq!(bytes_at(&session, TARGET, 100), bytes);
    let stages = machine.trace.stages();
    let rows = [
        Stage::Miss,
        Stage::PageRequest,
        Stage::Queued,
        Stage::Interrupt,
        Stage::Response,
        Stage::Matched,
        Stage::Copied,
    ];
    assert_eq!(stages, rows);
}

#[test]
fn a_warm_write_needs_no_translation() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.write(1, SOURCE, TARGET, 4096);
    machine.settle();
    machine.trace.take();
    let walks = machine.iommu.statistics().translations;
    let bytes = fill_source(&session, 4096, 2);
    session.write(2, SOURCE, TARGET, 4096);
    machine.settle();
    assert_success(&session.drain(), [1, 2]);
    assert_eq!(bytes_at(&session, TARGET, 4096), bytes);
    assert_eq!(machine.trace.take(), []);
    assert_eq!(machine.iommu.statistics().translations, walks);
}

#[test]
fn a_read_only_page_is_requested_again_and_then_written() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.process.write(TARGET, b"as it was").unwrap();
    session.process.write_protect(TARGET).unwrap();
    session.read(1, SOURCE, TARGET, 9);
    machine.settle();
    assert_eq!(page_requests(&machine), 0);
    assert_eq!(bytes_at(&session, SOURCE, 9), b"as it was");
    let bytes = fill_source(&session, 9, 3);
    session.write(2, SOURCE, TARGET, 9);
    machine.settle();
    assert_eq!(page_requests(&machine), 1);
    assert_eq!(bytes_at(&session, TARGET, 9), bytes);
    assert_success(&session.drain(), [1, 2]);
}

#[test]
fn an_upgraded_page_needs_no_invalidation() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.process.write(TARGET, b"x").unwrap();
    session.process.write_protect(TARGET).unwrap();
    session.read(1, SOURCE, TARGET, 1);
    machine.settle();
    // The kernel makes the page writable without a flush.
    session.process.space.protect(TARGET, Rights::Write).unwrap();
    session.write(2, SOURCE, TARGET, 1);
    machine.settle();
    assert_success(&session.drain(), [1, 2]);
    assert_eq!(page_requests(&machine), 0);
}

#[test]
fn a_message_over_many_cold_pages_requests_each_page_once() {
    let (machine, mut session) = ready(MachineSetup::default());
    let len = 37 * FRAME as usize + 123;
    let bytes = fill_source(&session, len, 4);
    session.write(1, SOURCE, Iova(TARGET.0 + 77), len as u32);
    machine.settle();
    assert_success(&session.drain(), [1]);
    assert_eq!(bytes_at(&session, Iova(TARGET.0 + 77), len), bytes);
    assert_eq!(page_requests(&machine), 38);
    assert_eq!(machine.trace.count(Stage::Copied), 38);
}

#[test]
fn both_ends_may_be_cold() {
    let (machine, mut session) = ready(MachineSetup::default());
    let cold = Iova(0x7fc0_0000_0000);
    session.process.map_area(cold, 16 * FRAME, Rights::Write, PageSize::Small);
    session.process.write(TARGET, &pattern(8192, 5)).unwrap();
    session.write(1, cold, TARGET, 8192);
    machine.settle();
    assert_success(&session.drain(), [1]);
    assert_eq!(bytes_at(&session, TARGET, 8192), vec![0; 8192]);
    assert_eq!(page_requests(&machine), 2);
}

#[test]
fn a_refused_page_is_a_remote_access_error_and_other_queue_pairs_are_unaffected() {
    let (machine, mut session) = ready(MachineSetup::default());
    let mut other = open(&machine, 2);
    session.write(1, SOURCE, Iova(TARGET.0 + AREA), 8);
    session.write(2, SOURCE, TARGET, 8);
    other.write(3, SOURCE, TARGET, 8);
    machine.settle();
    let expected = [(1, WC_REM_ACCESS_ERR, CAUSE_PAGE_REFUSED), (2, WC_WR_FLUSH_ERR, CAUSE_NONE)];
    assert_eq!(outcomes(&session.drain()), expected);
    assert_success(&other.drain(), [3]);
    session.reconnect(&machine.driver);
    session.write(4, SOURCE, TARGET, 8);
    machine.settle();
    assert_success(&session.drain(), [4]);
}

#[test]
fn a_refused_page_of_the_requester_is_a_local_protection_error() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.write(1, Iova(SOURCE.0 + AREA), TARGET, 8);
    machine.settle();
    assert_eq!(outcomes(&session.drain()), [(1, WC_LOC_PROT_ERR, CAUSE_PAGE_REFUSED)]);
}

#[test]
fn send_read_and_atomics_fault_like_writes() {
    let (machine, mut session) = ready(MachineSetup::default());
    let key = session.region.key;
    let at = |page: u64| Iova(TARGET.0 + page * FRAME);
    let bytes = fill_source(&session, 64, 6);
    session.receiver.post_receive(&work::receive(10, work::piece(at(0), 64, key))).unwrap();
    session.post(&work::send(1, work::piece(SOURCE, 64, key)));
    session.post(&work::fetch_add(2, work::piece(at(1), 8, key), at(2), key, 5));
    session.post(&work::compare_swap(3, work::piece(at(3), 8, key), at(2), key, (5, 9)));
    session.read(4, at(4), at(2), 8);
    session.post(&work::inline_write(5, b"inline", at(5), key));
    machine.settle();
    let mut ids: Vec<_> = outcomes(&session.drain());
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5, 10].map(|id| (id, WC_SUCCESS, 0)));
    assert_eq!(bytes_at(&session, at(0), 64), bytes);
    assert_eq!(bytes_at(&session, at(1), 8), 0u64.to_le_bytes());
    assert_eq!(bytes_at(&session, at(3), 8), 5u64.to_le_bytes());
    assert_eq!(bytes_at(&session, at(4), 8), 9u64.to_le_bytes());
    assert_eq!(bytes_at(&session, at(5), 6), b"inline");
    assert_eq!(page_requests(&machine), 6);
}

#[test]
fn an_armed_completion_queue_raises_one_interrupt() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.events.arm();
    session.completions.arm();
    session.write(1, SOURCE, TARGET, 8);
    session.write(2, SOURCE, TARGET, 8);
    machine.settle();
    assert_eq!(machine.interrupts.take(NIC_VECTOR), 1);
    let event = session.events.poll().unwrap().expect("an event");
    assert_eq!(
        (event.kind, event.number),
        (refault_abi::event::EVENT_COMPLETION, session.completions.number())
    );
    assert_eq!(session.events.poll().unwrap(), None);
    assert_success(&session.drain(), [1, 2]);
}

#[test]
fn two_processes_use_the_same_addresses_for_different_memory() {
    let (machine, mut first) = ready(MachineSetup::default());
    let mut second = open(&machine, 2);
    let (ones, twos) = (fill_source(&first, 5000, 11), fill_source(&second, 5000, 12));
    first.write(1, SOURCE, TARGET, 5000);
    second.write(2, SOURCE, TARGET, 5000);
    machine.settle();
    assert_success(&first.drain(), [1]);
    assert_success(&second.drain(), [2]);
    assert_eq!(bytes_at(&first, TARGET, 5000), ones);
    assert_eq!(bytes_at(&second, TARGET, 5000), twos);
    // A flush of one leaves the other warm.
    first.process.take_page(TARGET).unwrap();
    machine.trace.take();
    second.write(3, SOURCE, TARGET, 5000);
    machine.settle();
    assert_eq!(page_requests(&machine), 0);
}

#[test]
fn large_pages_are_requested_once_and_split_under_the_device() {
    let (machine, mut session) = ready(MachineSetup { memory: 128 << 20, ..MachineSetup::default() });
    let large = Iova(0x7fc0_0000_0000);
    session.process.map_area(large, 8 << 20, Rights::Write, PageSize::Large);
    let bytes = fill_source(&session, AREA as usize, 8);
    let start = Iova(large.0 + (2 << 20) - 5000);
    session.write(1, SOURCE, start, AREA as u32);
    machine.settle();
    assert_success(&session.drain(), [1]);
    assert_eq!(bytes_at(&session, start, AREA as usize), bytes);
    // The message crosses a 2 MiB boundary. Pages ahead are requested in units of 4 KiB, so one large page may be
    // requested more than once before it is present; afterwards no part of it is missing.
    assert!(page_requests(&machine) >= 2);
    machine.trace.take();
    session.process.space.split(large).unwrap();
    session.process.flush(large, 2 << 20).unwrap();
    let moved = session.process.move_page(start).unwrap();
    machine.memory.fill(moved, FRAME, 0xee).unwrap();
    let again = fill_source(&session, 4096, 9);
    session.write(2, SOURCE, start, 4096);
    machine.settle();
    assert_success(&session.drain(), [2]);
    assert_eq!(bytes_at(&session, start, 4096), again);
    assert_eq!(bytes_at(&session, Iova(start.0 + 4096), 904), bytes[4096..5000]);
    assert_eq!(machine.memory.bytes(moved, FRAME as usize).unwrap(), vec![0xee; FRAME as usize]);
    assert_eq!(page_requests(&machine), 0);
}

#[test]
fn rings_and_pinned_regions_work_in_a_translated_domain_too() {
    for translated in [false, true] {
        let (machine, mut session) = ready(MachineSetup { translated, ..MachineSetup::default() });
        let (memory, domain) = (machine.driver.memory(), machine.driver.domain());
        let frames: Vec<_> = (0..5).map(|_| memory.frame().unwrap()).rev().collect();
        let pages: Vec<_> = frames.iter().map(|&frame| domain.map(frame, FRAME).unwrap()).collect();
        let (table, _tables) = page_table(memory, domain, &pages, PageSize::Small).unwrap();
        let start = Iova(0x1234_5000);
        let pinned = machine.driver.register_pinned(session.pd, start, 5 * FRAME, table).unwrap();
        let bytes = fill_source(&session, 3 * FRAME as usize, 21);
        let local = work::piece(SOURCE, 3 * FRAME as u32, session.region.key);
        session.post(&work::rdma_write(1, local, Iova(start.0 + 100), pinned.key));
        machine.settle();
        assert_success(&session.drain(), [1]);
        assert_eq!(page_requests(&machine), 0);
        let mut found = Vec::new();
        frames.iter().for_each(|&frame| found.extend(memory.bytes(frame, FRAME as usize).unwrap()));
        assert_eq!(&found[100..100 + bytes.len()], &bytes[..]);
    }
}

#[test]
fn device_accesses_set_accessed_and_dirty_bits() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.process.populate(TARGET, FRAME).unwrap();
    session.process.space.clean(TARGET).unwrap();
    session.process.flush(TARGET, FRAME).unwrap();
    session.read(1, SOURCE, TARGET, 8);
    machine.settle();
    let read = session.process.space.lookup(TARGET).unwrap().unwrap();
    assert!(read.accessed() && !read.dirty());
    session.write(2, SOURCE, TARGET, 8);
    machine.settle();
    assert!(session.process.space.lookup(TARGET).unwrap().unwrap().dirty());
    // As fsync does: clean and flush; the next write sets the bit again.
    assert!(session.process.space.clean(TARGET).unwrap().dirty());
    session.process.flush(TARGET, FRAME).unwrap();
    session.write(3, SOURCE, TARGET, 8);
    machine.settle();
    assert!(session.process.space.lookup(TARGET).unwrap().unwrap().dirty());
    assert_success(&session.drain(), [1, 2, 3]);
}
