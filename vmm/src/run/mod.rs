//! Boots a guest, runs a command in it, and brings back its output, its files and its exit status.

mod any_machine;
mod collect;
mod device_records;
mod end;
mod execute;
mod experiment;
pub mod guest_log;
pub mod job;
mod lifecycle;
mod nested;
pub mod options;
mod output;
mod plan;
mod recorded;
pub mod stages;
mod watch;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

pub(crate) use self::device_records::DeviceRecords;
pub use self::end::{End, FAILED, LATE_CRASH, NO_STATUS, TIMED_OUT, WARNED};
pub use self::execute::execute;
pub use self::lifecycle::run;
pub use self::options::RunArgs;
use self::options::parse::{Add, Out, Pmem};
pub(crate) use self::recorded::RecordedRun;
use refault_guest::GuestImage;
use refault_guest::kernel_tree::TreeKernel;
use refault_hosts::qemu::{Emulator, Extras};
use refault_machine::config::CpuModel;

/// What the guest runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Our own VMM, on a KVM that works.
    #[default]
    Kvm,
    /// QEMU.
    Qemu(Emulator),
}

/// A guest and what it is to do.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// What it runs on.
    pub place: Place,
    /// Kernel, modules, root file system, driver. None is enough when kernel and initrd are the user's own.
    pub image: Option<GuestImage>,
    /// A kernel in place of the image's.
    pub kernel: Option<PathBuf>,
    /// A kernel with its modules in place of the image's.
    pub tree: Option<TreeKernel>,
    /// What it is debugged with, and what QEMU lends it; nothing else can.
    pub extras: Extras,
    /// An initramfs in place of the image's: it boots as it likes, and no command can be run.
    pub initrd: Option<PathBuf>,
    /// A root file system in place of the image's.
    pub rootfs: Option<PathBuf>,
    /// More kernel command line.
    pub append: String,
    /// Number of vCPUs.
    pub cpus: u8,
    /// Guest RAM in bytes.
    pub memory: u64,
    /// Which CPU the guest sees.
    pub cpu_model: CpuModel,
    /// Persistent memory regions: /dev/pmem0 and up.
    pub pmem: Vec<Pmem>,
    /// Kernel modules to load.
    pub modules: Vec<PathBuf>,
    /// Files for the guest.
    pub add: Vec<Add>,
    /// Files from the guest, when the command has ended.
    pub out: Vec<Out>,
    /// Room for those, in bytes.
    pub out_size: u64,
    /// The command, its name first.
    pub command: Vec<OsString>,
    /// It is a shell for the user, who may power the guest off.
    pub shell: bool,
    /// Its environment besides a plain one.
    pub environment: Vec<(String, OsString)>,
    /// Columns and rows of its terminal, if it gets one.
    pub terminal: Option<(u16, u16)>,
    /// How long all this may take.
    pub timeout: Option<Duration>,
    /// Let the kernel log everything.
    pub verbose: bool,
    /// Have the guest trace its handling of faults, with so many KiB for each CPU's events: see [`stages`].
    pub trace_kib: Option<u64>,
}

/// Where a guest's streams go.
pub struct Streams {
    /// Standard input of the command.
    pub input: Option<Box<dyn Read + Send>>,
    /// Columns and rows that its terminal changes to.
    pub sizes: Option<Receiver<(u16, u16)>>,
    /// Its standard output.
    pub output: Box<dyn Write + Send>,
    /// Its standard error.
    pub errors: Box<dyn Write + Send>,
    /// Copies of the kernel's log.
    pub log: Vec<Box<dyn Write + Send>>,
    /// Is called with every line that a program writes to /dev/refault-control in the guest.
    pub control: Box<dyn FnMut(&str) + Send>,
}
