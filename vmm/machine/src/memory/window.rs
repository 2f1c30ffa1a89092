//! Physical memory of this machine as guest memory: how an emulated machine passes on the files that it was lent.

#![expect(unsafe_code, reason = "vm-memory maps a file where it looks for its size, and memory has none")]

use std::fs::File;

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use vm_memory::mmap::MmapRegionBuilder;

/// The device for memory by physical address.
const MEMORY: &str = "/dev/mem";

/// Makes `builder` use the `size` bytes at physical address `at`, in place of a new mapping. They stay mapped until the
/// process ends, and the machine with it.
pub(super) fn open(builder: MmapRegionBuilder, at: u64, size: usize) -> Result<MmapRegionBuilder> {
    let memory = File::options().read(true).write(true).open(MEMORY);
    let memory = memory.with_context(|| format!("cannot open {MEMORY}"))?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice. Nothing else in this machine uses that memory: its kernel
    // treats it as persistent and allocates nothing from it.
    let mapped = unsafe { mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED, &memory, at) };
    let mapped = mapped.with_context(|| format!("cannot map {size:#x} bytes at {at:#x} of {MEMORY}"))?;
    // SAFETY: the mapping has the size and the access of the region, and is never unmapped.
    Ok(unsafe { builder.with_raw_mmap_pointer(mapped.cast()) })
}
