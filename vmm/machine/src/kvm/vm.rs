//! One virtual machine: memory slots, interrupt controllers, interrupts.

use std::io;
use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_msi, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use refault_bus::bits::{high_u32, index, low_u32};
use refault_bus::irq::{MsiMessage, MsiSink};
use thiserror::Error;
use tracing::debug;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::layout::{KVM_IDENTITY_MAP, KVM_TSS};

/// Why a virtual machine cannot be created or used.
#[derive(Debug, Error)]
pub enum KvmError {
    /// The kernel has no KVM, or the device is not available here.
    #[error(
        "/dev/kvm does not exist: this machine has no KVM (no virtualization in the processor or firmware, \
         module kvm_intel or kvm_amd not loaded, or a container without the device); \
         choose software emulation with --host qemu"
    )]
    Missing,
    /// No permission to open the device.
    #[error("no permission to open /dev/kvm; join the group that owns it, or run as root")]
    Denied,
    /// Opening it failed for another reason.
    #[error("cannot open /dev/kvm: {0}")]
    Open(io::Error),
    /// KVM lacks a capability.
    #[error("this host's KVM lacks {0}; use a newer kernel")]
    Capability(&'static str),
    /// A call to KVM failed.
    #[error("KVM refused to {action}: {source}")]
    Call {
        /// The action of the call.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// KVM supports fewer vCPUs than configured.
    #[error("this host's KVM supports at most {most} vCPUs, not {wanted}")]
    Cpus {
        /// Number in the configuration.
        wanted: u8,
        /// Number that KVM supports.
        most: usize,
    },
}

/// Names the failed action in KVM's errors.
pub(crate) trait Asking<T> {
    /// Adds `action` ("create a vCPU") to the error.
    fn asking(self, action: &'static str) -> Result<T, KvmError>;
}

impl<T> Asking<T> for Result<T, kvm_ioctls::Error> {
    fn asking(self, action: &'static str) -> Result<T, KvmError> {
        self.map_err(|error| KvmError::Call { action, source: error.into() })
    }
}

/// A virtual machine with in-kernel interrupt controllers.
pub struct Vm {
    pub(super) fd: VmFd,
    /// The processor features that KVM can offer a guest.
    supported: CpuId,
    pub(super) tsc_deadline: bool,
    most_cpus: usize,
    /// Keeps the guest's memory mapped as long as the machine exists.
    memory: Vec<Arc<GuestMemoryMmap>>,
}

impl Vm {
    /// Opens KVM and creates an empty machine.
    ///
    /// # Errors
    /// KVM is missing or lacks a capability, or refuses a step of the setup.
    pub fn new() -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
            libc::EACCES | libc::EPERM => KvmError::Denied,
            _ => KvmError::Open(error.into()),
        })?;
        for (cap, name) in [
            (Cap::UserMemory, "user memory"),
            (Cap::Irqchip, "in-kernel interrupt controllers"),
            (Cap::Irqfd, "irqfd"),
            (Cap::SignalMsi, "direct MSI"),
            (Cap::ImmediateExit, "immediate exit"),
        ] {
            if !kvm.check_extension(cap) {
                return Err(KvmError::Capability(name));
            }
        }
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).asking("list its CPUID")?;
        let fd = kvm.create_vm().asking("create a virtual machine")?;
        fd.set_identity_map_address(KVM_IDENTITY_MAP).asking("place the identity map")?;
        fd.set_tss_address(index(KVM_TSS)).asking("place the task state segment")?;
        fd.create_irq_chip().asking("create interrupt controllers")?;
        let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Self { fd, supported, tsc_deadline, most_cpus: kvm.get_max_vcpus(), memory: Vec::new() })
    }

    /// The processor features that KVM can offer a guest.
    pub fn supported_cpuid(&self) -> &CpuId {
        &self.supported
    }

    /// Checks that KVM supports `wanted` vCPUs.
    ///
    /// # Errors
    /// It supports fewer.
    pub fn check_cpus(&self, wanted: u8) -> Result<(), KvmError> {
        let most = self.most_cpus;
        if usize::from(wanted) > most { Err(KvmError::Cpus { wanted, most }) } else { Ok(()) }
    }

    /// Maps `memory` into the guest, with one slot per region.
    ///
    /// # Errors
    /// KVM refuses a slot.
    pub fn map(&mut self, memory: Arc<GuestMemoryMmap>) -> Result<(), KvmError> {
        for (region, slot) in memory.iter().zip(0u32..) {
            let slot = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
                flags: 0,
            };
            // SAFETY: the region is mapped with this address and length, and stays so while the machine exists:
            // `self.memory` keeps it, and every vCPU keeps `self`.
            unsafe { self.fd.set_user_memory_region(slot) }.asking("map guest memory")?;
        }
        self.memory.push(memory);
        Ok(())
    }

    /// Makes writes to `event` an edge on interrupt line `gsi`.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn attach_irq(&self, event: &EventFd, gsi: u32) -> Result<(), KvmError> {
        self.fd.register_irqfd(event, gsi).asking("attach an interrupt to an event")
    }
}

impl MsiSink for Vm {
    fn signal(&self, message: MsiMessage) {
        let msi = kvm_msi {
            address_lo: low_u32(message.address),
            address_hi: high_u32(message.address),
            data: message.data,
            ..kvm_msi::default()
        };
        // A message that addresses no vCPU is the guest's mistake and has no effect, as on a real machine.
        if let Err(error) = self.fd.signal_msi(msi) {
            debug!(?message, %error, "an interrupt was not delivered");
        }
    }
}
