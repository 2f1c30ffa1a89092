//! A guest's mistakes, on purpose or not, in the tables that the IOMMU reads for the NIC.

use refault_abi::codes::{
    CAUSE_BLOCKED, CAUSE_NOT_MEMORY, CAUSE_PAGE_REFUSED, CAUSE_PAGE_RETRIES, QPS_ERR, WC_LOC_PROT_ERR,
    WC_REM_ACCESS_ERR, WC_SUCCESS, WcStatus,
};
use refault_bus::{Gpa, Iova};
use refault_model::memory::FRAME;
use refault_model::paging::{PageSize, PageTableEntry, Rights};
use refault_model::vtd::Descriptor;
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::session::Session;

use crate::support::*;

/// An address at which the machine has no memory.
const NOWHERE: Gpa = Gpa(0x20_0000_0000);

/// Damages tables of a process whose first target page is present, writes there, and returns the status and cause that
/// the requester gets. The machine must become idle, and another process must be unaffected.
#[track_caller]
fn write_after(spoil: impl FnOnce(&Machine, &Session)) -> (WcStatus, u32) {
    let (machine, mut session) = ready(MachineSetup::default());
    let mut other = open(&machine, 2);
    session.process.populate(TARGET, FRAME).unwrap();
    spoil(&machine, &session);
    session.process.flush(TARGET, FRAME).unwrap();
    session.write(1, SOURCE, TARGET, 64);
    machine.settle();
    while machine.pass_time() {
        machine.settle();
    }
    let outcome = outcomes(&session.drain());
    assert_eq!(outcome.len(), 1, "the write did not end");
    other.write(2, SOURCE, TARGET, 64);
    machine.settle();
    assert_success(&other.drain(), [2]);
    (outcome[0].1, outcome[0].2)
}

/// Flushes what the unit has cached of the PASID and context tables.
fn flush_tables(machine: &Machine) {
    let everything = [Descriptor::contexts(), Descriptor::pasid_cache(), Descriptor::iotlb()];
    machine.unit.queue.submit(&everything, false).unwrap();
}

#[test]
fn a_table_outside_memory_blocks_the_access_at_every_level() {
    for level in [4, 3, 2] {
        let outcome = write_after(|_, session| {
            session.process.space.set_raw(TARGET, level, PageTableEntry::table(NOWHERE)).unwrap();
        });
        assert_eq!(outcome.0, WC_REM_ACCESS_ERR, "level {level}");
    }
}

#[test]
fn an_address_space_outside_memory_blocks_everything() {
    let outcome = write_after(|machine, session| {
        let entry = machine.function.pasid_entry(session.pasid).unwrap();
        machine.memory.dma().store_u64(Gpa(entry.0 + 16), NOWHERE.0).unwrap();
        flush_tables(machine);
    });
    // The source is read first, and its tables are gone as well.
    assert_eq!(outcome.0, WC_LOC_PROT_ERR);
}

#[test]
fn a_table_that_contains_itself_is_walked_once() {
    for level in [4, 3, 2] {
        let outcome = write_after(|_, session| {
            let root = session.process.space.root();
            session.process.space.set_raw(TARGET, level, PageTableEntry::table(root)).unwrap();
        });
        // The walk has four steps, wherever the loop leads; it may lead to no page.
        assert!(matches!(outcome.0, WC_SUCCESS | WC_REM_ACCESS_ERR), "level {level}: {outcome:?}");
    }
}

#[test]
fn an_address_without_memory_has_a_cause_of_its_own() {
    let outcome = write_after(|_, session| {
        session
            .process
            .space
            .set_raw(TARGET, 1, PageTableEntry::leaf(NOWHERE, PageSize::Small, true))
            .unwrap();
    });
    assert_eq!(outcome, (WC_REM_ACCESS_ERR, CAUSE_NOT_MEMORY));
}

#[test]
fn a_page_in_the_interrupt_range_is_no_memory_either() {
    let mut interrupts = None;
    let outcome = write_after(|machine, session| {
        let leaf = PageTableEntry::leaf(Gpa(0xfee0_0000), PageSize::Small, true);
        session.process.space.set_raw(TARGET, 1, leaf).unwrap();
        interrupts = Some(machine.interrupts.clone());
    });
    assert_eq!(outcome.0, WC_REM_ACCESS_ERR);
    assert_eq!(interrupts.unwrap().strays(), 0);
}

#[test]
fn reserved_bits_block_the_access() {
    let outcome = write_after(|_, session| {
        let leaf = session.process.space.lookup(TARGET).unwrap().unwrap();
        let reserved = PageTableEntry(leaf.entry.0 | 1 << 51);
        session.process.space.set_raw(TARGET, 1, reserved).unwrap();
    });
    assert_eq!(outcome.0, WC_REM_ACCESS_ERR);
}

#[test]
fn a_page_of_the_kernel_is_asked_for_and_given_up() {
    // Each time the kernel's handler finds the page present, and answers "retry".
    let outcome = write_after(|_, session| {
        let leaf = session.process.space.lookup(TARGET).unwrap().unwrap();
        session.process.space.set_raw(TARGET, 1, PageTableEntry(leaf.entry.0 & !PageTableEntry::U)).unwrap();
    });
    assert_eq!(outcome, (WC_REM_ACCESS_ERR, CAUSE_PAGE_RETRIES));
}

#[test]
fn a_directory_of_nonsense_blocks_its_processes_and_no_other() {
    for nonsense in [0, NOWHERE.0 | 1, u64::MAX] {
        let (machine, mut session) = ready(MachineSetup::default());
        // PASID 1 and the function's own space are in the first table, PASID 65 in the second.
        let mut spoilt = open(&machine, 65);
        let (_, directory) = machine.function.tables();
        machine.memory.dma().store_u64(Gpa(directory.0 + 8), nonsense).unwrap();
        flush_tables(&machine);
        spoilt.process.flush(Iova(0), 1 << 47).unwrap();
        spoilt.write(1, SOURCE, TARGET, 64);
        session.write(2, SOURCE, TARGET, 64);
        machine.settle();
        let outcome = outcomes(&spoilt.drain());
        assert_eq!((outcome.len(), outcome[0].1), (1, WC_LOC_PROT_ERR), "directory entry {nonsense:#x}");
        assert_success(&session.drain(), [2]);
    }
}

#[test]
fn a_function_without_a_context_entry_does_nothing_and_recovers() {
    let (machine, mut session) = ready(MachineSetup::default());
    let (context, _) = machine.function.tables();
    let present = machine.memory.dma().load_u64(context).unwrap();
    machine.memory.dma().store_u64(context, 0).unwrap();
    flush_tables(&machine);
    machine.function.flush_own(Iova(0), Iova(u64::MAX)).unwrap();
    session.write(1, SOURCE, TARGET, 64);
    machine.settle();
    assert_eq!(session.drain(), [], "a completion was written without a context entry");
    machine.memory.dma().store_u64(context, present).unwrap();
    machine.driver.reset().unwrap();
    assert!(machine.unit.take_faults().0.iter().all(|fault| fault.requester == machine.function.requester()));
}

#[test]
fn without_bus_mastering_or_pasid_nothing_is_touched() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.process.populate(TARGET, FRAME).unwrap();
    machine.driver.config().set_bus_master(false);
    session.write(1, SOURCE, TARGET, 64);
    machine.settle();
    assert_eq!(session.drain(), []);
    assert_eq!(bytes_at(&session, TARGET, 64), [0; 64]);
    let (machine, mut session) = ready(MachineSetup::default());
    session.process.populate(TARGET, FRAME).unwrap();
    fill_source(&session, 64, 1);
    machine.driver.config().set_pasid(false).unwrap();
    session.write(1, SOURCE, TARGET, 64);
    machine.settle();
    assert_eq!(outcomes(&session.drain()), [(1, WC_LOC_PROT_ERR, CAUSE_BLOCKED)]);
    assert_eq!(bytes_at(&session, TARGET, 64), [0; 64]);
}

#[test]
fn without_ats_a_present_page_works_and_an_absent_one_is_a_recorded_fault() {
    let (machine, mut session) = ready(MachineSetup::default());
    session.process.populate(TARGET, FRAME).unwrap();
    machine.driver.config().set_ats(false).unwrap();
    let bytes = fill_source(&session, 64, 2);
    session.write(1, SOURCE, TARGET, 64);
    machine.settle();
    assert_success(&session.drain(), [1]);
    assert_eq!(bytes_at(&session, TARGET, 64), bytes);
    session.process.take_page(TARGET).unwrap();
    session.write(2, SOURCE, TARGET, 64);
    machine.settle();
    assert_eq!(outcomes(&session.drain()), [(2, WC_REM_ACCESS_ERR, CAUSE_BLOCKED)]);
    let (faults, _) = machine.unit.take_faults();
    assert_eq!((faults.len(), faults[0].pasid, faults[0].page), (1, Some(session.pasid), TARGET));
    assert_eq!(page_requests(&machine), 0);
}

#[test]
fn a_ring_that_is_unmapped_under_the_device_costs_its_owner_alone() {
    let (machine, mut session) = ready(MachineSetup { translated: true, ..MachineSetup::default() });
    let mut other = open(&machine, 2);
    session.write(1, SOURCE, TARGET, 64);
    machine.settle();
    assert_success(&session.drain(), [1]);
    session.completions.unmap_ring().unwrap();
    session.write(2, SOURCE, TARGET, 64);
    machine.settle();
    other.write(3, SOURCE, TARGET, 64);
    machine.settle();
    assert_success(&other.drain(), [3]);
    assert_eq!(machine.driver.query(session.sender.number()).unwrap().attributes.state, QPS_ERR);
    let events: Vec<_> =
        std::iter::from_fn(|| session.events.poll().unwrap()).map(|event| event.kind).collect();
    assert!(events.contains(&refault_abi::event::EVENT_CQ_ERROR), "{events:?}");
}

#[test]
fn kernel_addresses_are_never_given_to_a_device() {
    let (machine, mut session) = ready(MachineSetup::default());
    let kernel = Iova(0xffff_8880_0000_0000);
    let frame = machine.memory.frame().unwrap();
    session.process.space.map(kernel, frame, PageSize::Small, Rights::Write).unwrap();
    let leaf = session.process.space.lookup(kernel).unwrap().unwrap();
    session.process.space.set_raw(kernel, 1, PageTableEntry(leaf.entry.0 & !PageTableEntry::U)).unwrap();
    session.write(1, SOURCE, kernel, 64);
    machine.settle();
    assert_eq!(outcomes(&session.drain()), [(1, WC_REM_ACCESS_ERR, CAUSE_PAGE_REFUSED)]);
    assert_eq!(machine.memory.bytes(frame, 64).unwrap(), [0; 64]);
}
