//! Debugging of our own VMM's guest: cores of its memory, NMIs, gdb.

use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, anyhow, ensure};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::config::ExitReason;
use crate::control::Exit;
use crate::debug::gdb::{DebuggedGuest, Resume, Server};
use crate::debug::registers::Registers;
use crate::debug::traps::{StopListener, Traps};
use crate::debug::{Debug, Gdb, dump, place, signals};
use crate::kvm::{Cpus, Runnable, Vcpu};
use refault_bus::sync::lock;

/// The parts of a machine that debugging needs.
pub(super) struct Debuggee {
    pub(super) cpus: Arc<Cpus>,
    pub(super) memory: Arc<GuestMemoryMmap>,
    /// The ranges of memory that are RAM.
    pub(super) ram: Vec<Range<u64>>,
    pub(super) exit: Arc<Exit>,
    /// Held while a core is written: one at a time.
    pub(super) writing: Mutex<()>,
}

/// Requested debugging, before the guest runs.
pub(super) struct DebugSetup {
    debuggee: Arc<Debuggee>,
    dump: Option<PathBuf>,
    signals: bool,
    gdb: Option<(TcpListener, bool)>,
}

/// Active debugging, while the guest runs.
pub(super) struct Debugging {
    debuggee: Arc<Debuggee>,
    dump: Option<PathBuf>,
    _server: Option<Server>,
}

impl DebugSetup {
    /// Binds gdb's port.
    ///
    /// # Errors
    /// The port is in use.
    pub(super) fn new(debuggee: Debuggee, debug: &Debug) -> Result<Self> {
        let listen = |gdb: Gdb| Ok::<_, anyhow::Error>((place::listen(gdb.port)?, gdb.wait));
        let gdb = debug.gdb.map(listen).transpose()?;
        Ok(Self { debuggee: Arc::new(debuggee), dump: debug.dump.clone(), signals: debug.signals, gdb })
    }

    /// Starts listening for gdb and signals. Halts a guest that is to wait for gdb.
    ///
    /// # Errors
    /// Signal handlers or threads cannot be set up.
    pub(super) fn start(self) -> Result<Debugging> {
        let Self { debuggee, dump, signals, gdb } = self;
        if let Some(file) = dump.clone().filter(|_| signals) {
            listen_to_signals(&debuggee, file)?;
        }
        let server = gdb.map(|(listener, wait)| {
            if wait {
                debuggee.halt();
            }
            Server::start(listener, debuggee.clone())
        });
        Ok(Debugging { debuggee, dump, _server: server.transpose()? })
    }
}

impl Debugging {
    /// Writes the last core, once the machine has ended and its vCPU threads too.
    pub(super) fn end(self, reason: &ExitReason) {
        let file =
            self.dump.as_ref().filter(|_| matches!(reason, ExitReason::Reset | ExitReason::TripleFault));
        if let Some(file) = file {
            dump::announce(file);
            self.debuggee.write_core(file);
        }
        // Waits for a core that was requested by a signal.
        drop(self.debuggee.writing.lock());
    }
}

fn listen_to_signals(debuggee: &Arc<Debuggee>, file: PathBuf) -> Result<()> {
    // The listening threads outlive the machine; its memory must not.
    let (for_nmi, for_core) = (Arc::downgrade(debuggee), Arc::downgrade(debuggee));
    let nmi = move || for_nmi.upgrade().context("the machine has ended")?.nmi();
    let core = move || {
        let debuggee = for_core.upgrade().context("the machine has ended")?;
        ensure!(!debuggee.exit.is_requested(), "the machine ends");
        debuggee.write_core(&file);
        Ok(())
    };
    signals::listen(nmi, core)
}

impl Debuggee {
    /// Writes a core while no vCPU runs, and reports the result to the user.
    fn write_core(&self, file: &Path) {
        let _writing = lock(&self.writing);
        let _paused = self.cpus.pause();
        let registers: Result<Vec<_>> = (0..self.cpus.count()).map(|cpu| self.registers(cpu)).collect();
        let written = registers.and_then(|cpus| dump::write(file, &self.memory, &self.ram, &cpus));
        dump::conclude(file, written.err().map(|error| format!("{error:#}")).as_deref());
    }

    /// Sends each vCPU an NMI.
    fn nmi(&self) -> Result<()> {
        let _paused = self.cpus.pause();
        for cpu in 0..self.cpus.count() {
            self.vcpu(cpu)?.nmi()?;
        }
        Ok(())
    }

    fn vcpu(&self, cpu: u8) -> Result<MutexGuard<'_, Vcpu>> {
        self.cpus.vcpu(cpu).ok_or_else(|| anyhow!("there is no vCPU {cpu}"))
    }
}

impl DebuggedGuest for Debuggee {
    fn cpus(&self) -> u8 {
        self.cpus.count()
    }

    fn registers(&self, cpu: u8) -> Result<Registers> {
        Ok(self.vcpu(cpu)?.registers()?)
    }

    fn set_registers(&self, cpu: u8, registers: &Registers) -> Result<()> {
        Ok(self.vcpu(cpu)?.set_registers(registers)?)
    }

    fn translate(&self, cpu: u8, address: u64) -> Option<u64> {
        self.vcpu(cpu).ok()?.translate(address)
    }

    fn read(&self, physical: u64, data: &mut [u8]) -> bool {
        self.memory.read_slice(data, GuestAddress(physical)).is_ok()
    }

    fn write(&self, physical: u64, data: &[u8]) -> bool {
        self.memory.write_slice(data, GuestAddress(physical)).is_ok()
    }

    fn listen(&self, listener: Option<StopListener>) {
        self.cpus.listen(listener);
    }

    fn halt(&self) {
        self.cpus.set_runnable(Runnable::None);
    }

    fn resume(&self, how: &Resume) -> Result<()> {
        let trapless = how.step.is_none() && *how.traps == Traps::default();
        for cpu in 0..self.cpus.count() {
            let traps = (!trapless).then_some((&how.traps, how.step == Some(cpu)));
            self.vcpu(cpu)?.arm(traps)?;
        }
        self.cpus.set_runnable(how.only.map_or(Runnable::All, Runnable::Only));
        Ok(())
    }

    fn kill(&self) {
        self.exit.request(ExitReason::Stopped);
    }
}
