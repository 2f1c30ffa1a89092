//! One machine: QEMU as a child process, a socket for every function, and the end.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tracing::info;

use super::arguments::{self, Files, Sockets};
use super::debug::CoreDump;
use super::emulator::Emulator;
use super::extras::Extras;
use super::monitor::Monitor;
use super::serial::UnconnectedPort;
use crate::emulation::SANDBOX;
use crate::memory_row::MemoryRow;
use crate::serve::{ClientMachine, DMAR_FILE, FunctionSlot, dmar};
use refault_bus::sync::lock;
use refault_machine::config::{ExitReason, MachineConfig};
use refault_machine::control::Exit;
use refault_machine::memory::pmem;
use refault_machine::{Consoles, Devices, MachineHandle, MachineParts, SerialInput};
use refault_os::message::note;
use refault_os::process::die_with_parent;
use refault_os::scratch::Scratch;
use refault_os::syscalls;

/// How long QEMU may take to connect to its sockets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(300);
/// How long QEMU may take to end after its guest.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of QEMU's own messages kept for errors.
const MESSAGES_KEPT: usize = 8 << 10;

/// A machine, ready to run.
pub struct QemuMachine {
    emulator: Emulator,
    config: MachineConfig,
    extras: Extras,
    row: MemoryRow,
    slots: Vec<Arc<FunctionSlot>>,
    ports: [UnconnectedPort; 3],
    exit: Arc<Exit>,
    handle: MachineHandle,
    confined: bool,
    /// Persistent memory files, locked as long as the machine lives.
    _pmem: Vec<pmem::Backing>,
}

impl QemuMachine {
    /// Prepares a machine. `devices` is called once, with the parts from which to build the devices.
    ///
    /// # Errors
    /// The configuration is invalid, a file cannot be used, or the devices cannot be built.
    pub fn new(
        emulator: Emulator,
        config: MachineConfig,
        extras: Extras,
        consoles: Consoles,
        devices: impl FnOnce(&MachineParts) -> Result<Devices>,
    ) -> Result<Self> {
        config.validate()?;
        check_kernel(&config.kernel)?;
        let pmem = config.pmem.iter().map(pmem::open).collect::<Result<Vec<_>, _>>()?;
        let row = MemoryRow::new(config.memory, config.pmem.iter().map(|region| region.size));
        let board = ClientMachine::new(pmem.iter().any(|backing| backing.shared));
        let slots = board.plug(devices(&board.parts())?)?.into_iter().map(Arc::new).collect();
        let exit = Arc::new(Exit::new().context("cannot create an event")?);
        let [first, second, third] = consoles.outputs.map(UnconnectedPort::new);
        let (ports, inputs) = ([first.0, second.0, third.0], [first.1, second.1, third.1]);
        let inputs = inputs.map(|input| Arc::new(input) as Arc<dyn SerialInput>);
        let handle = MachineHandle::new(exit.clone(), inputs);
        Ok(Self { emulator, config, extras, row, slots, ports, exit, handle, confined: false, _pmem: pmem })
    }

    /// Lets QEMU filter its own system calls, too.
    #[must_use]
    pub fn confined(self, confined: bool) -> Self {
        Self { confined, ..self }
    }

    /// A handle for this machine.
    pub fn handle(&self) -> MachineHandle {
        self.handle.clone()
    }

    /// Runs until the guest or the host ends it.
    ///
    /// # Errors
    /// QEMU cannot be started, or ends for a reason of its own; the message quotes QEMU.
    pub fn run(self) -> Result<ExitReason> {
        let folder = Scratch::new().context("cannot create a folder for sockets")?;
        let sockets = Sockets(folder.path());
        let initrd = concatenated(&self.config)?;
        let table = folder.path().join(DMAR_FILE);
        std::fs::write(&table, dmar(&self.slots)).context("cannot write the DMAR table")?;
        let listen = |name: &str| {
            let path = sockets.path(name);
            UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))
        };
        let monitor = listen("monitor")?;
        let serial = [listen("ttyS0")?, listen("ttyS1")?, listen("ttyS2")?];
        let functions: Vec<_> = self.slots.iter().map(|slot| listen(&slot.name)).collect::<Result<_>>()?;

        let mut command = self.emulator.command();
        match self.confined && self.emulator.has_sandbox() {
            true => drop(command.args(SANDBOX)),
            false if self.confined => {
                note("this QEMU was built without -sandbox: its own system calls are not filtered")
            }
            false => {}
        }
        let files = Files { initrd: &initrd, dmar: &table };
        arguments::add(&mut command, &self.config, &self.row, &self.slots, &sockets, &files)?;
        self.extras.add(&mut command);
        info!(?command, "starting QEMU");
        let mut qemu = Qemu::start(&mut command)?;
        // In the order in which QEMU connects: character devices, then functions.
        let mut accept = |listener: &UnixListener| qemu.accept(listener);
        let consoles: Vec<_> = serial.iter().map(&mut accept).collect::<Result<_>>()?;
        let monitor = accept(&monitor)?;
        let outputs: Vec<_> =
            self.ports.into_iter().zip(consoles).map(|(port, stream)| port.connect(stream)).collect();
        let mut sessions = Vec::new();
        for (slot, listener) in self.slots.iter().zip(&functions) {
            let stream = accept(listener)?;
            sessions.push(session(slot.clone(), stream, self.exit.clone())?);
        }
        let core = self.extras.debug.dump.map(|file| CoreDump { file, end: self.row.ram_end() });
        let _monitor = Monitor::start(monitor, self.exit.clone(), core)?;
        // Nothing else can connect any more, and nothing is left on disk if we are killed.
        drop((folder, serial, functions));
        let qemu = Arc::new(qemu);
        let watching = watch(qemu.clone(), self.exit.clone());
        let reason = self.exit.wait().context("the control loop failed")?;
        let stopped = matches!(reason, ExitReason::Stopped | ExitReason::Failed(_));
        qemu.end(&reason);
        let _ = watching.join();
        // A stalled reader of the guest's output must not delay a run that was stopped.
        for output in outputs.into_iter().flatten().filter(|_| !stopped) {
            let _ = output.join();
        }
        sessions.into_iter().for_each(|session| drop(session.join()));
        info!(?reason, "machine ended");
        Ok(reason)
    }
}

/// Checks that QEMU can boot the kernel: QEMU itself would only say "invalid kernel header".
///
/// # Errors
/// The file cannot be read, or is neither a bzImage nor an ELF file.
fn check_kernel(path: &Path) -> Result<()> {
    let mut start = [0; 0x206];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(error).with_context(|| format!("cannot read kernel {}", path.display()));
        }
        _ => {}
    }
    ensure!(
        start.ends_with(b"HdrS") || start.starts_with(b"\x7fELF"),
        "kernel {} is neither a bzImage nor an ELF file",
        path.display()
    );
    Ok(())
}

/// Starts a thread that reports the end of QEMU. If the guest ended the machine, that has been reported before.
fn watch(qemu: Arc<Qemu>, exit: Arc<Exit>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let how = qemu.wait();
        // Time for the monitor to report an end that the guest caused.
        std::thread::sleep(Duration::from_millis(100));
        exit.request(ExitReason::Failed(format!("QEMU ended by itself ({how}); {}", qemu.messages())));
    })
}

/// Serves one function until QEMU is gone.
fn session(slot: Arc<FunctionSlot>, stream: UnixStream, exit: Arc<Exit>) -> Result<JoinHandle<()>> {
    slot.take();
    let thread = std::thread::Builder::new().name(format!("serve-{}", slot.name));
    let serve = move || {
        if let Err(error) = slot.serve(stream) {
            exit.request(ExitReason::Failed(format!(
                "the session between QEMU and {} failed: {error}",
                slot.name
            )));
        }
    };
    thread.spawn(serve).context("cannot start a thread for a function")
}

/// QEMU takes one initial RAM file system; the kernel accepts several, concatenated.
fn concatenated(config: &MachineConfig) -> Result<File> {
    let mut whole = tempfile::tempfile().context("cannot make a temporary file")?;
    for path in &config.initrds {
        let copied = File::open(path).and_then(|mut part| std::io::copy(&mut part, &mut whole));
        copied.with_context(|| format!("cannot read initial RAM file system {}", path.display()))?;
        // Each must start at a multiple of four.
        let at = whole.stream_position()?;
        whole.set_len(at.next_multiple_of(4))?;
        whole.seek(std::io::SeekFrom::End(0))?;
    }
    Ok(whole)
}

/// The QEMU process, killed when this is dropped.
struct Qemu {
    child: Mutex<Child>,
    messages: Arc<Mutex<Vec<u8>>>,
}

impl Qemu {
    fn start(command: &mut std::process::Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = die_with_parent(command, libc::SIGKILL).spawn().context("cannot start QEMU")?;
        // It was the last program.
        syscalls::seal()?;
        let messages = Arc::<Mutex<Vec<u8>>>::default();
        if let Some(mut stderr) = child.stderr.take() {
            let kept = messages.clone();
            std::thread::spawn(move || keep_head(&mut stderr, &kept));
        }
        Ok(Self { child: Mutex::new(child), messages })
    }

    /// Accepts QEMU's connection to one of our sockets.
    fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream> {
        listener.set_nonblocking(true)?;
        let start = Instant::now();
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("QEMU cannot connect"),
            }
            if self.lock().try_wait()?.is_some() {
                bail!("QEMU did not start; {}", self.messages());
            }
            ensure!(start.elapsed() < CONNECT_TIMEOUT, "QEMU did not connect in time; {}", self.messages());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end and describes it: an exit status or a signal.
    fn wait(&self) -> String {
        while !self.ends_within(Duration::MAX) {}
        let status = self.lock().try_wait().ok().flatten();
        match status {
            Some(status) if status.signal() == Some(libc::SIGSYS) => {
                format!("{status}: its sandbox refused a system call, see --no-sandbox")
            }
            status => status.map_or_else(String::new, |status| status.to_string()),
        }
    }

    /// Waits for its end for at most `limit`; returns whether it ended.
    fn ends_within(&self, limit: Duration) -> bool {
        let (start, mut pause) = (Instant::now(), Duration::from_millis(1));
        while matches!(self.lock().try_wait(), Ok(None)) {
            if start.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        true
    }

    /// Waits for its end if the guest ended the machine, and otherwise kills it.
    fn end(&self, reason: &ExitReason) {
        let by_guest = matches!(reason, ExitReason::PowerOff | ExitReason::Reset);
        if !by_guest || !self.ends_within(EXIT_TIMEOUT) {
            self.kill();
        }
    }

    fn kill(&self) {
        let _ = self.lock().kill();
    }

    /// QEMU's own messages, for errors.
    fn messages(&self) -> String {
        let messages = lock(&self.messages);
        match String::from_utf8_lossy(&messages).trim() {
            "" => "it printed nothing".into(),
            text => format!("it printed:\n{text}"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        lock(&self.child)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let mut child = self.lock();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Keeps the first bytes: when QEMU loses a function it repeats one message for every access, without end.
fn keep_head(from: &mut impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut kept = lock(kept);
        let room = MESSAGES_KEPT.saturating_sub(kept.len()).min(count);
        kept.extend(buffer.get(..room).unwrap_or_default());
    }
}
