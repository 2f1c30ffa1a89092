//! Physical memory of this machine as memory of the guest's: how an emulated machine hands on what it was lent.

#![expect(unsafe_code, reason = "vm-memory maps a file where it looks for its size, and memory has none")]

use std::fs::File;

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use vm_memory::mmap::MmapRegionBuilder;

/// Memory by physical address.
const MEMORY: &str = "/dev/mem";

/// Has `builder` take the `size` bytes at physical address `at`, in place of a mapping of its own. They stay mapped until
/// the process ends, and with it the machine.
pub(super) fn open(builder: MmapRegionBuilder, at: u64, size: usize) -> Result<MmapRegionBuilder> {
    let memory = File::options().read(true).write(true).open(MEMORY);
    let memory = memory.with_context(|| format!("cannot open {MEMORY}"))?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping where the kernel has room for it. Nothing else in this machine uses that memory: its kernel
    // takes it for persistent, and gives out no such memory.
    let mapped = unsafe { mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED, &memory, at) };
    let mapped = mapped.with_context(|| format!("cannot map {size:#x} bytes at {at:#x} of {MEMORY}"))?;
    // SAFETY: the mapping has the size and the access of the region, and is never unmapped.
    Ok(unsafe { builder.with_raw_mmap_pointer(mapped.cast()) })
}
