//! KVM: the only module that uses it.

#![expect(unsafe_code, reason = "KVM is handed pointers to guest memory, and its exits carry a union")]

pub mod cpuid;
mod cpus;
mod idle;
mod long_mode;
pub mod probe;
mod registers;
pub mod run;
mod trap;
mod vcpu;
mod vm;

pub use cpus::{Cpus, Paused, Runnable};
pub use idle::IdleVm;
pub use long_mode::write_tables as write_boot_tables;
pub use vcpu::Vcpu;
pub use vm::{KvmError, Vm};
