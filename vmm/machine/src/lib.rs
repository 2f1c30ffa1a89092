//! Our own VMM: KVM, memory, the address map, firmware tables, serial ports, PCI, and debugging. Only this crate uses KVM.
//! Its only devices are those that every PC has; NIC and IOMMU are connected through the traits of [`refault_bus`] and
//! [`refault_pci`].

#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod acpi;
pub mod boot;
pub mod bus_map;
pub mod config;
pub mod control;
pub mod debug;
pub mod kvm;
mod machine;
pub mod memory;
pub mod pci_host;
pub mod serial;

pub use machine::{Consoles, Devices, KvmMachine, MachineHandle, MachineParts, SerialInput};
