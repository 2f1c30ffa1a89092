//! The loop of one vCPU: run, serve what the guest asked for, run again.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::Vcpu;
use crate::bus_map::BusMap;
use crate::config::ExitReason;
use crate::control::Exit;

/// How often a thread that does not leave the guest is told again. A signal that comes just before the guest
/// is entered does not keep it out, so one may not be enough.
const KICK_AGAIN: Duration = Duration::from_millis(1);

/// The threads of a running machine.
pub struct Threads {
    handles: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Threads {
    /// Lets all vCPUs run, each on its own thread. The first end that a guest comes to is noted in `exit`.
    pub fn start(vcpus: Vec<Vcpu>, bus: &Arc<BusMap>, exit: &Arc<Exit>) -> io::Result<Self> {
        install_kick()?;
        let mut threads = Self { handles: Vec::with_capacity(vcpus.len()), stop: Arc::default() };
        for vcpu in vcpus {
            let name = format!("vcpu{}", vcpu.index);
            let (bus, exit, stop) = (bus.clone(), exit.clone(), threads.stop.clone());
            let body = move || {
                let _unwinding = Unwinding(&exit, vcpu.index);
                if let Some(reason) = run(vcpu, &bus, &exit, &stop) {
                    exit.request(reason);
                }
            };
            threads.handles.push(thread::Builder::new().name(name).spawn(body)?);
        }
        Ok(threads)
    }

    /// Has all vCPUs leave their guest and their threads end.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Release);
        for handle in self.handles.drain(..) {
            while !handle.is_finished() {
                // Fails only for a thread that has just ended.
                let _ = handle.kill(SIGRTMIN());
                thread::sleep(KICK_AGAIN);
            }
            let _ = handle.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.join();
    }
}

/// Ends the machine if a device panics on a vCPU's thread, instead of leaving a guest that hangs.
struct Unwinding<'a>(&'a Exit, u8);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = format!("a device panicked under vCPU {}: this is a bug in refault", self.1);
            self.0.request(ExitReason::Failed(text));
        }
    }
}

/// A handler that does nothing: what matters is that KVM_RUN is interrupted.
fn install_kick() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = register_signal_handler(SIGRTMIN(), nothing));
    result.map_err(Into::into)
}

/// How often in a row an instruction is repeated that KVM could not emulate for a pending event.
const RETRIES: u32 = 16;

/// Runs one vCPU until the machine ends; the reason, if this vCPU is the one that knows it.
fn run(mut vcpu: Vcpu, bus: &BusMap, exit: &Exit, stop: &AtomicBool) -> Option<ExitReason> {
    let mut undelivered = 0;
    while !stop.load(Ordering::Acquire) && !exit.is_requested() {
        match vcpu.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => bus.mmio_read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => bus.mmio_write(address, data),
            Ok(VcpuExit::IoIn(port, data)) => bus.port_read(port, data),
            Ok(VcpuExit::IoOut(port, data)) => bus.port_write(port, data),
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::Hlt) => {}
            Ok(VcpuExit::Shutdown) => return Some(ExitReason::TripleFault),
            Ok(VcpuExit::SystemEvent(event, _)) => return Some(system_event(event)),
            Ok(VcpuExit::FailEntry(reason, cpu)) => return Some(fail_entry(reason, cpu)),
            Ok(VcpuExit::InternalError) => {
                undelivered += 1;
                if undelivered > RETRIES || !was_delivering(&mut vcpu.fd) {
                    return Some(internal_error(&mut vcpu.fd));
                }
                continue;
            }
            Ok(other) => {
                let text = format!("KVM left the guest for a reason refault does not know: {other:?}");
                return Some(ExitReason::Failed(text));
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) => {
                return Some(ExitReason::Failed(format!("KVM cannot run vCPU {}: {error}", vcpu.index)));
            }
        }
        undelivered = 0;
    }
    None
}

fn system_event(event: u32) -> ExitReason {
    match event {
        KVM_SYSTEM_EVENT_SHUTDOWN => ExitReason::PowerOff,
        KVM_SYSTEM_EVENT_RESET => ExitReason::Reset,
        KVM_SYSTEM_EVENT_CRASH => ExitReason::Failed("the guest told its hypervisor that it crashed".into()),
        other => ExitReason::Failed(format!("KVM reports system event {other}, which refault does not know")),
    }
}

fn fail_entry(reason: u64, cpu: u32) -> ExitReason {
    ExitReason::Failed(format!(
        "the processor refused to enter the guest (reason {reason:#x} on host CPU {cpu}); \
         `dmesg` on the host may say more; choose software emulation with --host qemu"
    ))
}

/// Whether KVM believes that the guest touched a device while an exception was delivered to it.
///
/// One level down in QEMU's emulation this is a mistake: EXITINTINFO keeps the type of the last exception, with
/// the valid bit clear, and kvm-amd looks at the type alone. The next entry finds it cleared and repeats the
/// instruction.
fn was_delivering(fd: &mut VcpuFd) -> bool {
    // SAFETY: as in `internal_error`.
    let internal = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    internal.suberror == kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV
}

/// KVM_EXIT_INTERNAL_ERROR, with what it says about itself.
fn internal_error(fd: &mut VcpuFd) -> ExitReason {
    // SAFETY: the exit reason says that this member of the union is the one KVM filled in; all its fields are
    // plain numbers.
    let internal = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    let rip = fd.get_regs().map_or(0, |regs| regs.rip);
    let what = match internal.suberror {
        kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => "it cannot emulate an instruction",
        kvm_bindings::KVM_INTERNAL_ERROR_SIMUL_EX => "an exception came while it delivered another",
        kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV => "it could not deliver an event",
        kvm_bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => {
            "the processor left the guest for no known reason"
        }
        _ => "it does not say why",
    };
    ExitReason::Failed(format!(
        "KVM gave up at guest address {rip:#x}: {what} (internal error {}). This host's KVM may not run real code: \
         `refault doctor` checks it; choose software emulation with --host qemu",
        internal.suberror
    ))
}
