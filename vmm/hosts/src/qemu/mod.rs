//! Stock QEMU as the machine: it has CPUs, memory and firmware; the NIC and the IOMMU stay in this process and reach it
//! by vfio-user ([`crate::serve`]).
//!
//! A [`Machine`] here is made of the same configuration and used in the same way as one of our own
//! ([`refault_machine::Machine`]).

mod arguments;
mod debug;
pub mod emulator;
mod extras;
mod machine;
mod monitor;
mod serial;

pub use self::emulator::Emulator;
pub use self::extras::{Extras, SHARES_MAX, Share};
pub use self::machine::Machine;
