//! Boots a guest, runs a command in it, and brings back its output, its files and its exit status.

mod collect;
mod console;
pub mod device;
mod end;
mod experiment;
pub mod extras;
pub mod guest_log;
pub mod job;
pub(crate) mod leave;
mod options;
mod outputs;
pub mod parse;
pub mod place;
mod plan;
pub mod series;
pub mod stages;
mod verdicts;
mod watch;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::console::{INPUT_WINDOW, Shared};
pub use self::end::{End, FAILED, LATE_CRASH, NO_STATUS, TIMED_OUT, WARNED};
pub use self::options::{RunArgs, execute};
use self::outputs::{Outputs, ending};
use self::parse::{Add, Out, Pmem};
use self::plan::Plan;
use self::watch::{Event, Watch};
use refault_guest::GuestImage;
use refault_guest::kernel_tree::TreeKernel;
use refault_guest::relay::{Credit, Frame, pump_input};
use refault_hosts::qemu::{self, Emulator, Extras};
use refault_machine::config::{CpuModel, ExitReason, MachineConfig, PmemConfig};
use refault_machine::memory::pmem;
use refault_machine::{Consoles, Devices, Machine, MachineHandle, MachineParts};
use refault_os::stop::GracefulStop;

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
#[derive(Clone, Debug)]
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
    pub command: Vec<std::ffi::OsString>,
    /// It is a shell for the user, who may power the guest off.
    pub shell: bool,
    /// Its environment besides a plain one.
    pub environment: Vec<(String, std::ffi::OsString)>,
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

/// Runs it to its end. `devices` builds what is on the PCI bus.
///
/// # Errors
/// The guest cannot be built, its streams break, or a wanted file does not come out. A command that fails, and a
/// guest that crashes, are no errors: see [`End`].
pub fn run(
    spec: &Spec,
    streams: Streams,
    devices: impl FnOnce(&MachineParts) -> Result<Devices>,
) -> Result<End> {
    let plan = Plan::new(spec)?;
    let handle = Arc::new(OnceLock::new());
    let stopped = Arc::new(OnceLock::new());
    let shared = Arc::<Shared>::default();
    let Streams { input, sizes, output, errors, log, control } = streams;
    let outputs = Outputs::new(output, errors, log, control, &shared, &handle);
    let ends = outputs.ends();
    let _orderly = {
        let (handle, stopped, ends) = (Arc::clone(&handle), Arc::clone(&stopped), ends.clone());
        GracefulStop::begin(move |stop| {
            let _ = stopped.set(stop);
            ending(&handle, ExitReason::Stopped)();
            ends.hurry();
        })
        .context("cannot hold signals back")?
    };
    let credit = Arc::new(Credit::new(INPUT_WINDOW));
    let (watch, events) = Watch::new(spec.timeout);
    let heard = {
        let events = events.clone();
        move |event| {
            let _ = events.send(event);
        }
    };
    let consoles = match plan.relayed {
        true => outputs.relayed(&shared, &credit, &handle, plan.token.clone(), heard),
        false => outputs.plain(&shared, &handle),
    };
    let machine = AnyMachine::new(spec, plan.config.clone(), consoles, devices)?;
    let hand = handle.get_or_init(|| machine.handle()).clone();
    if let Some(input) = input {
        feed(input, hand.clone(), Arc::clone(&credit), plan.relayed);
    }
    if let Some(sizes) = sizes {
        resize(sizes, hand.clone(), Arc::clone(&credit));
    }
    if stopped.get().is_some() {
        // It came before there was a machine to stop.
        hand.stop();
    }
    let (late, asked) = (ends.clone(), hand.clone());
    let ask = move || asked.inject(1, &Frame::Report.encode());
    let watching = watch.start(hand, ask, move || late.hurry());
    let reason = machine.run();
    ends.finish();
    let _ = events.send(Event::Over);
    credit.close();
    let timed_out = watching.join().unwrap_or(false);
    let told = shared.told().clone();
    if let Some(why) = told.broken {
        bail!(why);
    }
    let end = End {
        stopped: stopped.get().copied(),
        status: told.status,
        reason: explained(reason?, &plan.config.pmem),
        timeout: spec.timeout.filter(|_| timed_out),
        bare: !plan.relayed || spec.shell,
        log: shared.log(),
        findings: shared.findings(),
    };
    if end.status.is_some() {
        bring_out(&plan, &spec.out, told.collect_failed)?;
    }
    Ok(end)
}

/// The reason, if the machine failed for want of a file behind its memory: it knows no more than that an access failed.
fn explained(reason: ExitReason, pmem: &[PmemConfig]) -> ExitReason {
    match reason {
        ExitReason::Failed(what) => ExitReason::Failed(match pmem::lost(pmem) {
            Some(why) => format!("{why} ({what})"),
            None => what,
        }),
        other => other,
    }
}

/// A machine of either kind.
enum AnyMachine {
    Kvm(Machine),
    Qemu(Box<qemu::QemuMachine>),
}

impl AnyMachine {
    fn new(
        spec: &Spec,
        config: MachineConfig,
        consoles: Consoles,
        devices: impl FnOnce(&MachineParts) -> Result<Devices>,
    ) -> Result<Self> {
        Ok(match &spec.place {
            Place::Kvm => Self::Kvm(Machine::new(config, consoles, devices)?.with_debug(&spec.extras.debug)?),
            Place::Qemu(emulator) => Self::Qemu(Box::new(qemu::QemuMachine::new(
                emulator.clone(),
                config,
                spec.extras.clone(),
                consoles,
                devices,
            )?)),
        })
    }

    fn handle(&self) -> MachineHandle {
        match self {
            Self::Kvm(machine) => machine.handle(),
            Self::Qemu(machine) => machine.handle(),
        }
    }

    fn run(self) -> Result<ExitReason> {
        match self {
            Self::Kvm(machine) => machine.run(),
            Self::Qemu(machine) => machine.run(),
        }
    }
}

/// Hands the guest its input from a thread of its own, which a read of standard input may keep for ever.
fn feed(mut input: Box<dyn Read + Send>, handle: MachineHandle, credit: Arc<Credit>, relayed: bool) {
    std::thread::spawn(move || {
        if relayed {
            pump_input(input, &credit, |frame: &Frame| {
                handle.inject(1, &frame.encode());
                true
            });
            return;
        }
        let mut buffer = [0u8; INPUT_WINDOW];
        while let Ok(count @ 1..) = input.read(&mut buffer) {
            handle.inject(0, buffer.get(..count).unwrap_or_default());
        }
    });
}

/// Tells the guest of sizes of its terminal.
fn resize(sizes: Receiver<(u16, u16)>, handle: MachineHandle, credit: Arc<Credit>) {
    std::thread::spawn(move || {
        if credit.wait_open() {
            sizes.iter().for_each(|(columns, rows)| handle.inject(1, &Frame::Size(columns, rows).encode()));
        }
    });
}

fn bring_out(plan: &Plan, wanted: &[Out], failed: bool) -> Result<()> {
    let Some(results) = plan.results() else { return Ok(()) };
    let unpacked = collect::unpack(results, wanted);
    if failed && unpacked.is_ok() {
        bail!("the guest could not collect all files; is there enough room (--out-size)?");
    }
    unpacked.with_context(|| match failed {
        true => {
            "the guest could not collect all files; do they exist, and is there enough room (--out-size)?"
        }
        false => "files could not be brought out",
    })
}
