//! What the guest image is made of. Changing anything here changes the cache keys, and so the image.

/// Debian release of the userland.
pub const RELEASE: &str = "trixie";
/// Where the usual kernel comes from, besides the release itself.
pub const KERNEL_SUITE: &str = "trixie-backports";

/// What a kernel is packaged as.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelPackages {
    /// Packages with kernel and modules, up to the release.
    pub parts: &'static [&'static str],
    /// Whether the headers can be installed without the kernel itself, which would want its initramfs made.
    pub headers_alone: bool,
}

/// The ways in which Debian has packaged kernels, the latest first.
pub const KERNEL_PACKAGES: &[KernelPackages] = &[
    KernelPackages { parts: &["linux-binary-", "linux-modules-"], headers_alone: true },
    KernelPackages { parts: &["linux-image-"], headers_alone: false },
];
/// Flavour of the kernel package, behind the version.
pub const KERNEL_FLAVOUR: &str = "amd64";

/// Packages of the runtime root, on top of the essential ones.
pub const RUNTIME_PACKAGES: &[&str] = &[
    "busybox-static",
    "fio",
    "gdb",
    "gdbserver",
    "ibverbs-providers",
    "ibverbs-utils",
    "iproute2",
    "kmod",
    "linux-perf",
    "ndctl",
    "pciutils",
    "perftest",
    "procps",
    "python3-pyverbs",
    "rdma-core",
    "strace",
    "xfsprogs",
];

/// Packages of the build root, besides the kernel's headers. The headers need binutils without saying so.
pub const BUILD_PACKAGES: &[&str] =
    &["binutils", "gcc-14", "kmod", "libc6-dev", "libibverbs-dev", "make", "python3-minimal", "xfslibs-dev"];

/// What a kernel's build tools need, in a build root into which they are unpacked without being installed.
pub const KBUILD_PACKAGES: &[&str] = &["pahole"];

/// The C compiler of the build root.
pub const COMPILER: &str = "gcc-14";

/// Files no guest of ours reads.
pub const EXCLUDED_PATHS: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/lib/udev/hwdb.*",
];

/// Kernel modules that must be there before the root file system is. In 6.12 erofs asks for crc32c by its algorithm's
/// name, which is no dependency of modules; later kernels have it built in.
pub const BOOT_MODULES: &[&str] = &["nd_e820", "nd_pmem", "crc32c_generic", "erofs", "overlay"];

/// Kernel modules loaded before the command runs, besides our own driver. Only what nothing would ask for by itself:
/// xfs comes with the first mount, and takes the kernel seconds of looking up symbols where CPUs are emulated.
pub const GUEST_MODULES: &[&str] = &["ib_core", "ib_uverbs"];

/// Kernel modules for what QEMU lends a guest: a network, folders of the host's, and a place to say where symbols are.
pub const LENT_MODULES: &[&str] = &["virtio_pci", "virtio_net", "9pnet_virtio", "9p", "qemu_fw_cfg"];

/// Lists of kernel modules in the initial RAM file system, which init loads in this order, each if it is wanted.
pub const MODULE_LISTS: &[(&str, &[&str])] =
    &[("boot", BOOT_MODULES), ("guest", GUEST_MODULES), ("lent", LENT_MODULES)];

/// Kernel modules that are merely there, for modprobe.
pub const EXTRA_MODULES: &[&str] = &[
    "ext4",
    "ib_ipoib",
    "ib_umad",
    "loop",
    "nd_btt",
    "nd_pmem",
    "rdma_rxe",
    "rdma_ucm",
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

/// Kernel modules of the outer machine, when there is no hardware virtualization.
pub const OUTER_MODULES: &[&str] = &["kvm-amd", "9p", "9pnet_virtio"];

/// Source package of libibverbs, for its private headers and its tests.
pub const VERBS_SOURCE: &str = "rdma-core";

/// Folder of that source with the tests of Python's bindings, which no binary package has, and its place in the image.
pub const VERBS_TESTS: (&str, &str) = ("tests", "/usr/share/rdma-core/tests");
