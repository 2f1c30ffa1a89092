//! VMCOREINFO, the guest kernel's description of itself for debuggers: an ELF note that it keeps at the start of a page
//! (kernel/vmcore_info.c).

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::PAGE;

/// Size of the name, size of the text, type; then the name, padded to four bytes; then the text.
const NAME: &[u8] = b"VMCOREINFO\0\0";
const NAME_SIZE: u32 = 11;
const TEXT: usize = 12 + NAME.len();
/// The start of the text.
const BEGIN: &[u8] = b"OSRELEASE=";
/// Longest text accepted, in bytes; the kernel limits it to a page.
const TEXT_MAX: u32 = 64 << 10;

/// Finds the text in the ranges `ram`.
pub(super) fn find(memory: &GuestMemoryMmap, ram: &[Range<u64>]) -> Option<Vec<u8>> {
    ram.iter().flat_map(|range| range.clone().step_by(PAGE)).find_map(|page| at(memory, page))
}

/// The text of the note at `address`, if there is one.
fn at(memory: &GuestMemoryMmap, address: u64) -> Option<Vec<u8>> {
    let mut start = [0; TEXT + BEGIN.len()];
    memory.read_slice(&mut start, GuestAddress(address)).ok()?;
    let (head, begin) = start.split_at_checked(TEXT)?;
    let (words, name) = head.split_at_checked(12)?;
    let word = |at: usize| Some(u32::from_le_bytes(*words.get(at..)?.first_chunk()?));
    let size = word(4)?;
    if word(0)? != NAME_SIZE || word(8)? != 0 || name != NAME || begin != BEGIN || size > TEXT_MAX {
        return None;
    }
    let mut text = vec![0; size as usize];
    memory.read_slice(&mut text, GuestAddress(address + TEXT as u64)).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &[u8] = b"OSRELEASE=7.2.12\nPAGESIZE=4096\n";

    fn note(size: u32) -> Vec<u8> {
        let words = [NAME_SIZE, size, 0].map(u32::to_le_bytes).concat();
        [&words[..], NAME, WORDS].concat()
    }

    fn search(address: u64, note: &[u8]) -> Option<Vec<u8>> {
        let ranges = [(GuestAddress(0), 1 << 20), (GuestAddress(4 << 20), 1 << 20)];
        let memory = GuestMemoryMmap::from_ranges(&ranges).expect("memory");
        memory.write_slice(note, GuestAddress(address)).expect("memory");
        find(&memory, &[0..1 << 20, 4 << 20..5 << 20])
    }

    #[test]
    fn the_kernels_note_is_found_at_the_beginning_of_a_page() {
        let whole = note(WORDS.len() as u32);
        for address in [0, 0x3000, (5 << 20) - 0x1000] {
            assert_eq!(search(address, &whole).as_deref(), Some(WORDS), "{address:#x}");
        }
        assert_eq!(search(0x3008, &whole), None, "a copy that is not the note");
    }

    #[test]
    fn malformed_notes_are_ignored() {
        assert_eq!(search(0x3000, &note(u32::MAX)), None, "longer than any");
        assert_eq!(search((5 << 20) - 0x1000, &note(0x1000)), None, "longer than the memory");
        assert_eq!(search(0x3000, &note(0)[..20]), None, "no text");
        let mut other = note(WORDS.len() as u32);
        other[8] = 1;
        assert_eq!(search(0x3000, &other), None, "another type");
    }
}
