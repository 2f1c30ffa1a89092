//! Boot parameters: what the loader passes to the kernel (Documentation/arch/x86/boot.rst, zero-page.rst).

use std::fs::File;
use std::io::Read;
use std::ops::Range;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use refault_bus::bits::low_u32;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::BootError;
use super::kernel::LoadedKernel;
use crate::memory::layout::{CMDLINE, Layout, SETUP_DATA, ZERO_PAGE};

/// Loader type "undefined".
const LOADER_TYPE: u8 = 0xff;
/// Setup data that seeds the kernel's random number generator, so that early readers need not wait for entropy.
const SETUP_RNG_SEED: u32 = 9;
const SEED_SIZE: u32 = 32;

/// Writes command line, seed and boot parameters.
pub(super) fn write(
    memory: &GuestMemoryMmap,
    kernel: &LoadedKernel,
    initrd: Range<u64>,
    cmdline: &str,
    layout: &Layout,
    rsdp: u64,
) -> Result<(), BootError> {
    memory.write_slice(cmdline.as_bytes(), GuestAddress(CMDLINE))?;
    memory.write_slice(&[0], GuestAddress(CMDLINE + cmdline.len() as u64))?;

    let mut params = boot_params { hdr: kernel.header, acpi_rsdp_addr: rsdp, ..boot_params::default() };
    params.hdr.type_of_loader = LOADER_TYPE;
    // These lie below 4 GiB.
    params.hdr.cmd_line_ptr = low_u32(CMDLINE);
    params.hdr.ramdisk_image = low_u32(initrd.start);
    params.hdr.ramdisk_size = low_u32(initrd.end - initrd.start);
    if write_seed(memory)? {
        params.hdr.setup_data = SETUP_DATA;
    }
    let map = layout.e820();
    for ((slot, (range, kind)), count) in params.e820_table.iter_mut().zip(&map).zip(1..) {
        *slot = boot_e820_entry { addr: range.start, size: range.end - range.start, r#type: *kind as u32 };
        params.e820_entries = count;
    }
    memory.write_obj(params, GuestAddress(ZERO_PAGE))?;
    Ok(())
}

/// Writes a seed from the host's random numbers; false if the host has none.
fn write_seed(memory: &GuestMemoryMmap) -> Result<bool, BootError> {
    let mut seed = [0; SEED_SIZE as usize];
    if File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed)).is_err() {
        return Ok(false);
    }
    // Next (none), type, length, data.
    memory.write_obj(0u64, GuestAddress(SETUP_DATA))?;
    memory.write_obj(SETUP_RNG_SEED, GuestAddress(SETUP_DATA + 8))?;
    memory.write_obj(SEED_SIZE, GuestAddress(SETUP_DATA + 12))?;
    memory.write_slice(&seed, GuestAddress(SETUP_DATA + 16))?;
    Ok(true)
}
