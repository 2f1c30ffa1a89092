//! Debugging a guest's kernel: gdb's way in, cores of memory, and the signals that ask for more. What is here does not
//! depend on what runs the guest.

pub mod dump;
pub mod gdb;
pub mod place;
pub mod registers;
pub mod signals;
pub mod traps;

use std::path::PathBuf;

/// Where gdb attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gdb {
    /// TCP port on the loopback interface.
    pub port: u16,
    /// The guest waits for it before its first instruction.
    pub wait: bool,
}

/// What a user wants to debug a guest with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debug {
    /// gdb's way in.
    pub gdb: Option<Gdb>,
    /// Where a core of the guest's memory goes when it is reset, and on demand.
    pub dump: Option<PathBuf>,
    /// Signals to this process send NMIs and write cores.
    pub signals: bool,
}

impl Debug {
    /// Arguments for the guest's kernel: addresses as in its vmlinux, and that an NMI is to be a panic.
    pub fn kernel_arguments(&self) -> &'static str {
        match (self.gdb, &self.dump) {
            (None, None) => "",
            (Some(_), None) => "nokaslr",
            (_, Some(_)) => "nokaslr unknown_nmi_panic",
        }
    }
}
