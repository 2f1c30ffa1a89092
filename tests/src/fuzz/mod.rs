//! Fuzz targets: what a guest, a wire or a file can feed to refault.
//!
//! A target is a function of any bytes. It brings a part up as its driver does, turns the bytes into accesses to it, and
//! panics if the invariant in its documentation does not hold. `tests/fuzz` has one program for each, for cargo-fuzz;
//! `tests/tests/fuzz.rs` runs each with the stored inputs and with random ones. `docs/fuzzing.md` lists them.

pub mod feed;
pub mod files;
pub mod iommu;
pub mod nic;
pub mod watch;
pub mod wire;

/// Most operations of one input: long ones say nothing new, and take long.
const OPERATIONS_MAX: usize = 200;

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `tests/fuzz/corpus`.
    pub name: &'static str,
    /// Runs it with one input. Panics if its invariant does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "iommu_registers", run: iommu::registers::run },
    Target { name: "iommu_queue", run: iommu::queue::run },
    Target { name: "iommu_tables", run: iommu::tables::run },
    Target { name: "iommu_requests", run: iommu::requests::run },
    Target { name: "nic_registers", run: nic::registers::run },
    Target { name: "nic_commands", run: nic::commands::run },
    Target { name: "nic_queues", run: nic::queues::run },
    Target { name: "nic_on_demand", run: nic::on_demand::run },
    Target { name: "port_frames", run: nic::port::run },
    Target { name: "guest_ports", run: files::guest_ports::run },
    Target { name: "guest_archive", run: files::guest_archive::run },
    Target { name: "guest_trace", run: files::guest_trace::run },
    Target { name: "lab_scenario", run: files::lab_scenario::run },
    Target { name: "timing_file", run: files::timing_file::run },
    Target { name: "roce_frame", run: wire::run },
];
