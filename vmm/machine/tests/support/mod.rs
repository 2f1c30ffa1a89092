//! Payloads as ELF kernels, and machines that run them.

#![allow(unreachable_pub, reason = "shared by test files")]

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use refault_machine::config::{CpuModel, ExitReason, MachineConfig};
use refault_machine::{Consoles, Devices, KvmMachine, MachineHandle};

/// Address where payloads are loaded and entered.
const ENTRY: u64 = 0x10_0000;
/// Longest time that a payload may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Instructions to run in 64-bit mode instead of a kernel.
pub struct Payload {
    code: Vec<u8>,
    stopped: bool,
}

impl Payload {
    pub fn new(code: impl IntoIterator<Item = u8>) -> Self {
        Self { code: code.into_iter().collect(), stopped: false }
    }

    /// Makes the machine stop before it runs.
    pub fn stopped(self) -> Self {
        Self { stopped: true, ..self }
    }

    /// The smallest ELF file with one segment that the kernel loader accepts.
    fn elf(&self) -> Vec<u8> {
        const HEADERS: u64 = 64 + 56;
        let size = self.code.len() as u64;
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        for half in [2u16, 62] {
            elf.extend(half.to_le_bytes());
        }
        elf.extend(1u32.to_le_bytes());
        for word in [ENTRY, 64, 0] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 1, 64, 0, 0] {
            elf.extend(half.to_le_bytes());
        }
        // PT_LOAD, readable and executable.
        for word in [1u32, 5] {
            elf.extend(word.to_le_bytes());
        }
        for word in [HEADERS, ENTRY, ENTRY, size, size, 0x1000] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(&self.code);
        elf
    }
}

/// The result of a machine that ended.
pub struct End {
    pub reason: ExitReason,
    pub outputs: [Vec<u8>; 3],
}

/// A machine that runs on a thread of its own.
pub struct Running {
    pub handle: MachineHandle,
    thread: JoinHandle<ExitReason>,
    outputs: [Output; 3],
}

impl Running {
    /// Waits until the output of `port` is `wanted`.
    pub fn wait_for_output(&self, port: usize, wanted: &[u8]) {
        let (bytes, more) = &*self.outputs[port].0;
        let bytes = bytes.lock().unwrap();
        let (bytes, late) =
            more.wait_timeout_while(bytes, TIMEOUT, |bytes| bytes.as_slice() != wanted).unwrap();
        assert!(!late.timed_out(), "output is {bytes:?}");
    }

    /// Waits for the end of the machine.
    pub fn join(self) -> End {
        let handle = self.handle.clone();
        let (done, waiting) = std::sync::mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            if waiting.recv_timeout(TIMEOUT).is_err() {
                handle.stop();
            }
        });
        let reason = self.thread.join().unwrap();
        drop(done);
        watchdog.join().unwrap();
        End { reason, outputs: self.outputs.map(|output| output.0.0.lock().unwrap().clone()) }
    }
}

/// Runs `payload` to its end; `None` where there is no KVM.
pub fn run(payload: Payload) -> Option<End> {
    start(payload).map(Running::join)
}

/// Starts `payload`; `None` where there is no KVM.
pub fn start(payload: Payload) -> Option<Running> {
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        eprintln!("skipped: /dev/kvm cannot be opened: {error}");
        return None;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&payload.elf()).unwrap();
    let config = MachineConfig {
        kernel: file.path().into(),
        initrds: Vec::new(),
        cmdline: String::new(),
        cpus: 1,
        memory: 64 << 20,
        pmem: Vec::new(),
        cpu_model: CpuModel::Baseline,
    };
    let outputs: [Output; 3] = Default::default();
    let consoles = Consoles { outputs: outputs.clone().map(|output| Box::new(output) as Box<_>) };
    let machine = KvmMachine::new(config, consoles, |_| Ok(Devices::default())).unwrap();
    let handle = machine.handle();
    if payload.stopped {
        handle.stop();
    }
    let thread = thread::spawn(move || machine.run().unwrap());
    Some(Running { handle, thread, outputs })
}

/// Collects what a serial port writes.
#[derive(Clone, Default)]
struct Output(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().extend(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
