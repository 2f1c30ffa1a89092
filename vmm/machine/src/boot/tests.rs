//! Which guests can be booted, and the errors for those that cannot.

use std::io::Write;

use linux_loader::loader::bootparam::boot_params;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::config::PmemConfig;
use crate::memory::layout::{CMDLINE, HIGH_RAM, ZERO_PAGE};

/// A machine of 64 MiB, and its memory.
fn machine() -> (MachineConfig, Layout, GuestMemoryMmap) {
    let config = MachineConfig { memory: 64 << 20, ..MachineConfig::sample() };
    let layout = Layout::new(&config, 40).unwrap();
    (config, layout, GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap())
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// The fields of a bzImage that a loader reads: a setup header, one sector of setup, a marked kernel.
fn bzimage(version: u16, xloadflags: u16) -> Vec<u8> {
    let mut image = vec![0u8; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &version.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &0x37ff_ffffu32.to_le_bytes());
    put(0x236, &xloadflags.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x80_0000u32.to_le_bytes());
    image.extend([0x90; 4096]);
    image
}

fn error(kernel: &[u8]) -> BootError {
    let (config, layout, memory) = machine();
    let kernel = file(kernel);
    load(&memory, &MachineConfig { kernel: kernel.path().into(), ..config }, &layout, 0).unwrap_err()
}

#[test]
fn a_bzimage_is_entered_at_its_64_bit_entry() {
    let (config, layout, memory) = machine();
    let kernel = file(&bzimage(0x20f, 1));
    let config = MachineConfig { kernel: kernel.path().into(), ..config };
    assert_eq!(load(&memory, &config, &layout, 0xe_0000).unwrap(), HIGH_RAM + 0x200);
    assert_eq!(memory.read_obj::<u32>(GuestAddress(HIGH_RAM)).unwrap(), 0x9090_9090);
    let params: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
    let (rsdp, loader) = (params.acpi_rsdp_addr, params.hdr.type_of_loader);
    assert_eq!((rsdp, loader, params.e820_entries), (0xe_0000, 0xff, 4));
    let mut cmdline = [0; 14];
    memory.read_slice(&mut cmdline, GuestAddress(CMDLINE)).unwrap();
    assert_eq!(&cmdline, b"console=ttyS0\0");
}

#[test]
fn the_reset_vector_resets() {
    let (config, layout, memory) = machine();
    let kernel = file(&bzimage(0x20f, 1));
    load(&memory, &MachineConfig { kernel: kernel.path().into(), ..config }, &layout, 0).unwrap();
    let mut code = [0; 9];
    memory.read_slice(&mut code, GuestAddress(0xf_fff0)).unwrap();
    assert_eq!(code, [0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfd]);
}

#[test]
fn archives_lie_one_after_the_other_at_the_top() {
    let (config, layout, memory) = machine();
    let (kernel, first, second) = (file(&bzimage(0x20f, 3)), file(b"first"), file(b"second!!"));
    let initrds = vec![first.path().into(), second.path().into()];
    let config = MachineConfig { kernel: kernel.path().into(), initrds, ..config };
    load(&memory, &config, &layout, 0).unwrap();
    let params: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
    let (start, size) = (params.hdr.ramdisk_image, params.hdr.ramdisk_size);
    assert_eq!((start, size), ((64 << 20) - 4096, 16));
    let mut archives = [0; 16];
    memory.read_slice(&mut archives, GuestAddress(u64::from(start))).unwrap();
    assert_eq!(&archives, b"first\0\0\0second!!");
}

#[test]
fn persistent_memory_is_in_the_map() {
    let config = MachineConfig {
        memory: 64 << 20,
        pmem: vec![PmemConfig { backing: crate::config::PmemBacking::Anonymous, size: 4 << 20 }],
        ..MachineConfig::sample()
    };
    let layout = Layout::new(&config, 40).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
    let kernel = file(&bzimage(0x20f, 1));
    load(&memory, &MachineConfig { kernel: kernel.path().into(), ..config }, &layout, 0).unwrap();
    let params: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
    let last = params.e820_table[usize::from(params.e820_entries) - 1];
    let (address, size, kind) = (last.addr, last.size, last.r#type);
    assert_eq!((address, size, kind), (4 << 30, 4 << 20, 12));
}

#[test]
fn a_file_that_is_not_a_kernel_is_named() {
    for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01", &[0; 4096]] {
        let error = error(bytes);
        assert!(matches!(error, BootError::NotAKernel(_)), "{error}");
        assert!(error.to_string().contains("bzImage"));
    }
}

#[test]
fn a_kernel_for_another_processor_is_refused() {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(0x400, 0);
    elf[18..20].copy_from_slice(&183u16.to_le_bytes());
    assert!(matches!(error(&elf), BootError::NotAKernel(_)));
}

#[test]
fn a_damaged_kernel_is_reported() {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(0x400, 0xff);
    elf[18..20].copy_from_slice(&62u16.to_le_bytes());
    assert!(matches!(error(&elf), BootError::BadKernel { .. }));
    assert!(matches!(error(&bzimage(0x20f, 1)[..700]), BootError::BadKernel { .. }));
}

#[test]
fn a_32_bit_kernel_is_refused() {
    assert!(matches!(error(&bzimage(0x20f, 0)), BootError::No64BitEntry { .. }));
    let old = error(&bzimage(0x206, 1));
    assert!(old.to_string().contains("0x206"), "{old}");
}

#[test]
fn a_missing_kernel_is_named() {
    let (config, layout, memory) = machine();
    let error = load(&memory, &config, &layout, 0).unwrap_err().to_string();
    assert!(error.contains("kernel vmlinuz") && error.contains("No such file"), "{error}");
}

#[test]
fn too_little_memory_says_how_much_is_needed() {
    let (config, layout, memory) = machine();
    let (kernel, initrd) = (file(&bzimage(0x20f, 3)), tempfile::NamedTempFile::new().unwrap());
    initrd.as_file().set_len(48 << 20).unwrap();
    let initrds = vec![initrd.path().into()];
    let config = MachineConfig { kernel: kernel.path().into(), initrds, ..config };
    let error = load(&memory, &config, &layout, 0).unwrap_err();
    assert!(matches!(error, BootError::TooLittleMemory { memory: 64, kernel: 24, initrd: 48 }), "{error}");
}
