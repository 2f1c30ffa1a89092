//! PCI Express (PCIe 6.0, 7.5.3): a root-complex integrated endpoint.

use super::{Capability, CapabilityId};
use crate::space::Register;

pub(crate) const ID: CapabilityId = CapabilityId::Standard(0x10);

/// Dword of device control and status.
pub(crate) const DEVICE_CONTROL: usize = 2;
/// Device control: writing one resets the function; it always reads zero.
pub(crate) const INITIATE_RESET: u32 = 1 << 15;

/// Capability version 2, device type 9: a root complex integrated endpoint, with no port above it. Linux refuses PASIDs
/// to any other type on the root bus, because there is no bridge that forwards the prefix.
const CAPABILITIES: u32 = 0x92 << 16;
/// Payloads of 128 bytes, role-based error reporting, function-level reset.
const DEVICE_CAPABILITIES: u32 = 1 << 15 | 1 << 28;
/// After reset: relaxed ordering and no-snoop on, read requests of 512 bytes.
const DEVICE_CONTROL_RESET: u32 = 1 << 4 | 1 << 11 | 2 << 12;
const DEVICE_CONTROL_WRITABLE: u32 = 0x7fff;
/// The four error-detected bits, RW1C.
const DEVICE_STATUS_ERRORS: u32 = 0xf << 16;
/// Completion timeouts can be disabled; one end-to-end TLP prefix is supported, which carries the PASID.
const DEVICE_CAPABILITIES_2: u32 = 1 << 4 | 1 << 21 | 1 << 22;
/// Completion timeout value and disable.
const DEVICE_CONTROL_2_WRITABLE: u32 = 0x1f;

/// The capability of a root complex integrated endpoint. The link, slot and root registers of other types read as zero.
pub fn integrated_endpoint() -> Capability {
    let mut registers = vec![Register::default(); 15];
    registers[0] = Register::constant(CAPABILITIES);
    registers[1] = Register::constant(DEVICE_CAPABILITIES);
    registers[DEVICE_CONTROL] = Register::constant(DEVICE_CONTROL_RESET)
        .writable(DEVICE_CONTROL_WRITABLE)
        .cleared_by_ones(DEVICE_STATUS_ERRORS);
    registers[9] = Register::constant(DEVICE_CAPABILITIES_2);
    registers[10] = Register::constant(0).writable(DEVICE_CONTROL_2_WRITABLE);
    Capability { id: ID, registers }
}
