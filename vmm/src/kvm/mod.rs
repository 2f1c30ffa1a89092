//! KVM: the only place that knows there is one.

#![expect(unsafe_code, reason = "KVM is handed pointers to guest memory, and its exits carry a union")]

pub mod cpuid;
mod long_mode;
pub mod run;
mod vcpu;
mod vm;

pub use long_mode::write_tables as write_boot_tables;
pub use vcpu::Vcpu;
pub use vm::{KvmError, Vm};
