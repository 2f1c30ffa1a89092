//! Process Address Space IDs (PCIe 6.0, 7.8.9).

use refault_bus::Pasid;

use super::{Capability, CapabilityId};
use crate::space::Register;

pub(crate) const ID: CapabilityId = CapabilityId::Extended(0x1b, 1);

/// Dword of capability (low half) and control (high half).
pub(crate) const CONTROL: usize = 1;
/// Requests may carry a PASID.
pub(crate) const ENABLE: u32 = 1 << 16;

/// The capability: PASIDs of full width, neither execute permission nor privileged mode. Linux enables whatever is
/// offered, but its process address spaces allow neither.
pub fn process_address_spaces() -> Capability {
    let registers = vec![Register::default(), Register::constant(Pasid::BITS << 8).writable(ENABLE)];
    Capability { id: ID, registers }
}
