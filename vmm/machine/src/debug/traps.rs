//! What stops vCPUs for a debugger, and why one stopped.

use std::collections::BTreeSet;

/// Number of debug registers that hold an address.
pub const HARDWARE_TRAPS: usize = 4;

/// The access that a debug register traps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrapAccess {
    /// The instruction at this address is about to be executed.
    Execute,
    /// A write to its bytes.
    Write,
    /// A read of or write to its bytes.
    ReadWrite,
}

/// A breakpoint or watchpoint in a debug register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareTrap {
    /// Guest-virtual address, a multiple of the length.
    pub address: u64,
    /// Length in bytes: 1, 2, 4 or 8.
    pub length: u8,
    /// The access that stops the vCPU.
    pub access: TrapAccess,
}

/// All traps that stop vCPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traps {
    /// Guest-virtual addresses of instructions that were replaced by INT3.
    pub software: BTreeSet<u64>,
    /// Traps in debug registers.
    pub hardware: [Option<HardwareTrap>; HARDWARE_TRAPS],
}

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It completed a single step.
    Step,
    /// It reached an INT3 of the debugger.
    Software,
    /// It hit the debug register with this number.
    Hardware(usize),
}

/// One vCPU that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuStop {
    /// Number of the vCPU.
    pub cpu: u8,
    /// Reason for the stop.
    pub why: StopReason,
}

/// Called for every vCPU that stops.
pub type StopListener = Box<dyn Fn(VcpuStop) + Send>;
