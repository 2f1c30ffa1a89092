//! The state in which a 64-bit kernel must be entered: long mode, flat segments, identity-mapped memory
//! (Documentation/arch/x86/boot.rst, "64-bit boot protocol").

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use refault_bus::bits::low_u16;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::memory::layout::{GDT, PAGE_TABLES, ZERO_PAGE};

/// Selectors that the boot protocol requires: code at 0x10, data at 0x18.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// Descriptors for the selectors: null, unused, 64-bit code, data, busy task state.
const DESCRIPTORS: [u64; 5] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067];

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// A page table entry that is present and writable.
const TABLE: u64 = 0b11;
/// The same as a leaf of 2 MiB.
const LARGE: u64 = 1 << 7 | TABLE;
const PAGE: u64 = 0x1000;

/// Writes descriptors, and page tables that identity-map the first 4 GiB.
///
/// # Errors
/// Guest memory is missing at these addresses.
pub fn write_tables(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    for (descriptor, index) in DESCRIPTORS.into_iter().zip(0u64..) {
        memory.write_obj(descriptor, GuestAddress(GDT + index * 8))?;
    }
    let pointers = PAGE_TABLES + PAGE;
    memory.write_obj(pointers | TABLE, GuestAddress(PAGE_TABLES))?;
    for gib in 0..4 {
        let directory = pointers + (gib + 1) * PAGE;
        memory.write_obj(directory | TABLE, GuestAddress(pointers + gib * 8))?;
        for entry in 0..512 {
            let frame = gib << 30 | entry << 21;
            memory.write_obj(frame | LARGE, GuestAddress(directory + entry * 8))?;
        }
    }
    Ok(())
}

/// Sets the special registers of a vCPU after reset.
pub(super) fn enter(sregs: &mut kvm_sregs) {
    let segment = |selector, type_| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = kvm_segment { l: 1, ..segment(CODE, 0xb) };
    let data = kvm_segment { db: 1, ..segment(DATA, 0x3) };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment { limit: 0x67, s: 0, g: 0, ..segment(TASK, 0xb) };
    sregs.gdt =
        kvm_dtable { base: GDT, limit: low_u16(size_of_val(&DESCRIPTORS) as u64) - 1, ..Default::default() };
    sregs.idt = kvm_dtable { base: 0, limit: 0, ..Default::default() };
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 |= CR4_PAE;
    sregs.cr0 |= CR0_PE | CR0_ET | CR0_PG;
    sregs.efer |= EFER_LME | EFER_LMA;
}

/// The general registers at the kernel's entry: interrupts off, boot parameters in RSI.
pub(super) fn entry_registers(entry: u64) -> kvm_regs {
    kvm_regs { rip: entry, rsi: ZERO_PAGE, rflags: 1 << 1, ..kvm_regs::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tables as the processor does.
    fn walk(memory: &GuestMemoryMmap, address: u64) -> u64 {
        let entry = |table: u64, shift: u32| -> u64 {
            memory.read_obj(GuestAddress((table & !0xfff) + (address >> shift & 511) * 8)).unwrap()
        };
        let directory = entry(entry(PAGE_TABLES, 39), 30);
        let leaf = entry(directory, 21);
        assert_eq!(leaf & LARGE, LARGE);
        leaf & !0x1f_ffff | address & 0x1f_ffff
    }

    #[test]
    fn the_first_4_gib_are_mapped_one_to_one() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write_tables(&memory).unwrap();
        for address in [0, 0x1234, 0x10_0200, 0x3fff_ffff, 0xbfff_f000, 0xffff_ffff] {
            assert_eq!(walk(&memory, address), address);
        }
    }

    #[test]
    fn segments_agree_with_their_descriptors() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write_tables(&memory).unwrap();
        let mut sregs = kvm_sregs::default();
        enter(&mut sregs);
        for segment in [sregs.cs, sregs.ds, sregs.ss] {
            let at = sregs.gdt.base + u64::from(segment.selector);
            let descriptor: u64 = memory.read_obj(GuestAddress(at)).unwrap();
            assert_eq!(descriptor >> 40 & 0xf, u64::from(segment.type_));
            assert_eq!(descriptor >> 53 & 1, u64::from(segment.l));
        }
        assert_eq!(u64::from(sregs.gdt.limit), 5 * 8 - 1);
    }
}
