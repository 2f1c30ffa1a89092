//! A VM that never runs.

use anyhow::{Context, Result};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

/// Enable bit in the APIC's base address.
const APIC_ENABLED: u64 = 1 << 11;

/// A VM with one vCPU, whose interrupt controller is off. As long as it lives, KVM leaves the kernel's code as it is: Linux
/// rewrites some when the first VM comes and the last one goes.
pub struct IdleVm {
    _vm: VmFd,
    _vcpu: VcpuFd,
}

impl IdleVm {
    /// Makes the VM.
    ///
    /// # Errors
    /// KVM cannot make one; the text says which step failed.
    pub fn new() -> Result<Self> {
        let kvm = Kvm::new().context("cannot open /dev/kvm")?;
        let vm = kvm.create_vm().context("cannot make a VM")?;
        vm.create_irq_chip().context("cannot make interrupt controllers")?;
        let vcpu = vm.create_vcpu(0).context("cannot make a vCPU")?;
        let mut system = vcpu.get_sregs()?;
        system.apic_base &= !APIC_ENABLED;
        vcpu.set_sregs(&system).context("cannot switch an APIC off")?;
        Ok(Self { _vm: vm, _vcpu: vcpu })
    }
}
