//! FADT: how to power off and reset.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::control::{RESET_PORT, RESET_VALUE, SLEEP_PORT};

/// Boot architecture: no VGA, no CMOS clock, no keyboard controller.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// Builds the table, with the address of the DSDT.
pub(super) fn fadt(dsdt: u64) -> FADT {
    let port = |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .preferred_pm_profile(PmProfile::EnterpriseServer);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = port(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(SLEEP_PORT);
    fadt.sleep_status_reg = port(SLEEP_PORT + 1);
    fadt.finalize()
}
