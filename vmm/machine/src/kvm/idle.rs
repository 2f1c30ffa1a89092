//! A VM that never runs.

use anyhow::{Context, Result};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

/// Enable bit in the APIC's base address register.
const APIC_ENABLED: u64 = 1 << 11;

/// A VM with one vCPU, whose interrupt controller is off. While it exists, KVM does not patch the kernel's code: Linux does
/// that when the first VM is created and when the last one is destroyed.
pub struct IdleVm {
    _vm: VmFd,
    _vcpu: VcpuFd,
}

impl IdleVm {
    /// Creates the VM.
    ///
    /// # Errors
    /// KVM cannot create it; the message names the step that failed.
    pub fn new() -> Result<Self> {
        let kvm = Kvm::new().context("cannot open /dev/kvm")?;
        let vm = kvm.create_vm().context("cannot create a VM")?;
        vm.create_irq_chip().context("cannot create interrupt controllers")?;
        let vcpu = vm.create_vcpu(0).context("cannot create a vCPU")?;
        let mut system = vcpu.get_sregs()?;
        system.apic_base &= !APIC_ENABLED;
        vcpu.set_sregs(&system).context("cannot switch an APIC off")?;
        Ok(Self { _vm: vm, _vcpu: vcpu })
    }
}
