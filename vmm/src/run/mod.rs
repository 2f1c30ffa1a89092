//! Boots a guest, runs a command in it, and returns its output, files and exit status.

mod any_machine;
mod collect;
mod device_records;
mod end;
mod execute;
mod experiment;
pub mod from_guest;
pub mod guest_log;
pub mod job;
mod lifecycle;
mod nested;
pub mod options;
mod output;
mod plan;
mod recorded;
pub mod sandbox;
pub mod stages;
mod watchdog;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

pub(crate) use self::device_records::DeviceRecords;
pub use self::end::{FAILED, LATE_CRASH, NO_STATUS, RunEnd, TIMED_OUT, WARNED};
pub use self::execute::execute;
pub use self::options::RunArgs;
use self::options::parse::{Add, Out, Pmem};
pub(crate) use self::recorded::RecordedRun;
use refault_guest::GuestImage;
use refault_guest::kernel_tree::TreeKernel;
use refault_hosts::qemu::{Emulator, Extras};
use refault_machine::config::CpuModel;
use refault_os::sandbox::Grants;

/// What the guest runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Our own VMM, on a KVM that works.
    #[default]
    Kvm,
    /// QEMU, with our devices on sockets.
    Qemu(Emulator),
}

/// A guest and its command.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// What the guest runs on.
    pub backend: Backend,
    /// Kernel, modules, root file system, driver. Not needed if kernel and initrd are the user's own.
    pub image: Option<GuestImage>,
    /// A kernel in place of the image's.
    pub kernel: Option<PathBuf>,
    /// A kernel with its modules in place of the image's.
    pub tree: Option<TreeKernel>,
    /// Debugging, and devices that only QEMU provides.
    pub extras: Extras,
    /// An initramfs in place of the image's: it boots by itself, and no command can be run.
    pub initrd: Option<PathBuf>,
    /// A root file system in place of the image's.
    pub rootfs: Option<PathBuf>,
    /// More kernel command line.
    pub append: String,
    /// Number of vCPUs.
    pub cpus: u8,
    /// Guest RAM in bytes.
    pub memory: u64,
    /// The CPU model that the guest sees.
    pub cpu_model: CpuModel,
    /// Persistent memory regions: /dev/pmem0 and up.
    pub pmem: Vec<Pmem>,
    /// Kernel modules to load.
    pub modules: Vec<PathBuf>,
    /// Files for the guest.
    pub add: Vec<Add>,
    /// Files from the guest, when the command has ended.
    pub out: Vec<Out>,
    /// Room for the files from the guest, in bytes.
    pub out_size: u64,
    /// The command, its name first.
    pub command: Vec<OsString>,
    /// The command is a shell for the user, who may power the guest off.
    pub shell: bool,
    /// The command's environment.
    pub environment: Vec<(String, OsString)>,
    /// Columns and rows of the command's terminal, if it gets one.
    pub terminal: Option<(u16, u16)>,
    /// Limit on the whole run.
    pub timeout: Option<Duration>,
    /// Let the kernel log everything.
    pub verbose: bool,
    /// There are network interfaces of the driver, which the guest must set up.
    pub ethernet: bool,
    /// Trace the guest's fault handling, with this many KiB for each CPU's events: see [`stages`].
    pub trace_kib: Option<u64>,
    /// Run it in the sandbox. The machine's own files are granted besides these.
    pub sandbox: Option<Grants>,
}

/// Starts to watch the size of a terminal.
pub type SizeChanges = Box<dyn FnOnce() -> io::Result<Receiver<(u16, u16)>>>;

/// Where a guest's streams go.
pub struct Streams {
    /// Standard input of the command.
    pub input: Option<Box<dyn Read + Send>>,
    /// Later sizes of its terminal, as columns and rows. Called in the sandbox, since it starts a thread.
    pub sizes: Option<SizeChanges>,
    /// Its standard output.
    pub output: Box<dyn Write + Send>,
    /// Its standard error.
    pub errors: Box<dyn Write + Send>,
    /// Copies of the kernel's log.
    pub log: Vec<Box<dyn Write + Send>>,
    /// Lines that a program writes to /dev/refault-control in the guest.
    pub control: ControlListener,
}

/// Called with every line of the control channel. True if the line is to be sent back, because its program waits until it
/// has been handled.
pub type ControlListener = Box<dyn FnMut(&str) -> bool + Send>;
