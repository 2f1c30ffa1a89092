//! Checks whether /dev/kvm runs code, by running some. That it opens is not enough: there are machines whose KVM emulates
//! every instruction and fails at the first SSE one.
#![expect(unsafe_code, reason = "a VM's memory is given to the kernel by address")]

use std::fmt;

use kvm_bindings::{KVM_API_VERSION, kvm_userspace_memory_region};
use kvm_ioctls::{Error, Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

/// Guest-physical address of the code, one page after the real-mode vectors.
const CODE_ADDRESS: u64 = 0x1000;
const MEMORY: usize = 0x4000;
/// The port and byte by which the code reports that it reached its end.
const PORT: u16 = 0x80;
const BYTE: u8 = 0x5a;
/// CR4.OSFXSR: without it SSE instructions are undefined.
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// CR0.EM, which would trap SSE instructions.
const CR0_EM: u64 = 1 << 2;
/// Exits after which the code counts as stuck; it causes two.
const EXITS_MAX: usize = 8;

/// A loop of arithmetic, one `pxor`, one SSE load and store, then the byte, then halt. Real mode.
const CODE: &[u8] = &[
    0xb9, 0x40, 0x00, // mov cx, 64
    0x01, 0xc8, // add ax, cx
    0xe2, 0xfc, // loop -4
    0x66, 0x0f, 0xef, 0xc0, // pxor xmm0, xmm0
    0x0f, 0x11, 0x06, 0x00, 0x20, // movups [0x2000], xmm0
    0x0f, 0x10, 0x0e, 0x00, 0x20, // movups xmm1, [0x2000]
    0xb0, BYTE, // mov al, BYTE
    0xe6, 0x80, // out PORT, al
    0xf4, // hlt
];

/// Result of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmStatus {
    /// /dev/kvm runs code, SSE instructions included.
    Works,
    /// There is no /dev/kvm, or no permission to open it.
    Absent(String),
    /// It opens but does not run code.
    Broken(String),
}

impl fmt::Display for KvmStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => formatter.write_str("/dev/kvm runs code"),
            Self::Absent(why) | Self::Broken(why) => formatter.write_str(why),
        }
    }
}

/// Runs a few instructions on /dev/kvm and reports whether that works.
pub fn probe() -> KvmStatus {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => return KvmStatus::Absent(why_absent(&error)),
    };
    if u32::try_from(kvm.get_api_version()) != Ok(KVM_API_VERSION) {
        return KvmStatus::Broken("/dev/kvm has another version of KVM's interface".into());
    }
    match run_code(&kvm) {
        Ok(None) => KvmStatus::Works,
        Ok(Some(exit)) => KvmStatus::Broken(format!("/dev/kvm opens but does not run code: {exit}")),
        Err(error) => KvmStatus::Broken(format!("/dev/kvm opens but creates no VM: {error}")),
    }
}

fn why_absent(error: &Error) -> String {
    match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => {
            "this machine has no hardware virtualization (no /dev/kvm)".into()
        }
        libc::EACCES | libc::EPERM => "/dev/kvm may not be opened (add yourself to the group kvm)".into(),
        _ => format!("/dev/kvm cannot be opened: {error}"),
    }
}

/// `None` if the code reached its end, otherwise what stopped it.
fn run_code(kvm: &Kvm) -> Result<Option<String>, Error> {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)])
        .map_err(|_| Error::new(libc::ENOMEM))?;
    let vm = kvm.create_vm()?;
    give_memory(&vm, &memory)?;
    let mut vcpu = vm.create_vcpu(0)?;
    start_at_code(kvm, &vcpu)?;
    for _ in 0..EXITS_MAX {
        match vcpu.run()? {
            VcpuExit::IoOut(PORT, [BYTE]) => return Ok(None),
            VcpuExit::Intr => {}
            VcpuExit::InternalError => {
                return Ok(Some("KVM stopped with an internal error at a plain instruction".into()));
            }
            exit => return Ok(Some(format!("{exit:?}"))),
        }
    }
    Ok(Some("it did not reach its end".into()))
}

fn give_memory(vm: &VmFd, memory: &GuestMemoryMmap<()>) -> Result<(), Error> {
    use vm_memory::Bytes as _;
    memory.write_slice(CODE, GuestAddress(CODE_ADDRESS)).map_err(|_| Error::new(libc::EFAULT))?;
    let address = memory.get_host_address(GuestAddress(0)).map_err(|_| Error::new(libc::EFAULT))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: address as u64,
    };
    // SAFETY: the address and size are those of `memory`, which the caller keeps alive until the VM is gone.
    unsafe { vm.set_user_memory_region(region) }
}

fn start_at_code(kvm: &Kvm, vcpu: &VcpuFd) -> Result<(), Error> {
    let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)?;
    vcpu.set_cpuid2(&cpuid)?;
    let mut system = vcpu.get_sregs()?;
    for segment in [&mut system.cs, &mut system.ds] {
        segment.base = 0;
        segment.selector = 0;
    }
    system.cr0 &= !CR0_EM;
    system.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    vcpu.set_sregs(&system)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = CODE_ADDRESS;
    registers.rflags = 2;
    vcpu.set_regs(&registers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_kvm_is_reported_as_such() {
        assert!(why_absent(&Error::new(libc::ENOENT)).contains("no hardware virtualization"));
        assert!(why_absent(&Error::new(libc::EACCES)).contains("group kvm"));
    }

    #[test]
    fn a_device_that_opens_is_never_called_absent() {
        let opens = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        assert_eq!(matches!(probe(), KvmStatus::Absent(_)), !opens);
    }
}
