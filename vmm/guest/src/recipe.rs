//! The ingredients of the guest image. Any change here changes the cache keys, and so the image.

/// Debian release of the userland.
pub const RELEASE: &str = "trixie";
/// Suite of the default kernel, besides the release itself.
pub const KERNEL_SUITE: &str = "trixie-backports";

/// How a kernel is packaged.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelPackages {
    /// Name prefixes of the packages with kernel and modules; the kernel's release follows.
    pub parts: &'static [&'static str],
    /// Whether the headers can be installed without the kernel itself, which would build an initramfs.
    pub headers_alone: bool,
}

/// The ways in which Debian has packaged kernels, newest first.
pub const KERNEL_PACKAGES: &[KernelPackages] = &[
    KernelPackages { parts: &["linux-binary-", "linux-modules-"], headers_alone: true },
    KernelPackages { parts: &["linux-image-"], headers_alone: false },
];
/// Flavour of the kernel package, after the version.
pub const KERNEL_FLAVOUR: &str = "amd64";

/// Packages of the runtime root, besides the essential ones. ucx-utils is not among them: it brings libraries for GPUs,
/// which are 260 MB.
pub const RUNTIME_PACKAGES: &[&str] = &[
    "busybox-static",
    "ethtool",
    "fio",
    "gdb",
    "gdbserver",
    "ibverbs-providers",
    "ibverbs-utils",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libfabric-bin",
    "linux-perf",
    "ndctl",
    "nvme-cli",
    "pciutils",
    "perftest",
    "procps",
    "python3-pyverbs",
    "rdma-core",
    "rdmacm-utils",
    "strace",
    "xfsprogs",
];

/// Packages of the build root, besides the kernel's headers. The headers need binutils but do not depend on it.
pub const BUILD_PACKAGES: &[&str] =
    &["binutils", "gcc-14", "kmod", "libc6-dev", "libibverbs-dev", "make", "python3-minimal", "xfslibs-dev"];

/// Packages that a kernel's build tools need, unpacked into the build root without being installed.
pub const KBUILD_PACKAGES: &[&str] = &["pahole"];

/// The C compiler of the build root.
pub const COMPILER: &str = "gcc-14";

/// Files that are left out of the image.
pub const EXCLUDED_PATHS: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/lib/udev/hwdb.*",
];

/// Kernel modules that must be loaded before the root file system is mounted. In 6.12 erofs requests crc32c by the
/// algorithm's name, which is not a module dependency; later kernels have it built in.
pub const BOOT_MODULES: &[&str] = &["nd_e820", "nd_pmem", "crc32c_generic", "erofs", "overlay"];

/// Kernel modules loaded before the command runs, besides our driver: only those that are not loaded on demand. xfs
/// is loaded by the first mount; resolving its symbols takes the kernel seconds on an emulated CPU.
pub const GUEST_MODULES: &[&str] = &["ib_core", "ib_uverbs"];

/// Kernel modules for devices of QEMU: a network, folders of the host, and the device that reports where symbols
/// are.
pub const LENT_MODULES: &[&str] = &["virtio_pci", "virtio_net", "9pnet_virtio", "9p", "qemu_fw_cfg"];

/// Lists of kernel modules in the initial RAM file system; init loads the lists that are needed, in this order.
pub const MODULE_LISTS: &[(&str, &[&str])] =
    &[("boot", BOOT_MODULES), ("guest", GUEST_MODULES), ("lent", LENT_MODULES)];

/// Kernel modules that are only made available, for modprobe.
pub const EXTRA_MODULES: &[&str] = &[
    "8021q",
    "ext4",
    "ib_cm",
    "ib_ipoib",
    "ib_umad",
    "loop",
    "nd_btt",
    "nd_pmem",
    "nvme-fabrics",
    "nvme-rdma",
    "nvmet",
    "nvmet-rdma",
    "rdma_cm",
    "rdma_rxe",
    "rdma_ucm",
    "sch_netem",
    "siw",
    "tun",
    "veth",
    "vfio-pci",
    "vfio_iommu_type1",
    "virtio_blk",
    "virtio_net",
    "xfs",
    "zram",
];

/// Kernel modules of the nested machine.
pub const OUTER_MODULES: &[&str] = &["kvm-amd", "9p", "9pnet_virtio"];

/// Source package of libibverbs, for its private headers and its tests.
pub const VERBS_SOURCE: &str = "rdma-core";

/// Folder of that source with the tests of the Python bindings, which no binary package has, and its path in the
/// image.
pub const VERBS_TESTS: (&str, &str) = ("tests", "/usr/share/rdma-core/tests");
