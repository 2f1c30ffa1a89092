//! What a machine is made of: plain data, already validated, with no wiring in it.

use std::path::PathBuf;

/// One machine to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// A bzImage or an ELF vmlinux.
    pub kernel: PathBuf,
    /// Initial RAM file systems, loaded one behind the other, as the kernel accepts them.
    pub initrds: Vec<PathBuf>,
    /// Kernel command line, complete.
    pub cmdline: String,
    /// Number of vCPUs, at least 1.
    pub cpus: u8,
    /// Guest RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// Persistent memory regions, in the order of the guest's /dev/pmem0, /dev/pmem1, ...
    pub pmem: Vec<PmemConfig>,
    /// Which CPU the guest sees.
    pub cpu_model: CpuModel,
}

/// One e820 type-12 region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PmemConfig {
    /// What lies behind it.
    pub backing: PmemBacking,
    /// Size in bytes, a multiple of 2 MiB.
    pub size: u64,
}

/// What lies behind a persistent memory region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PmemBacking {
    /// A file, mapped shared: it persists. The file is locked while the machine runs.
    Shared(PathBuf),
    /// A file, mapped privately: the guest may write, the file never changes. For root file systems.
    Private(PathBuf),
    /// Memory without a name, gone with the machine.
    Anonymous,
}

/// CPU models the guest can be given. Never simply the host's: see docs/architecture.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CpuModel {
    /// x86-64 baseline (SSE2, NX, 48-bit addresses) and what Linux wants of a hypervisor: runs anywhere, nested too.
    #[default]
    Baseline,
    /// What the host's KVM supports, less what refault's IOMMU cannot match (five-level paging).
    Host,
}

/// How a machine came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest powered itself off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset (keyboard controller, port 0xcf9, ACPI).
    Reset,
    /// A triple fault: the guest crashed without a word, or rebooted in the hard way.
    TripleFault,
    /// Somebody on the host asked for the end.
    Stopped,
    /// KVM could not go on; the text says what and what to do.
    Failed(String),
}
