//! The same command in a nested machine: QEMU emulates a machine whose CPU has AMD SVM, its Linux loads kvm-amd, mounts the
//! host's root folder as its own, read-only, and runs this very program there with the same arguments.

mod agent;
mod environment;
mod exports;
mod first_cpu;
mod qemu;
mod start_cpus;
mod streams;
mod terminal_sizes;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::agent::NestedJob;
pub use self::agent::serve as serve_agent;
use self::environment::passed_on;
use self::exports::Exports;
use self::qemu::OuterQemu;
use self::streams::OwnStreams;
pub use self::terminal_sizes::terminal_sizes;
use crate::emulation::{SANDBOX, tsc_khz};
use crate::memory_row::{MemoryRow, ONE_NODE};
use refault_bus::sync::lock;
use refault_guest::relay::{Credit, Decoder, Escape, Frame, PAYLOAD_MAX, pump_input};
use refault_machine::config::{PMEM_ALIGN, PmemBacking, PmemConfig};
use refault_os::sandbox::{self, Grants};
use refault_os::stop;
use refault_os::syscalls::{self, Programs};
use refault_os::terminal::Keys;
use refault_os::tools::{EMULATION_TOOLS, require};

/// Set for the program that runs inside.
const NESTED: &str = "REFAULT_NESTED";
/// Variable with the physical addresses of the files lent to the nested machine, in order.
const LENT: &str = "REFAULT_LENT";
/// Bytes of standard input in flight at most.
const WINDOW: usize = 256 << 10;
/// Memory that the nested machine needs for itself, in bytes: its kernel, this program, and cached pages of the host's
/// files.
const OVERHEAD: u64 = 1 << 30;
/// The subset of [`EMULATED_CPU`](crate::emulation::EMULATED_CPU) that the QEMU of older releases supports.
const OUTER_CPU: &str = "max,la57=off,erms=off,fsrm=off";
/// Clock ticks per second of Debian's kernels.
const KERNEL_HZ: u64 = 250;
/// The nested kernel's command line: nothing else runs there, so mitigations and searches for hardware are off. Its other
/// CPUs are started later, see [`start_cpus`].
const CMDLINE: &str = "maxcpus=1 console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr lsm=landlock audit=0 rodata=off \
                       tsc=reliable no_timer_check cryptomgr.notests edd=off";

/// Why QEMU is needed, for messages.
const PURPOSE: &str = "running without hardware virtualization";

/// Whether this process runs inside a nested machine.
pub fn inside() -> bool {
    std::env::var_os(NESTED).is_some()
}

/// Physical addresses of the files lent to this machine, in the order of [`Nested::lent`]; empty outside a nested machine.
pub fn lent() -> Vec<u64> {
    let addresses = std::env::var(LENT).ok().filter(|_| inside()).unwrap_or_default();
    addresses.split_whitespace().filter_map(|address| address.parse().ok()).collect()
}

/// One run inside a nested machine.
#[derive(Debug)]
pub struct Nested {
    /// The nested machine's kernel, an ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// The nested machine's initramfs.
    pub initramfs: PathBuf,
    /// Memory of the nested machine in bytes, without the lent files.
    pub memory: u64,
    /// The program to run inside, usually this one, and its arguments.
    pub command: Vec<OsString>,
    /// Environment variables added to our own.
    pub environment: Vec<(String, OsString)>,
    /// Files that are memory of the nested machine, so that writes reach the files at once. Its kernel does not cache them,
    /// so nothing is lost when it is killed.
    pub lent: Vec<PmemConfig>,
    /// What the nested machine may write of the host's files.
    exports: Exports,
    /// The keyboard belongs to the guest, so the user needs an escape key.
    pub escape: bool,
    confined: bool,
    /// New sizes of the user's terminal, in columns and rows.
    pub sizes: Option<Receiver<(u16, u16)>>,
}

impl Nested {
    /// This program with `arguments`, for a guest with `memory` bytes of RAM.
    ///
    /// # Errors
    /// The program's path is unknown.
    pub fn of_ourselves(
        kernel: PathBuf,
        initramfs: PathBuf,
        memory: u64,
        arguments: Vec<OsString>,
    ) -> Result<Self> {
        let command = [this_program()?.into_os_string()].into_iter().chain(arguments).collect();
        Ok(Self {
            kernel,
            initramfs,
            memory: memory + OVERHEAD,
            command,
            environment: Vec::new(),
            lent: Vec::new(),
            exports: Exports::All,
            confined: false,
            escape: false,
            sizes: None,
        })
    }

    /// Confines this process and QEMU for good: `grants` names what they may write, `writable` what of that the nested machine
    /// may. It reads all that the user may read. Call it before there are threads.
    ///
    /// # Errors
    /// QEMU is missing, or as [`sandbox::enter`].
    pub fn confine<'a>(
        &mut self,
        mut grants: Grants,
        writable: impl IntoIterator<Item = &'a Path>,
    ) -> Result<()> {
        self.exports = Exports::of(writable);
        // Installs it if need be, which is not possible later.
        require(EMULATION_TOOLS, PURPOSE)?;
        grants.execute("/");
        for file in &self.lent {
            if let PmemBacking::Shared(path) = &file.backing {
                grants.write(path);
            }
        }
        self.confined = true;
        sandbox::enter(&grants, Programs::UntilSealed)
    }

    /// Runs to the end with our standard streams, and returns the exit status of the program inside. `None` if the time
    /// limit expired first: after `limit`, unread output is not waited for any more, and a little later nothing is.
    ///
    /// # Errors
    /// QEMU is missing, the machine ends before the program (the message quotes its console), or our output cannot be
    /// written.
    pub fn run(mut self, limit: Option<Duration>) -> Result<Option<i32>> {
        require(EMULATION_TOOLS, PURPOSE)?;
        let program = this_program()?;
        let job = self.job()?;
        let mut machine = OuterQemu::start(&mut self.qemu(&program))?;
        // It was the last program.
        syscalls::seal()?;
        let (input, output) = machine.channel()?;
        let input = Arc::new(Mutex::new(input));
        let credit = Arc::new(Credit::new(WINDOW));
        credit.open();
        // Keeps the input open: when it ends, QEMU closes the whole channel.
        let _open = Arc::clone(&input);
        let thread_credit = Arc::clone(&credit);
        let keys = Keys::new().context("cannot use standard input")?;
        let keys: Box<dyn Read + Send> =
            if self.escape { Box::new(Escape::new(keys, stop::terminate)) } else { Box::new(keys) };
        let sizes = self.sizes.take();
        // Ends with the process: a blocking read of standard input cannot be cancelled.
        std::thread::spawn(move || {
            let mut pieces = job.chunks(PAYLOAD_MAX).chain([&[][..]]);
            if !pieces.all(|piece| send(&input, &Frame::Job(piece.to_vec()))) {
                return;
            }
            if let Some(sizes) = sizes {
                let input = Arc::clone(&input);
                std::thread::spawn(move || {
                    sizes.iter().all(|(columns, rows)| send(&input, &Frame::Size(columns, rows)))
                });
            }
            pump_input(keys, &thread_credit, |frame| send(&input, frame));
        });
        let ours = OwnStreams::new(&machine.child)?;
        if let Some(limit) = limit {
            let (ours, child) = (ours.clone(), Arc::clone(&machine.child));
            std::thread::spawn(move || ours.limit_waits_after(limit, &child));
        }
        let status = relay_output(output, &credit, &ours);
        credit.close();
        let complete = ours.finish()?;
        match status? {
            Some(status) => Ok(complete.then_some(status)),
            None if ours.is_late() => Ok(None),
            None => bail!("the emulated machine ended before the program in it did; {}", machine.console()),
        }
    }

    fn job(&self) -> Result<Vec<u8>> {
        let mut job = NestedJob::new(std::env::current_dir().context("cannot find the current folder")?);
        job.arguments = self.command.clone();
        job.writable = self.exports.folders().to_vec();
        job.environment = passed_on(std::env::vars_os());
        // In memory, so that a killed run leaves no files on the host.
        job.environment.push(("TMPDIR".into(), "/dev/shm".into()));
        job.environment.push((NESTED.into(), "1".into()));
        let lent: Vec<_> = self.row().pmem.iter().map(|range| range.start.to_string()).collect();
        job.environment.push((LENT.into(), lent.join(" ").into()));
        job.environment.extend(self.environment.iter().map(|(name, value)| (name.into(), value.clone())));
        Ok(job.encode())
    }

    fn row(&self) -> MemoryRow {
        MemoryRow::new(self.memory.next_multiple_of(PMEM_ALIGN), self.lent.iter().map(|file| file.size))
    }

    fn qemu(&self, program: &Path) -> Command {
        // One more than requested, since guests do not run on the first: see `first_cpu`.
        let cpus = 1 + std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
        let row = self.row();
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi", "-cpu", OUTER_CPU, "-nodefaults", "-no-user-config"]);
        command.args(["-display", "none", "-monitor", "none", "-no-reboot", "-serial", "file:/dev/fd/2"]);
        command.args(["-machine", &format!("pc,max-ram-below-4g={}", row.low), "-smp", &cpus.to_string()]);
        row.add(&mut command, &self.lent, cpus);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initramfs);
        // Its delay loop counts the same ticks, so the loops per clock tick (lpj) are known too.
        let clock = |khz| format!(" tsc_early_khz={khz} lpj={}", khz * 1000 / KERNEL_HZ);
        let clock = tsc_khz().map(clock).unwrap_or_default();
        let memory = format!("{ONE_NODE}{}", row.command_line());
        let program = hex(program.as_os_str());
        command.arg("-append").arg(format!("{CMDLINE}{clock} {memory} refault.program={program}"));
        self.exports.add(&mut command);
        if self.confined {
            command.args(SANDBOX);
        }
        command.args(["-chardev", "stdio,id=relay,signal=off", "-device", "virtio-serial-pci"]);
        command.args(["-device", "virtserialport,chardev=relay,name=refault"]);
        command
    }
}

fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find the path of this program")
}

/// Forwards the output of the program inside until its exit status arrives. `None` if the channel ends without one.
fn relay_output(mut channel: impl Read, credit: &Credit, ours: &OwnStreams) -> Result<Option<i32>> {
    let mut decoder = Decoder::default();
    let mut buffer = [0u8; 64 << 10];
    let (mut output, mut errors) = (ours.output.clone(), ours.errors.clone());
    loop {
        let count = channel.read(&mut buffer)?;
        if count == 0 {
            return Ok(None);
        }
        let mut frames = Vec::new();
        let pushed = decoder.push(buffer.get(..count).unwrap_or_default(), &mut frames);
        for frame in frames {
            match frame {
                Frame::Output(bytes) => output.write_all(&bytes)?,
                Frame::Errors(bytes) => errors.write_all(&bytes)?,
                Frame::Taken(count) => credit.give(count as usize),
                Frame::Exit(status) => return Ok(Some(status)),
                Frame::Job(_) | Frame::Input(_) | Frame::Size(..) | Frame::Report => {}
            }
        }
        pushed?;
    }
}

fn send(channel: &Mutex<ChildStdin>, frame: &Frame) -> bool {
    lock(channel).write_all(&frame.encode()).is_ok()
}

fn hex(text: &OsStr) -> String {
    text.as_bytes().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_the_exit_status() {
        let mut bytes = Frame::Taken(5).encode();
        bytes.extend(Frame::Exit(7).encode());
        let credit = Credit::new(0);
        let child = Command::new("true").spawn().expect("it starts");
        let ours = OwnStreams::new(&Arc::new(Mutex::new(child))).expect("streams");
        assert_eq!(relay_output(bytes.as_slice(), &credit, &ours).expect("valid"), Some(7));
        assert_eq!(relay_output([].as_slice(), &credit, &ours).expect("an early end"), None);
        assert!(relay_output(b"garbage".as_slice(), &credit, &ours).is_err());
    }

    #[test]
    fn a_path_of_any_characters_fits_the_command_line() {
        assert_eq!(hex(OsStr::new("/a b")), "2f612062");
    }
}
