//! Prepares a Linux kernel to run: the image, its initial RAM file systems, its boot parameters.

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
        /// Kind of file, for the message.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not a kernel.
    #[error("{} is not a Linux kernel for x86-64: expected a bzImage (vmlinuz) or an ELF vmlinux", .0.display())]
    NotAKernel(PathBuf),
    /// The kernel has no 64-bit entry point.
    #[error("kernel {} has no 64-bit entry point (boot protocol {version:#x}); use one built for x86-64", .path.display())]
    No64BitEntry {
        /// Path of the kernel.
        path: PathBuf,
        /// Its boot protocol version.
        version: u16,
    },
    /// The image is inconsistent.
    #[error("kernel {} cannot be loaded: {source}; the file may be damaged", .path.display())]
    BadKernel {
        /// Path of the kernel.
        path: PathBuf,
        /// What is wrong with the image.
        source: linux_loader::loader::Error,
    },
    /// Kernel and initial RAM file systems do not fit below the end of RAM.
    #[error(
        "{memory} MiB of memory is too little for this kernel ({kernel} MiB) and its initial RAM file systems \
         ({initrd} MiB); use more memory"
    )]
    TooLittleMemory {
        /// RAM available to both, in MiB.
        memory: u64,
        /// What the kernel needs, in MiB.
        kernel: u64,
        /// What the file systems need, in MiB.
        initrd: u64,
    },
    /// Writing to guest memory failed: a bug in refault.
    #[error("cannot write boot structures: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// Loads everything into guest memory and returns the address where the first vCPU starts.
///
/// # Errors
/// A file cannot be read, the kernel is not usable, or memory is too small.
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
