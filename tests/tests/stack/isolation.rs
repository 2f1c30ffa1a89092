//! A device with translations in its TLB reaches memory no longer once the unit is turned off, or its tables are gone.

use refault_bus::{Bdf, Gpa};
use refault_model::memory::FRAME;
use refault_model::vtd::Descriptor;
use refault_tests::machine::{Machine, MachineSetup};

use crate::support::*;

/// Offsets and bits of the unit's registers.
const GCMD: u64 = 0x18;
const RTADDR: u64 = 0x20;
const CCMD: u64 = 0x28;
const TE_SRTP_QIE: u32 = 1 << 31 | 1 << 30 | 1 << 26;
const SCALABLE: u64 = 1 << 10;

/// Whether a write lands that is posted after `stop`. Everything that it needs was used before, and is in the device TLB.
fn lands_after(stop: impl Fn(&Machine)) -> bool {
    let (machine, mut session) = ready(MachineSetup::default());
    session.process.populate(TARGET, FRAME).unwrap();
    fill_source(&session, FRAME as usize, 1);
    session.write(1, SOURCE, TARGET, FRAME as u32);
    machine.settle();
    assert_success(&session.drain(), [1]);
    stop(&machine);
    let bytes = fill_source(&session, FRAME as usize, 2);
    session.write(2, SOURCE, TARGET, FRAME as u32);
    machine.settle();
    let landed = bytes_at(&session, TARGET, FRAME as usize) == bytes;
    assert_eq!(session.drain().len(), usize::from(landed), "its completion goes the same way");
    landed
}

/// Clears the context entry, then has the unit forget the cached one.
fn end_context(machine: &Machine, forget: impl Fn(&Machine, Bdf)) {
    machine.memory.dma().store_u64(machine.function.tables().0, 0).unwrap();
    forget(machine, machine.function.requester());
}

#[test]
fn a_write_lands_as_long_as_nothing_was_turned_off() {
    assert!(lands_after(|_| ()));
    assert!(lands_after(|machine| machine.unit.queue.submit(&[Descriptor::contexts()], false).unwrap()));
}

#[test]
fn a_warm_device_is_stopped_when_translation_is_turned_off() {
    assert!(!lands_after(|machine| machine.unit.shut_down().unwrap()));
}

#[test]
fn a_warm_device_is_stopped_by_a_root_table_without_it() {
    assert!(!lands_after(|machine| {
        let Gpa(root) = machine.memory.frame().unwrap();
        machine.unit.registers().write64(RTADDR, root | SCALABLE);
        machine.unit.registers().write32(GCMD, TE_SRTP_QIE);
    }));
}

#[test]
fn a_warm_device_is_stopped_when_its_context_entry_ends() {
    let submit = |machine: &Machine, flush| machine.unit.queue.submit(&[flush], false).unwrap();
    assert!(!lands_after(|machine| end_context(machine, |machine, bdf| submit(
        machine,
        Descriptor::context(bdf)
    ))));
    assert!(!lands_after(|machine| end_context(machine, |machine, _| submit(
        machine,
        Descriptor::contexts()
    ))));
    let by_register = |machine: &Machine, _| machine.unit.registers().write64(CCMD, 1 << 63 | 1 << 61);
    assert!(!lands_after(|machine| end_context(machine, by_register)));
}
