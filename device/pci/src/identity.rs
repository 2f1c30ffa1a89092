//! The identity of a function: the read-only part of its config space header.

use crate::space::Register;

/// The numbers by which a driver finds a function (PCIe 6.0, 7.5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID, offset 0x00.
    pub vendor: u16,
    /// Device ID, offset 0x02.
    pub device: u16,
    /// Class code, offset 0x09: base class in bits 23:16, subclass in 15:8, programming interface in 7:0.
    pub class: u32,
    /// Revision ID, offset 0x08.
    pub revision: u8,
    /// Subsystem vendor ID, offset 0x2c.
    pub subsystem_vendor: u16,
    /// Subsystem ID, offset 0x2e.
    pub subsystem: u16,
}

/// Dword index of the command and status registers.
pub(crate) const COMMAND: usize = 1;
/// Dword index of BAR 0.
pub(crate) const BAR0: usize = 4;
/// Dword index of the capability pointer.
pub(crate) const CAPABILITIES: usize = 13;

/// Command: memory BARs are decoded.
pub(crate) const COMMAND_MEMORY: u32 = 1 << 1;
/// Command: the function may issue requests, MSIs among them.
pub(crate) const COMMAND_BUS_MASTER: u32 = 1 << 2;
/// Command: parity error response, SERR# enable and interrupt disable. Writable, without effect here.
const COMMAND_OTHERS: u32 = 1 << 6 | 1 << 8 | 1 << 10;
/// Status: there is a capability list.
pub(crate) const STATUS_CAPABILITIES: u32 = 1 << (16 + 4);
/// Status: the error bits, cleared by writing ones.
const STATUS_ERRORS: u32 = 0xf900 << 16;

impl Identity {
    /// The header's registers without BARs and capability pointer, with their dword indices.
    pub(crate) fn header(&self) -> [(usize, Register); 6] {
        let id = u32::from(self.device) << 16 | u32::from(self.vendor);
        let class = (self.class & 0xff_ffff) << 8 | u32::from(self.revision);
        let subsystem = u32::from(self.subsystem) << 16 | u32::from(self.subsystem_vendor);
        [
            (0, Register::constant(id)),
            (
                COMMAND,
                Register::constant(0)
                    .writable(COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_OTHERS)
                    .cleared_by_ones(STATUS_ERRORS),
            ),
            (2, Register::constant(class)),
            // The cache line size is a scratch byte on PCI Express; header type 0, one function.
            (3, Register::constant(0).writable(0xff)),
            (0x2c / 4, Register::constant(subsystem)),
            // The interrupt line is a scratch byte; there is no interrupt pin.
            (0x3c / 4, Register::constant(0).writable(0xff)),
        ]
    }
}
