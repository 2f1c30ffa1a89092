//! `refault serve`: the devices, for a QEMU that the user starts.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use refault_bus::Bdf;
use refault_bus::probe::{NoProbe, Probe};
use refault_nic::NicConfig;

use crate::devices;
use crate::run::DeviceRecords;
use crate::run::options::device::NicArgs;
use crate::run::options::parse::Size;
use crate::run::sandbox::SandboxArgs;
use refault_hosts::serve::arguments::{self, MachineSize};
use refault_hosts::serve::{ClientMachine, DMAR_FILE, FunctionSlot, dmar};
use refault_observe::report::TimeBase;
use refault_observe::trace::Recorder;
use refault_os::message::note;
use refault_os::syscalls::Programs;
use refault_os::{sandbox, signals, stop};
use refault_rig::clock::WallClock;
use refault_rig::wiring::DeviceOptions;

/// PCI device number of the first NIC; the others follow. Above the numbers that QEMU assigns by itself.
const FIRST_DEVICE: u8 = 0x10;
/// Maximum number of NICs of one server.
const NICS_MAX: u8 = 8;

/// The program that the printed arguments are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum For {
    /// QEMU, for a whole machine.
    #[default]
    Qemu,
    /// `vng --qemu-opts`: memory size and CPUs are set by virtme-ng.
    Vng,
}

/// Options of `refault serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Folder for the sockets and the DMAR table; created if missing
    folder: PathBuf,
    /// Print the arguments for QEMU and exit: all of them, or those to add to virtme-ng's
    #[arg(long, value_enum, value_name = "FOR", num_args = 0..=1, default_missing_value = "qemu")]
    print_args: Option<For>,
    /// Memory of the machine, in the printed arguments
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    memory: Size,
    /// Number of CPUs, in the printed arguments
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=255))]
    cpus: u16,
    /// Number of NICs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(NICS_MAX)))]
    nics: u8,
    #[command(flatten)]
    nic: NicArgs,
    /// Record the device's faults: report.html, faults.csv, trace.json and counters.json are written to this folder at the end
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    sandbox: SandboxArgs,
}

/// Serves until a signal ends it.
///
/// # Errors
/// The folder cannot be used, or the devices cannot be built.
pub fn execute(args: &ServeArgs) -> Result<u8> {
    ensure!(args.memory.0.is_multiple_of(1 << 20), "--memory: expected whole MiB");
    ensure!(
        args.trace.is_none() || args.nics == 1,
        "--trace records the faults of a single NIC: leave out --nics"
    );
    args.nic.check()?;
    let timing = args.nic.timing()?;
    if args.print_args.is_none() {
        args.enter_sandbox()?;
    }
    signals::block().context("cannot hold signals back")?;
    let clock = Arc::new(WallClock::new());
    let recorder = args.trace.as_ref().map(|_| Recorder::new(clock.clone(), Recorder::DEFAULT_BOUND));
    let probe: Arc<dyn Probe> = match &recorder {
        Some(recorder) => recorder.clone(),
        None => Arc::new(NoProbe),
    };
    let board = ClientMachine::new(true);
    let (nic, more_nics) = args.configs();
    let options = DeviceOptions {
        nic,
        more_nics,
        clock,
        probe,
        timing: timing.as_ref().map(|named| named.timing.clone()),
        ..DeviceOptions::default()
    };
    let (plugged, wired) = devices::build(&board.parts(), options)?;
    let slots: Vec<_> = board.plug(plugged)?.into_iter().map(Arc::new).collect();
    let lines = args.lines(&slots)?;
    match args.print_args {
        Some(For::Qemu) => println!("{}", lines.join(" \\\n")),
        // One line, for a shell's substitution.
        Some(For::Vng) => println!("{}", lines.join(" ")),
        None => {}
    }
    if args.print_args.is_some() {
        return Ok(0);
    }
    let _sockets = listen(&args.folder, &slots)?;
    if let Some(timing) = &timing {
        note(&timing.line());
    }
    note(&format!("serving in {}; QEMU's arguments:", args.folder.display()));
    eprintln!("  {}", lines.join(" \\\n  "));
    note(&format!("{}: the server ends", stop::wait().name()));
    if let (Some(folder), Some(recorder)) = (&args.trace, &recorder) {
        // The user's QEMU may use KVM or emulate.
        let devices = (&*wired.nic, &*wired.iommu);
        DeviceRecords::take(devices, recorder, None, timing, TimeBase::Unknown)?.write(folder)?;
        note(&format!("records of the faults are in {}", folder.display()));
    }
    Ok(0)
}

impl ServeArgs {
    fn configs(&self) -> (NicConfig, Vec<NicConfig>) {
        let config = |index: u8| {
            let usual = self.nic.config();
            NicConfig {
                bdf: Bdf::new(0, FIRST_DEVICE + index, 0),
                node_guid: usual.node_guid + u64::from(index),
                lid: usual.lid + u16::from(index),
                ..usual
            }
        };
        (config(0), (1..self.nics).map(config).collect())
    }

    /// Its own folder, and that of the records.
    fn enter_sandbox(&self) -> Result<()> {
        let Some(mut grants) = self.sandbox.grants() else { return Ok(()) };
        for folder in [Some(&self.folder), self.trace.as_ref()].into_iter().flatten() {
            let made = grants.write_folder(folder);
            made.with_context(|| format!("cannot make folder {}", folder.display()))?;
        }
        sandbox::enter(&grants, Programs::Never)
    }

    fn lines(&self, slots: &[Arc<FunctionSlot>]) -> Result<Vec<String>> {
        let folder = std::path::absolute(&self.folder).context("cannot find the folder")?;
        let shape = MachineSize { memory: self.memory.0, cpus: self.cpus };
        let mut lines = match self.print_args {
            Some(For::Vng) => arguments::additions(shape.memory),
            _ => arguments::machine(shape),
        };
        lines.extend(arguments::devices(slots.iter().map(|slot| &**slot), &folder));
        Ok(lines)
    }
}

/// The files of a server, removed when it ends.
struct Sockets(Vec<PathBuf>);

impl Drop for Sockets {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Writes the DMAR table, and listens on a socket for each slot.
fn listen(folder: &Path, slots: &[Arc<FunctionSlot>]) -> Result<Sockets> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make folder {}", folder.display()))?;
    let table = folder.join(DMAR_FILE);
    std::fs::write(&table, dmar(slots)).with_context(|| format!("cannot write {}", table.display()))?;
    let mut sockets = Sockets(vec![table]);
    for slot in slots {
        let path = folder.join(&slot.name);
        let listener = bind(&path)?;
        sockets.0.push(path);
        accept(slot.clone(), listener)?;
    }
    Ok(sockets)
}

/// Binds a socket. One that a killed server left is replaced; one that is in use is an error.
fn bind(path: &Path) -> Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        anyhow::bail!("another server uses {}: stop it, or give another folder", path.display());
    }
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).with_context(|| {
        format!("cannot listen on {} (the path of a socket has 107 bytes at most)", path.display())
    })
}

/// Serves one client at a time, and refuses a second one meanwhile.
fn accept(slot: Arc<FunctionSlot>, listener: UnixListener) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(format!("accept-{}", slot.name));
    let accept = move || {
        for stream in listener.incoming().flatten() {
            if !slot.take() {
                note(&format!("{}: refused a second client", slot.name));
                continue;
            }
            let slot = slot.clone();
            std::thread::spawn(move || {
                note(&format!("{}: a client connected", slot.name));
                match slot.serve(stream) {
                    Ok(()) => note(&format!("{}: the client disconnected", slot.name)),
                    Err(error) => note(&format!("{}: {error}; the client was disconnected", slot.name)),
                }
            });
        }
    };
    thread.spawn(accept).context("cannot start a thread for a socket")
}
