//! refault's machine: KVM, files, threads and the command line. This crate alone touches the host; the
//! models it wires together ([`refault_iommu`], [`refault_nic`], [`refault_pci`]) do not.

pub mod accel;
pub mod acpi;
pub mod boot;
pub mod bus_map;
pub mod cli;
pub mod config;
pub mod control;
pub mod debug;
pub mod demo;
pub mod doctor;
pub mod guest;
pub mod host;
pub mod kvm;
pub mod lab;
pub mod machine;
pub mod memory;
pub mod pci_host;
pub mod qemu;
pub mod relay;
pub mod report;
pub mod run;
pub mod serial;
pub mod serve;
pub mod slow;
pub mod trace;
pub mod wiring;
