//! One vCPU: its creation, CPUID and initial state.

use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, Msrs, kvm_debug_exit_arch, kvm_mp_state, kvm_msr_entry,
};
use kvm_ioctls::VcpuFd;

use super::cpuid::{CpuidInputs, for_vcpu};
use super::long_mode::{enter, entry_registers};
use super::registers;
use super::trap::{ExceptionOwner, VcpuTraps, injection};
use super::vm::{Asking, KvmError, Vm};
use crate::config::CpuModel;
use crate::debug::registers::Registers;
use crate::debug::traps::Traps;

/// Default memory type: on, everything write-back. Without it Linux disables page attributes.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

/// One vCPU with its traps.
pub struct Vcpu {
    pub(super) fd: VcpuFd,
    /// Its number, which is also its APIC id.
    pub(super) index: u8,
    /// The traps that stop it for a debugger.
    armed: Option<VcpuTraps>,
    /// Guest memory stays mapped as long as a vCPU may run.
    _vm: Arc<Vm>,
}

impl Vcpu {
    /// Creates vCPU `index` of `cpus`. The first starts at `entry`; the others wait to be started by it.
    ///
    /// # Errors
    /// KVM refuses a step of the setup.
    pub fn new(vm: &Arc<Vm>, model: CpuModel, cpus: u8, index: u8, entry: u64) -> Result<Self, KvmError> {
        let fd = vm.fd.create_vcpu(u64::from(index)).asking("create a vCPU")?;
        let shape = CpuidInputs { model, cpus, tsc_deadline: vm.tsc_deadline };
        let cpuid = for_vcpu(vm.supported_cpuid(), shape, index);
        let cpuid =
            CpuId::from_entries(&cpuid).map_err(|_| KvmError::Capability("room for CPUID entries"))?;
        fd.set_cpuid2(&cpuid).asking("set a vCPU's CPUID")?;
        let mtrr =
            kvm_msr_entry { index: MTRR_DEF_TYPE, data: MTRR_ON_WRITE_BACK, ..kvm_msr_entry::default() };
        let msrs = Msrs::from_entries(&[mtrr]).map_err(|_| KvmError::Capability("room for MSRs"))?;
        fd.set_msrs(&msrs).asking("set a vCPU's MSRs")?;
        if index == 0 {
            let mut sregs = fd.get_sregs().asking("read a vCPU's registers")?;
            enter(&mut sregs);
            fd.set_sregs(&sregs).asking("set a vCPU's special registers")?;
            fd.set_regs(&entry_registers(entry)).asking("set a vCPU's registers")?;
        }
        Ok(Self { fd, index, armed: None, _vm: vm.clone() })
    }

    /// Reads its registers. It must not be in its guest.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn registers(&self) -> Result<Registers, KvmError> {
        let general = self.fd.get_regs().asking("read a vCPU's registers")?;
        let special = self.fd.get_sregs().asking("read a vCPU's special registers")?;
        let fpu = self.fd.get_fpu().asking("read a vCPU's floating point registers")?;
        Ok(registers::from_kvm(&general, &special, &fpu))
    }

    /// Sets general and floating point registers; segments stay unchanged.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn set_registers(&self, registers: &Registers) -> Result<(), KvmError> {
        self.fd.set_regs(&registers::general(registers)).asking("set a vCPU's registers")?;
        self.fd.set_fpu(&registers::fpu(registers)).asking("set a vCPU's floating point registers")
    }

    /// The guest-physical address of a guest-virtual one, by this vCPU's page tables.
    pub fn translate(&self, address: u64) -> Option<u64> {
        let found = self.fd.translate_gva(address).ok()?;
        (found.valid != 0).then_some(found.physical_address)
    }

    /// Sends it an NMI.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn nmi(&self) -> Result<(), KvmError> {
        self.fd.nmi().asking("send a vCPU an NMI")
    }

    /// Sets the traps that stop it for a debugger, and whether it single-steps; `None` removes all.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn arm(&mut self, traps: Option<(&Arc<Traps>, bool)>) -> Result<(), KvmError> {
        self.armed = traps.map(|(traps, step)| VcpuTraps { traps: traps.clone(), step });
        if traps.is_some_and(|(_, step)| step) {
            self.wake()?;
        }
        // Tells a guest with KVM's clock that it was paused, so that its watchdogs do not fire. Fails for guests without
        // that clock.
        let _ = self.fd.kvmclock_ctrl();
        self.set_debug(0)
    }

    /// Determines whose exception caused a debug exit.
    pub(super) fn judge(&self, exit: &kvm_debug_exit_arch) -> ExceptionOwner {
        self.armed.as_ref().map_or(ExceptionOwner::Inject(exit.exception), |armed| armed.judge(exit))
    }

    /// Injects an exception that was not the debugger's into the guest.
    pub(super) fn inject(&self, exception: u32) -> Result<(), KvmError> {
        self.set_debug(injection(exception))
    }

    fn set_debug(&self, more: u32) -> Result<(), KvmError> {
        let set = |quiet| {
            let mut debug = self.armed.as_ref().map(|armed| armed.control(quiet)).unwrap_or_default();
            debug.control |= more;
            self.fd.set_guest_debug(&debug)
        };
        // Before Linux 5.15 a step cannot block interrupts.
        set(true).or_else(|_| set(false)).asking("set a vCPU up for a debugger")
    }

    /// Wakes a vCPU that waits in HLT: otherwise it would not step before its next interrupt.
    fn wake(&self) -> Result<(), KvmError> {
        let state = self.fd.get_mp_state().asking("read a vCPU's run state")?;
        if state.mp_state == KVM_MP_STATE_HALTED {
            let runs = kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE };
            self.fd.set_mp_state(runs).asking("wake a vCPU")?;
        }
        Ok(())
    }
}
