//! One vCPU: created, given its processor and its first state.

use std::sync::Arc;

use kvm_bindings::{CpuId, Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use super::cpuid::{Shape, for_vcpu};
use super::long_mode::{enter, entry_registers};
use super::vm::{Asking, KvmError, Vm};
use crate::config::CpuModel;

/// Memory type range registers: on, everything write-back. Without it Linux does without page attributes.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

/// One vCPU, not yet running.
pub struct Vcpu {
    pub(super) fd: VcpuFd,
    /// Its number, which is also its APIC id.
    pub(super) index: u8,
    /// Guest memory stays mapped while a vCPU may run.
    _vm: Arc<Vm>,
}

impl Vcpu {
    /// Creates vCPU `index` of `cpus`. The first is to start at `entry`; the others wait to be woken by it.
    pub fn new(vm: &Arc<Vm>, model: CpuModel, cpus: u8, index: u8, entry: u64) -> Result<Self, KvmError> {
        let fd = vm.fd.create_vcpu(u64::from(index)).asking("create a vCPU")?;
        let shape = Shape { model, cpus, tsc_deadline: vm.tsc_deadline };
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
        Ok(Self { fd, index, _vm: vm.clone() })
    }
}
