//! What a machine consists of: plain data, without wiring.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Persistent memory regions are multiples of this: the guest maps them with 2 MiB pages.
pub const PMEM_ALIGN: u64 = 2 << 20;

/// The longest command line that a kernel accepts, without its terminating zero, in bytes.
pub const CMDLINE_MAX: usize = 2047;

/// vCPUs at most without interrupt remapping: APIC ids have 8 bits, and 255 is the broadcast.
pub const CPUS_MAX: u8 = 254;

/// Least RAM in which a distribution's kernel and a small initial RAM file system boot, in bytes.
pub const MEMORY_MIN: u64 = 64 << 20;

/// The configuration of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// A bzImage or an ELF vmlinux.
    pub kernel: PathBuf,
    /// Initial RAM file systems, loaded one after the other; the kernel unpacks them in this order.
    pub initrds: Vec<PathBuf>,
    /// The complete kernel command line.
    pub cmdline: String,
    /// Number of vCPUs, at least 1.
    pub cpus: u8,
    /// Guest RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// Persistent memory regions, in the order of the guest's /dev/pmem0, /dev/pmem1 and so on.
    pub pmem: Vec<PmemConfig>,
    /// The guest's CPU model.
    pub cpu_model: CpuModel,
}

/// One e820 type-12 region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PmemConfig {
    /// The file or memory behind it.
    pub backing: PmemBacking,
    /// Size in bytes, a multiple of 2 MiB.
    pub size: u64,
}

/// What backs a persistent memory region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PmemBacking {
    /// A file, mapped shared: writes persist. The file is locked while the machine runs.
    Shared(PathBuf),
    /// Inside an emulated machine: a file of the outer host, as memory of the emulated machine. Its path on the outer host,
    /// and the physical address of that memory. The outer process holds the lock.
    Lent(PathBuf, u64),
    /// A file, mapped privately: the guest may write, but the file never changes. For root file systems.
    Private(PathBuf),
    /// Anonymous memory, lost with the machine.
    Anonymous,
}

impl fmt::Display for PmemBacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(file) | Self::Lent(file, _) | Self::Private(file) => write!(f, "{}", file.display()),
            Self::Anonymous => write!(f, "no file"),
        }
    }
}

/// CPU models for the guest. None is simply the host's; [`kvm::cpuid`](crate::kvm::cpuid) says why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CpuModel {
    /// The x86-64 baseline (SSE2, NX, 48-bit addresses) and what Linux expects from a hypervisor: runs anywhere, nested
    /// too.
    #[default]
    Baseline,
    /// What the host's KVM supports, without what refault's IOMMU cannot match (five-level paging).
    Host,
}

/// Why a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest powered itself off (ACPI S5).
    PowerOff,
    /// The guest requested a reset (keyboard controller, port 0xcf9, ACPI).
    Reset,
    /// A triple fault: the guest crashed without a message, or forced a reboot that way.
    TripleFault,
    /// The guest halted its CPUs and reported that on its console: it will never do anything again.
    Halted,
    /// The host requested the end.
    Stopped,
    /// KVM could not continue; the text says why, and what to do.
    Failed(String),
}

/// Why a configuration is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No vCPU, or more than there are APIC ids.
    #[error("{0} vCPUs: expected 1 to {CPUS_MAX}")]
    Cpus(u8),
    /// RAM that is no multiple of 2 MiB, or too little.
    #[error("{0:#x} bytes of memory: expected a multiple of 2 MiB, at least {min} MiB", min = MEMORY_MIN >> 20)]
    Memory(u64),
    /// A persistent region that is no multiple of 2 MiB.
    #[error(
        "persistent memory region {index} ({backing}) has {size:#x} bytes: expected a multiple of 2 MiB, at least one"
    )]
    Pmem {
        /// Index of the region, from zero.
        index: usize,
        /// The file or memory behind it.
        backing: PmemBacking,
        /// Its size in bytes.
        size: u64,
    },
    /// The command line is longer than the kernel accepts.
    #[error("the kernel command line has {0} bytes, but the kernel takes at most {CMDLINE_MAX}; shorten it")]
    CmdlineTooLong(usize),
    /// The command line contains a line break or a zero byte.
    #[error("the kernel command line contains the control character {0:?}; remove it")]
    CmdlineCharacter(char),
}

impl MachineConfig {
    /// Checks everything that can be checked without the host.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=CPUS_MAX).contains(&self.cpus) {
            return Err(ConfigError::Cpus(self.cpus));
        }
        if self.memory < MEMORY_MIN || !self.memory.is_multiple_of(2 << 20) {
            return Err(ConfigError::Memory(self.memory));
        }
        let odd = |region: &PmemConfig| region.size == 0 || !region.size.is_multiple_of(PMEM_ALIGN);
        if let Some(index) = self.pmem.iter().position(odd) {
            let PmemConfig { backing, size } = self.pmem[index].clone();
            return Err(ConfigError::Pmem { index, backing, size });
        }
        if self.cmdline.len() > CMDLINE_MAX {
            return Err(ConfigError::CmdlineTooLong(self.cmdline.len()));
        }
        match self.cmdline.chars().find(|&character| character.is_control() && character != '\t') {
            Some(character) => Err(ConfigError::CmdlineCharacter(character)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl MachineConfig {
    /// A valid configuration for tests to modify.
    pub(crate) fn sample() -> Self {
        Self {
            kernel: PathBuf::from("vmlinuz"),
            initrds: Vec::new(),
            cmdline: "console=ttyS0".into(),
            cpus: 1,
            memory: 256 << 20,
            pmem: Vec::new(),
            cpu_model: CpuModel::Baseline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut MachineConfig)) -> ConfigError {
        let mut config = MachineConfig::sample();
        change(&mut config);
        config.validate().unwrap_err()
    }

    #[test]
    fn a_plain_machine_is_valid() {
        assert_eq!(MachineConfig::sample().validate(), Ok(()));
    }

    #[test]
    fn vcpus_are_counted() {
        assert_eq!(error(|config| config.cpus = 0), ConfigError::Cpus(0));
        assert!(error(|config| config.cpus = 255).to_string().contains("1 to 254"));
    }

    #[test]
    fn memory_is_a_multiple_of_2_mib_and_large_enough() {
        assert_eq!(error(|config| config.memory = 2 << 20), ConfigError::Memory(2 << 20));
        let odd = error(|config| config.memory = (256 << 20) + 4096);
        assert!(odd.to_string().contains("multiple of 2 MiB"), "{odd}");
    }

    #[test]
    fn persistent_regions_are_named_by_their_index() {
        let region = |size| PmemConfig { backing: PmemBacking::Anonymous, size };
        let odd = error(|config| config.pmem = vec![region(2 << 20), region(4096)]);
        assert_eq!(odd, ConfigError::Pmem { index: 1, backing: PmemBacking::Anonymous, size: 4096 });
        assert!(odd.to_string().contains("region 1"));
    }

    #[test]
    fn the_command_line_fits_the_kernel() {
        let long = error(|config| config.cmdline = "x".repeat(2048));
        assert!(long.to_string().contains("2048") && long.to_string().contains("2047"));
        assert_eq!(error(|config| config.cmdline = "a\0b".into()), ConfigError::CmdlineCharacter('\0'));
    }
}
