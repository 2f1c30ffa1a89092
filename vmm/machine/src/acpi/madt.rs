//! MADT: interrupt controllers. A vCPU's APIC id is its number.

use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::memory::layout::{IOAPIC, LAPIC};

/// Builds the table for `cpus` vCPUs.
pub(super) fn madt(cpus: u8) -> MADT {
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, LocalInterruptController::Address(LAPIC));
    for cpu in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IOAPIC, 0));
    madt
}
