//! Stock QEMU as the machine: it provides CPUs, memory and firmware; the NIC and the IOMMU stay in this process, connected
//! by vfio-user ([`crate::serve`]).
//!
//! A [`QemuMachine`] here is built from the same configuration and used in the same way as our own
//! ([`refault_machine::KvmMachine`]).

mod arguments;
mod debug;
pub mod emulator;
mod extras;
mod machine;
mod monitor;
mod serial;

pub use self::emulator::Emulator;
pub use self::extras::{Extras, SHARES_MAX, Share};
pub use self::machine::QemuMachine;
