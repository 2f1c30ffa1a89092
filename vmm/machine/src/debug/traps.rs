//! What stops vCPUs for a debugger, and why one stopped.

use std::collections::BTreeSet;

/// Debug registers that hold an address.
pub const HARDWARE_TRAPS: usize = 4;

/// What a debug register waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The instruction at this address is about to be executed.
    Execute,
    /// Its bytes were written.
    Write,
    /// Its bytes were read or written.
    ReadWrite,
}

/// A breakpoint or watchpoint in a debug register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareTrap {
    /// Guest-virtual; a multiple of the length.
    pub address: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub length: u8,
    /// What stops the vCPU.
    pub access: Access,
}

/// All that is to stop vCPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traps {
    /// Guest-virtual addresses of instructions that were replaced by INT3.
    pub software: BTreeSet<u64>,
    /// Debug registers.
    pub hardware: [Option<HardwareTrap>; HARDWARE_TRAPS],
}

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It did its single step.
    Step,
    /// At an INT3 of the debugger's.
    Software,
    /// By the debug register with this number.
    Hardware(usize),
}

/// One vCPU that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub cpu: u8,
    /// Why.
    pub why: Why,
}

/// Takes note of vCPUs that stop.
pub type Listener = Box<dyn Fn(Stop) + Send>;
