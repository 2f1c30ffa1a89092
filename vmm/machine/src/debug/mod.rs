//! Debugging a guest's kernel: a gdb server, cores of memory, and signals that request NMIs and cores. Nothing here depends
//! on KVM.

pub mod dump;
pub mod gdb;
pub mod place;
pub mod registers;
pub mod signals;
pub mod traps;

use std::path::PathBuf;

/// How gdb attaches to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gdb {
    /// TCP port on the loopback interface.
    pub port: u16,
    /// The guest waits for gdb before its first instruction.
    pub wait: bool,
}

/// The debugging options of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debug {
    /// The gdb server, if there is to be one.
    pub gdb: Option<Gdb>,
    /// Path for a core of the guest's memory, written when the guest is reset and on demand.
    pub dump: Option<PathBuf>,
    /// Whether signals to this process send NMIs and write cores.
    pub signals: bool,
}

impl Debug {
    /// Arguments for the guest's kernel: addresses as in its vmlinux, and a panic on an NMI.
    pub fn kernel_arguments(&self) -> &'static str {
        match (self.gdb, &self.dump) {
            (None, None) => "",
            (Some(_), None) => "nokaslr",
            (_, Some(_)) => "nokaslr unknown_nmi_panic",
        }
    }
}
