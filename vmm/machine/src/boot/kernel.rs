//! The kernel image: a bzImage as distributions package it, or the ELF file inside one.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::BootError;
use crate::memory::layout::HIGH_RAM;

/// A kernel in guest memory.
pub(super) struct LoadedKernel {
    /// Its entry point in 64-bit mode.
    pub(super) entry: u64,
    /// First address after all that it needs before it manages memory itself.
    pub(super) end: u64,
    /// Initial RAM file systems must lie below this address.
    pub(super) initrd_max: u64,
    /// Its own setup header, or one made up for an ELF file.
    pub(super) header: setup_header,
}

/// Bytes of the image that identify its format.
const HEAD: usize = 0x270;
const ELF_MAGIC: &[u8] = b"\x7fELF";
const ELF_MACHINE: usize = 18;
const ELF_X86_64: [u8; 2] = 62u16.to_le_bytes();
const BZIMAGE_MAGIC: &[u8] = b"HdrS";
const BZIMAGE_MAGIC_AT: usize = 0x202;
/// First boot protocol version with `xloadflags`.
const PROTOCOL_XLOADFLAGS: u16 = 0x20c;
/// The kernel has a 64-bit entry point, at this offset from its start.
const XLF_KERNEL_64: u16 = 1 << 0;
const ENTRY_64: u64 = 0x200;
/// The initial RAM file systems may lie above 4 GiB.
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 1 << 1;
/// Room for an ELF kernel's first page tables and allocations after its last segment.
const ELF_SLACK: u64 = 4 << 20;

/// Loads the kernel at `path`.
pub(super) fn load(memory: &GuestMemoryMmap, path: &Path) -> Result<LoadedKernel, BootError> {
    let read = |source| BootError::Read { what: "kernel", path: path.into(), source };
    let mut file = File::open(path).map_err(read)?;
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(HEAD as u64).read_to_end(&mut head).map_err(read)?;
    let magic_at = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    if magic_at(BZIMAGE_MAGIC_AT, BZIMAGE_MAGIC) {
        load_bzimage(memory, path, file)
    } else if magic_at(0, ELF_MAGIC) && magic_at(ELF_MACHINE, &ELF_X86_64) {
        load_elf(memory, path, file)
    } else {
        Err(BootError::NotAKernel(path.into()))
    }
}

fn load_bzimage(memory: &GuestMemoryMmap, path: &Path, mut file: File) -> Result<LoadedKernel, BootError> {
    let bad = |source| BootError::BadKernel { path: path.into(), source };
    let start = GuestAddress(HIGH_RAM);
    let result = BzImage::load(memory, Some(start), &mut file, None).map_err(bad)?;
    let header = result.setup_header.ok_or_else(|| BootError::NotAKernel(path.into()))?;
    let version = header.version;
    if version < PROTOCOL_XLOADFLAGS || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(BootError::No64BitEntry { path: path.into(), version });
    }
    // It decompresses itself to its preferred address, or to where it was loaded if that is higher.
    let run_at = header.pref_address.max(HIGH_RAM);
    let unpacked = run_at.saturating_add(u64::from(header.init_size));
    let anywhere = header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0;
    Ok(LoadedKernel {
        entry: result.kernel_load.0 + ENTRY_64,
        end: result.kernel_end.max(unpacked),
        initrd_max: if anywhere { u64::MAX } else { u64::from(header.initrd_addr_max) + 1 },
        header,
    })
}

fn load_elf(memory: &GuestMemoryMmap, path: &Path, mut file: File) -> Result<LoadedKernel, BootError> {
    let bad = |source| BootError::BadKernel { path: path.into(), source };
    let result = Elf::load(memory, None, &mut file, Some(GuestAddress(HIGH_RAM))).map_err(bad)?;
    let header = setup_header {
        boot_flag: 0xaa55,
        header: u32::from_le_bytes(*b"HdrS"),
        kernel_alignment: 1 << 24,
        ..setup_header::default()
    };
    let end = result.kernel_end.saturating_add(ELF_SLACK);
    Ok(LoadedKernel { entry: result.kernel_load.0, end, initrd_max: u64::MAX, header })
}
