//! A kernel's configuration, and the options of it that guests need; `guest-driver/kernel.config` has the same
//! options.

use std::collections::BTreeMap;

/// A use of a guest that needs kernel options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Run a command with our driver loaded.
    Boot,
    /// Access folders of the host: `--share`, `--root host`.
    Share,
    /// Use a network: `--net user`.
    Net,
    /// Trace the kernel's part of recorded faults: `--trace`.
    Trace,
}

/// A kernel option that a use requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredOption {
    /// Name without `CONFIG_`.
    pub name: &'static str,
    /// Why it is needed.
    pub purpose: &'static str,
    needed_by: Use,
}

const fn wanted(needed_by: Use, name: &'static str, purpose: &'static str) -> RequiredOption {
    RequiredOption { name, purpose, needed_by }
}

/// All required options. One that another option here selects is left out.
const WANTED: &[RequiredOption] = &[
    wanted(Use::Boot, "BLK_DEV_INITRD", "the initial RAM file system, which holds init"),
    wanted(Use::Boot, "DEVTMPFS", "device nodes"),
    wanted(Use::Boot, "PROC_FS", "init reads /proc"),
    wanted(Use::Boot, "SYSFS", "init reads /sys"),
    wanted(Use::Boot, "TMPFS", "what the guest writes lies in memory"),
    wanted(Use::Boot, "UNIX98_PTYS", "a terminal for the command"),
    wanted(Use::Boot, "SERIAL_8250", "the command's input and output"),
    wanted(Use::Boot, "SERIAL_8250_CONSOLE", "the kernel's log"),
    wanted(Use::Boot, "X86_PMEM_LEGACY", "persistent memory, e820 type 12, in which the root file system is"),
    wanted(Use::Boot, "BLK_DEV_PMEM", "persistent memory as a block device"),
    wanted(Use::Boot, "ND_CLAIM", "without it no persistent memory is used; BTT selects it"),
    wanted(Use::Boot, "FS_DAX", "file systems without a page cache, on persistent memory"),
    wanted(Use::Boot, "EROFS_FS", "the root file system"),
    wanted(Use::Boot, "OVERLAY_FS", "a root file system that can be written to"),
    wanted(Use::Boot, "INTEL_IOMMU", "the IOMMU"),
    wanted(Use::Boot, "INTEL_IOMMU_SVM", "page requests by process (SVA)"),
    wanted(Use::Boot, "MODULES", "refault's driver is a module"),
    wanted(Use::Boot, "INFINIBAND", "refault's driver is one of InfiniBand's"),
    wanted(Use::Boot, "INFINIBAND_USER_ACCESS", "libibverbs"),
    wanted(Use::Boot, "INFINIBAND_ON_DEMAND_PAGING", "regions that fault"),
    wanted(Use::Share, "VIRTIO_PCI", "devices of QEMU, for --share and --root host"),
    wanted(Use::Share, "NET_9P", "--share and --root host"),
    wanted(Use::Share, "NET_9P_VIRTIO", "--share and --root host"),
    wanted(Use::Share, "9P_FS", "--share and --root host"),
    wanted(Use::Net, "VIRTIO_PCI", "devices of QEMU, for --net user"),
    wanted(Use::Net, "VIRTIO_NET", "--net user"),
    wanted(Use::Trace, "FTRACE", "the kernel's part of a recorded fault (--no-guest-stages does without)"),
    wanted(
        Use::Trace,
        "KPROBE_EVENTS",
        "the kernel's part of a recorded fault (--no-guest-stages does without)",
    ),
];

/// A configuration as in `.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelConfig(BTreeMap<String, String>);

impl KernelConfig {
    /// Parses the text of a `.config`. Lines that set no option are ignored.
    pub fn parse(text: &str) -> Self {
        let set = |line: &str| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            Some((name.to_string(), value.to_string()))
        };
        Self(text.lines().filter_map(set).collect())
    }

    /// Whether an option is built in or a module.
    pub fn has(&self, name: &str) -> bool {
        matches!(self.0.get(name).map(String::as_str), Some("y" | "m"))
    }

    /// The options that guests with these uses need and this kernel lacks.
    pub fn missing(&self, uses: &[Use]) -> Vec<RequiredOption> {
        let lacks = |wanted: &&RequiredOption| uses.contains(&wanted.needed_by) && !self.has(wanted.name);
        WANTED.iter().filter(lacks).copied().collect()
    }

    /// Arguments for the kernel's command line that enable the IOMMU with PASIDs, if the configuration does not.
    pub fn iommu_arguments(&self) -> Option<&'static str> {
        let on = self.has("INTEL_IOMMU_DEFAULT_ON") && self.has("INTEL_IOMMU_SCALABLE_MODE_DEFAULT_ON");
        (!on).then_some("intel_iommu=on,sm_on")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAGMENT: &str = include_str!("../../../../guest-driver/kernel.config");
    const EVERYTHING: &[Use] = &[Use::Boot, Use::Share, Use::Net, Use::Trace];

    #[test]
    fn the_fragment_has_all_required_options() {
        let config = KernelConfig::parse(FRAGMENT);
        assert_eq!(config.missing(EVERYTHING), []);
        assert_eq!(config.iommu_arguments(), None);
    }

    #[test]
    fn a_module_counts_like_a_built_in_option_and_nothing_else_does() {
        let config = KernelConfig::parse(&FRAGMENT.replace("EROFS_FS=y", "EROFS_FS=m"));
        assert_eq!(config.missing(&[Use::Boot]), []);
        let config = KernelConfig::parse("# CONFIG_EROFS_FS is not set\nCONFIG_OVERLAY_FS=\"y\"\n");
        assert!(!config.has("EROFS_FS") && !config.has("OVERLAY_FS"));
        assert_eq!(config.iommu_arguments(), Some("intel_iommu=on,sm_on"));
    }

    #[test]
    fn unused_options_are_not_required() {
        let config = KernelConfig::parse(&FRAGMENT.replace("CONFIG_VIRTIO_NET=y", ""));
        assert_eq!(config.missing(&[Use::Boot, Use::Share]), []);
        assert_eq!(
            config.missing(&[Use::Boot, Use::Net]).iter().map(|w| w.name).collect::<Vec<_>>(),
            ["VIRTIO_NET"]
        );
    }
}
