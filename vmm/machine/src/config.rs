//! What a machine is made of: plain data, already validated, with no wiring in it.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Persistent memory regions are multiples of this: the guest maps them in pages of 2 MiB.
pub const PMEM_ALIGN: u64 = 2 << 20;

/// The longest command line any kernel takes, without its terminating zero.
pub const CMDLINE_MAX: usize = 2047;

/// vCPUs a guest can have without interrupt remapping: 8-bit APIC ids, of which 255 means all.
pub const CPUS_MAX: u8 = 254;

/// The least RAM in which a distribution's kernel and a small initial RAM file system come up.
pub const MEMORY_MIN: u64 = 64 << 20;

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
    /// Such a file of the machine around us, in an emulated one: its path there, and the physical address at which this
    /// machine has it. The lock is the outer one's.
    Lent(PathBuf, u64),
    /// A file, mapped privately: the guest may write, the file never changes. For root file systems.
    Private(PathBuf),
    /// Memory without a name, gone with the machine.
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
    /// The guest halted its CPUs and said so on its console: nothing will ever happen in it again.
    Halted,
    /// Somebody on the host asked for the end.
    Stopped,
    /// KVM could not go on; the text says what and what to do.
    Failed(String),
}

/// A machine that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No vCPU, or more than APIC ids.
    #[error("{0} vCPUs: want 1 to {CPUS_MAX}")]
    Cpus(u8),
    /// RAM of an odd size, or too little.
    #[error("{0:#x} bytes of memory: want a multiple of 2 MiB, at least {min} MiB", min = MEMORY_MIN >> 20)]
    Memory(u64),
    /// A persistent region of an odd size.
    #[error(
        "persistent memory region {index} ({backing}) has {size:#x} bytes: want a multiple of 2 MiB, at least one"
    )]
    Pmem {
        /// Which of the regions, from zero.
        index: usize,
        /// What lies behind it.
        backing: PmemBacking,
        /// Its size in bytes.
        size: u64,
    },
    /// Longer than the kernel can take.
    #[error("the kernel command line has {0} bytes, but the kernel takes at most {CMDLINE_MAX}; shorten it")]
    CmdlineTooLong(usize),
    /// A line break or a zero in it.
    #[error("the kernel command line contains the control character {0:?}; remove it")]
    CmdlineCharacter(char),
}

impl MachineConfig {
    /// Checks what can be checked without touching the host.
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
    /// A valid machine for tests to change.
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
    fn memory_is_whole_and_enough() {
        assert_eq!(error(|config| config.memory = 2 << 20), ConfigError::Memory(2 << 20));
        let odd = error(|config| config.memory = (256 << 20) + 4096);
        assert!(odd.to_string().contains("multiple of 2 MiB"), "{odd}");
    }

    #[test]
    fn persistent_regions_are_named_by_their_place() {
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
