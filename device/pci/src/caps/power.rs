//! Power management (PCIe 6.0, 7.5.2): D0 and D3hot, the states that every function must have.

use super::{Capability, CapabilityId};
use crate::space::Register;

pub(crate) const ID: CapabilityId = CapabilityId::Standard(0x01);

/// Dword of control and status.
pub(crate) const CONTROL: usize = 1;
/// The power state: 0 is D0, 3 is D3hot. D1 and D2 are not supported; a write of them changes nothing.
pub(crate) const STATE: u32 = 0b11;

/// Version 3, no power management events.
const CAPABILITIES: u32 = 3 << 16;
/// The transition from D3hot to D0 keeps the registers.
const NO_SOFT_RESET: u32 = 1 << 3;

/// The capability: D0 and D3hot, no power management events.
pub fn power_management() -> Capability {
    let registers = vec![Register::constant(CAPABILITIES), Register::constant(NO_SOFT_RESET).writable(STATE)];
    Capability { id: ID, registers }
}
