//! Getting a Linux kernel ready to run: the image, its initial RAM file systems, its boot parameters.

mod initrd;
mod kernel;
mod params;
mod reset_vector;

use std::path::PathBuf;

use thiserror::Error;
use vm_memory::GuestMemoryMmap;

use crate::config::MachineConfig;
use crate::memory::layout::Layout;

/// Why a guest cannot be booted.
#[derive(Debug, Error)]
pub enum BootError {
    /// A file is missing or unreadable.
    #[error("cannot read {what} {}: {source}", .path.display())]
    Read {
        /// Which kind of file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a kernel at all.
    #[error("{} is no Linux kernel for x86-64: want a bzImage (vmlinuz) or an ELF vmlinux", .0.display())]
    NotAKernel(PathBuf),
    /// A kernel that cannot be entered in 64-bit mode.
    #[error("kernel {} has no 64-bit entry point (boot protocol {version:#x}); use one built for x86-64", .path.display())]
    No64BitEntry {
        /// Where it is.
        path: PathBuf,
        /// Its boot protocol version.
        version: u16,
    },
    /// The image contradicts itself.
    #[error("kernel {} cannot be loaded: {source}; the file may be damaged", .path.display())]
    BadKernel {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: linux_loader::loader::Error,
    },
    /// Kernel and initial RAM file systems do not fit below the end of RAM.
    #[error(
        "{memory} MiB of memory is too little for this kernel ({kernel} MiB) and its initial RAM file systems \
         ({initrd} MiB); use more memory"
    )]
    TooLittleMemory {
        /// RAM that can be used for them, in MiB.
        memory: u64,
        /// What the kernel needs up to its end, in MiB.
        kernel: u64,
        /// What the file systems need, in MiB.
        initrd: u64,
    },
    /// Guest memory is not where it should be: a bug of ours.
    #[error("cannot write boot structures: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// Loads everything into guest memory; the address where the first vCPU starts.
pub fn load(
    memory: &GuestMemoryMmap,
    config: &MachineConfig,
    layout: &Layout,
    rsdp: u64,
) -> Result<u64, BootError> {
    let kernel = kernel::load(memory, &config.kernel)?;
    let initrd =
        initrd::load(memory, &config.initrds, kernel.end..layout.low_ram_end().min(kernel.initrd_max))?;
    params::write(memory, &kernel, initrd, &config.cmdline, layout, rsdp)?;
    reset_vector::write(memory)?;
    Ok(kernel.entry)
}

#[cfg(test)]
mod tests;
