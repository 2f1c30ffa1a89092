//! The loop of one vCPU: run the guest, serve its exit, run it again.

use std::io;
use std::sync::{Arc, Once};
use std::thread;

use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};
use tracing::debug;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::trap::ExceptionOwner;
use super::{Cpus, Vcpu};
use crate::bus_map::BusMap;
use crate::config::ExitReason;
use crate::control::Exit;
use crate::debug::traps::VcpuStop;
use refault_os::syscalls::{ThreadKind, confine};

/// The threads of a running machine.
pub struct Threads(Arc<Cpus>);

impl Threads {
    /// Starts a thread for each vCPU. The first reason for an end is recorded in `exit`.
    ///
    /// # Errors
    /// The kick signal cannot be installed, or a thread cannot be started.
    pub fn start(cpus: &Arc<Cpus>, bus: &Arc<BusMap>, exit: &Arc<Exit>) -> io::Result<Self> {
        install_kick()?;
        let threads = Self(cpus.clone());
        for index in 0..cpus.count() {
            let name = format!("vcpu{index}");
            let (cpus, bus, exit) = (cpus.clone(), bus.clone(), exit.clone());
            let body = move || {
                confine(ThreadKind::Vcpu);
                let _unwinding = Unwinding { exit: &exit, cpus: &cpus, index };
                while cpus.enter(index) {
                    let Some(mut vcpu) = cpus.vcpu(index) else { break };
                    if let Some(reason) = run(&mut vcpu, &cpus, &bus, &exit) {
                        exit.request(reason);
                    }
                    if exit.is_requested() {
                        break;
                    }
                }
            };
            threads.0.add_thread(thread::Builder::new().name(name).spawn(body)?);
        }
        Ok(threads)
    }

    /// Makes all vCPUs leave their guest, and waits for their threads.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Dropped at the end of a vCPU's thread. If a device panicked on it, this ends the machine; otherwise the guest would
/// hang.
struct Unwinding<'a> {
    exit: &'a Exit,
    cpus: &'a Cpus,
    index: u8,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.cpus.leave(self.index);
        if thread::panicking() {
            let text = format!("a device panicked under vCPU {}: this is a bug in refault", self.index);
            self.exit.request(ExitReason::Failed(text));
        }
    }
}

/// A handler that does nothing: its purpose is to interrupt KVM_RUN.
fn install_kick() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = register_signal_handler(SIGRTMIN(), nothing));
    result.map_err(Into::into)
}

/// How often in a row an instruction is repeated that KVM could not emulate because of a pending event.
const RETRIES: u32 = 16;

/// Runs one vCPU until it must leave or the machine ends; returns the reason if this vCPU ended the machine.
fn run(vcpu: &mut Vcpu, cpus: &Cpus, bus: &BusMap, exit: &Exit) -> Option<ExitReason> {
    let mut undelivered = 0;
    loop {
        let out = cpus.must_leave(vcpu.index) || exit.is_requested();
        // KVM completes the guest's pending device access without entering the guest: then the vCPU's state is consistent.
        vcpu.fd.set_kvm_immediate_exit(out.into());
        match vcpu.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => bus.mmio_read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => bus.mmio_write(address, data),
            Ok(VcpuExit::IoIn(port, data)) => bus.port_read(port, data),
            Ok(VcpuExit::IoOut(port, data)) => bus.port_write(port, data),
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::Hlt) => {}
            Ok(VcpuExit::Debug(exit)) => match vcpu.judge(&exit) {
                // Without a listener the debugger has detached, and this was the last of its traps.
                ExceptionOwner::Stop(why) => drop(cpus.trapped(VcpuStop { cpu: vcpu.index, why })),
                ExceptionOwner::Inject(exception) => {
                    debug!(exception, pc = exit.pc, dr6 = exit.dr6, "exception of the guest itself");
                    if let Err(error) = vcpu.inject(exception) {
                        return Some(ExitReason::Failed(error.to_string()));
                    }
                }
            },
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
                let text = format!("KVM left the guest for a reason unknown to refault: {other:?}");
                return Some(ExitReason::Failed(text));
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                if out {
                    return None;
                }
            }
            Err(error) => {
                return Some(ExitReason::Failed(format!("KVM cannot run vCPU {}: {error}", vcpu.index)));
            }
        }
        undelivered = 0;
    }
}

fn system_event(event: u32) -> ExitReason {
    match event {
        KVM_SYSTEM_EVENT_SHUTDOWN => ExitReason::PowerOff,
        KVM_SYSTEM_EVENT_RESET => ExitReason::Reset,
        KVM_SYSTEM_EVENT_CRASH => ExitReason::Failed("the guest reported a crash to its hypervisor".into()),
        other => ExitReason::Failed(format!("KVM reports system event {other}, unknown to refault")),
    }
}

fn fail_entry(reason: u64, cpu: u32) -> ExitReason {
    ExitReason::Failed(format!(
        "the processor refused to enter the guest (reason {reason:#x} on host CPU {cpu}); \
         `dmesg` on the host may say more; choose software emulation with --host qemu"
    ))
}

/// Whether KVM reports that the guest accessed a device while an exception was being delivered.
///
/// In an emulated machine this report is wrong: QEMU's EXITINTINFO keeps the type of the last exception with the valid bit
/// clear, and kvm-amd looks at the type alone. On the next entry the field is zero, and the instruction is repeated.
fn was_delivering(fd: &mut VcpuFd) -> bool {
    // SAFETY: as in `internal_error`.
    let internal = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    internal.suberror == kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV
}

/// KVM_EXIT_INTERNAL_ERROR with its details.
fn internal_error(fd: &mut VcpuFd) -> ExitReason {
    // SAFETY: the exit reason says that KVM filled in this member of the union; all its fields are plain integers.
    let internal = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    let rip = fd.get_regs().map_or(0, |regs| regs.rip);
    let what = match internal.suberror {
        kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => "it cannot emulate an instruction",
        kvm_bindings::KVM_INTERNAL_ERROR_SIMUL_EX => "an exception occurred while it delivered another",
        kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV => "it could not deliver an event",
        kvm_bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => {
            "the processor left the guest for an unknown reason"
        }
        _ => "it gives no reason",
    };
    ExitReason::Failed(format!(
        "KVM gave up at guest address {rip:#x}: {what} (internal error {}). This host's KVM may not run real code: \
         `refault doctor` checks it; choose software emulation with --host qemu",
        internal.suberror
    ))
}
