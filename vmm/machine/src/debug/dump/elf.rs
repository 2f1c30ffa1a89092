//! The headers of a core file: ELF header, program headers, notes.
//!
//! The layout is that of QEMU's `dump-guest-memory` without paging: virtual addresses equal physical ones.

use std::ops::Range;

use super::PAGE;
use crate::debug::registers::Registers;
use crate::memory::layout::HIGH_RAM;

const HEADER_SIZE: u16 = 64;
const PROGRAM_HEADER_SIZE: u16 = 56;
const MACHINE_X86_64: u16 = 62;
const TYPE_CORE: u16 = 4;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const NT_PRSTATUS: u32 = 1;
/// Size in bytes of the kernel's `struct elf_prstatus`, and the offsets of the process number and registers in it.
const PRSTATUS_SIZE: usize = 336;
const PRSTATUS_PID: usize = 32;
const PRSTATUS_REGISTERS: usize = 112;

/// One range of memory and its offset in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CoreSegment {
    /// Guest-physical addresses.
    pub(super) memory: Range<u64>,
    /// Offset of its first byte in the file.
    pub(super) offset: u64,
}

/// The headers of one core.
pub(super) struct CoreHeader {
    bytes: Vec<u8>,
    segments: Vec<CoreSegment>,
}

impl CoreHeader {
    /// Headers for the RAM ranges `ram`, the vCPUs' registers, and the guest's own VMCOREINFO.
    pub(super) fn new(ram: &[Range<u64>], cpus: &[Registers], vmcoreinfo: Option<&[u8]>) -> Self {
        let mut notes = Vec::new();
        for (registers, process) in cpus.iter().zip(1u32..) {
            note(&mut notes, b"CORE", NT_PRSTATUS, &status(registers, process));
        }
        if let Some(text) = vmcoreinfo {
            note(&mut notes, b"VMCOREINFO", 0, text);
        }
        let ram = parts(ram);
        // RAM is a few ranges.
        let headers = u16::try_from(1 + ram.len()).unwrap_or(u16::MAX);
        let at = usize::from(HEADER_SIZE) + usize::from(PROGRAM_HEADER_SIZE) * usize::from(headers);
        let mut offset = (at + notes.len()).next_multiple_of(PAGE) as u64;
        let mut segments = Vec::with_capacity(ram.len());
        for memory in ram {
            let size = memory.end - memory.start;
            segments.push(CoreSegment { memory, offset });
            offset += size;
        }
        let mut bytes = file_header(headers);
        program_header(&mut bytes, PT_NOTE, at as u64, 0, notes.len() as u64);
        for CoreSegment { memory, offset } in &segments {
            program_header(&mut bytes, PT_LOAD, *offset, memory.start, memory.end - memory.start);
        }
        bytes.append(&mut notes);
        Self { bytes, segments }
    }

    /// The bytes at the start of the file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The memory ranges that follow the headers.
    pub(super) fn segments(&self) -> &[CoreSegment] {
        &self.segments
    }

    /// Size of the whole file in bytes.
    pub(super) fn end(&self) -> u64 {
        let last = self.segments.last();
        last.map_or(self.bytes.len() as u64, |last| last.offset + (last.memory.end - last.memory.start))
    }
}

/// RAM, split at 1 MiB: drgn takes a core whose segments all have physical address 0 for one without physical addresses.
fn parts(ram: &[Range<u64>]) -> Vec<Range<u64>> {
    let cut = |range: &Range<u64>| match range.contains(&HIGH_RAM) && range.start < HIGH_RAM {
        true => vec![range.start..HIGH_RAM, HIGH_RAM..range.end],
        false => vec![range.clone()],
    };
    ram.iter().flat_map(cut).collect()
}

fn file_header(program_headers: u16) -> Vec<u8> {
    // 64 bits, little-endian, version 1.
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(TYPE_CORE.to_le_bytes());
    bytes.extend(MACHINE_X86_64.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    // No entry point; program headers after this one; no section headers; no flags.
    for word in [0, u64::from(HEADER_SIZE), 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    for half in [HEADER_SIZE, PROGRAM_HEADER_SIZE, program_headers, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    bytes
}

fn program_header(bytes: &mut Vec<u8>, kind: u32, offset: u64, address: u64, size: u64) {
    bytes.extend(kind.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    // Offset, virtual and physical address, size in the file and in memory, alignment.
    for word in [offset, address, address, size, size, 0] {
        bytes.extend(word.to_le_bytes());
    }
}

fn note(notes: &mut Vec<u8>, name: &[u8], kind: u32, text: &[u8]) {
    let with_zero = name.len() + 1;
    let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    for word in [size(with_zero), size(text.len()), kind] {
        notes.extend(word.to_le_bytes());
    }
    notes.extend(name);
    notes.resize(notes.len() + with_zero.next_multiple_of(4) - name.len(), 0);
    notes.extend(text);
    notes.resize(notes.len().next_multiple_of(4), 0);
}

/// The kernel's `struct elf_prstatus` for a vCPU, shown as a process.
fn status(registers: &Registers, process: u32) -> Vec<u8> {
    let mut status = vec![0; PRSTATUS_PID];
    status.extend(process.to_le_bytes());
    status.resize(PRSTATUS_REGISTERS, 0);
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] = registers.general;
    let [cs, ss, ds, es, fs, gs] = registers.selectors.map(u64::from);
    // `struct user_regs_struct`; the field after RDI is the number of a system call, which this is not.
    let words = [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        u64::MAX,
        registers.rip,
        cs,
        registers.rflags,
        rsp,
        ss,
        registers.fs_base,
        registers.gs_base,
        ds,
        es,
        fs,
        gs,
    ];
    status.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    status.resize(PRSTATUS_SIZE, 0);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    fn half(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    /// Names and contents of all notes, found through the first program header.
    fn notes(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (at, size) = (word(bytes, 64 + 8) as usize, word(bytes, 64 + 32) as usize);
        let mut rest = &bytes[at..at + size];
        let mut notes = Vec::new();
        while !rest.is_empty() {
            let (name, text) = (half(rest, 0) as usize, half(rest, 4) as usize);
            let begin = 12 + name.next_multiple_of(4);
            notes.push((rest[12..12 + name].to_vec(), rest[begin..begin + text].to_vec()));
            rest = &rest[begin + text.next_multiple_of(4)..];
        }
        notes
    }

    #[test]
    fn a_core_has_the_registers_of_each_vcpu_and_vmcoreinfo() {
        let cpu =
            |rip| Registers { rip, gs_base: 7, selectors: [0x10, 0x18, 0, 0, 0, 0], ..Registers::default() };
        let ram = Range { start: 0, end: 2 * MIB };
        let header = CoreHeader::new(&[ram], &[cpu(0x1234), cpu(0x5678)], Some(b"OSRELEASE=7.2\n"));
        let notes = notes(header.bytes());
        let names: Vec<_> = notes.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, [&b"CORE\0"[..], b"CORE\0", b"VMCOREINFO\0"]);
        assert_eq!(notes[2].1, b"OSRELEASE=7.2\n");
        for (index, rip) in [(0, 0x1234), (1, 0x5678)] {
            let status = &notes[index].1;
            assert_eq!(status.len(), PRSTATUS_SIZE);
            assert_eq!(half(status, PRSTATUS_PID), index as u32 + 1);
            let register = |index: usize| word(status, PRSTATUS_REGISTERS + index * 8);
            assert_eq!((register(16), register(17), register(20), register(22)), (rip, 0x10, 0x18, 7));
        }
    }

    #[test]
    fn segments_have_physical_addresses_and_begin_at_pages() {
        let header = CoreHeader::new(&[0..3 << 30, 4 << 30..5 << 30], &[], None);
        let at = |index: usize| 64 + 56 * index;
        let bytes = header.bytes();
        let segments: Vec<_> =
            (1..4).map(|index| (word(bytes, at(index) + 24), word(bytes, at(index) + 32))).collect();
        assert_eq!(segments, [(0, MIB), (MIB, (3 << 30) - MIB), (4 << 30, 1 << 30)]);
        for index in 1..4 {
            assert_eq!(half(bytes, at(index)), PT_LOAD);
            assert_eq!(word(bytes, at(index) + 16), word(bytes, at(index) + 24));
            assert!(word(bytes, at(index) + 8).is_multiple_of(PAGE as u64));
        }
        assert_eq!(header.end(), word(bytes, at(3) + 8) + (1 << 30));
        assert_eq!(u32::from(u16::from_le_bytes([bytes[56], bytes[57]])), 4);
    }
}
