//! Cores of the guest's memory: ELF files for crash, drgn and gdb.
//!
//! A core has the registers of each vCPU, the kernel's VMCOREINFO if it is found in memory, and all RAM by guest-physical
//! address. Pages of zeroes are holes in the file.

mod elf;
mod vmcoreinfo;

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use self::elf::CoreHeader;
use super::place::folder_of;
use super::registers::Registers;
use refault_os::message::note;

/// Size of a page in bytes, the granularity of holes.
const PAGE: usize = 4096;
/// Bytes read from guest memory at a time.
const CHUNK: usize = 1 << 20;

/// Informs the user that the guest was reset and that its memory is being written to `file`.
pub fn announce(file: &Path) {
    note(&format!("the guest was reset: writing its memory to {}", file.display()));
}

/// Informs the user that a core was written, or why not.
pub fn conclude(file: &Path, error: Option<&str>) {
    match error {
        Some(error) => note(&format!("no core in {}: {error}", file.display())),
        None => note(&format!("a core of the guest's memory is in {}", file.display())),
    }
}

/// Writes a core: the ranges `ram` of `memory`, and the registers of the vCPUs in order. The vCPUs must be halted;
/// concurrent writes by devices may or may not be included.
///
/// # Errors
/// The file cannot be written, for example because the disk is full. An existing file at that path is then unchanged.
pub fn write(file: &Path, memory: &GuestMemoryMmap, ram: &[Range<u64>], cpus: &[Registers]) -> Result<()> {
    let mut whole = tempfile::Builder::new()
        .prefix(".refault-core-")
        .tempfile_in(folder_of(file))
        .with_context(|| format!("cannot make a file in {}", folder_of(file).display()))?;
    let note = vmcoreinfo::find(memory, ram);
    let header = CoreHeader::new(ram, cpus, note.as_deref());
    whole.write_all(header.bytes())?;
    for segment in header.segments() {
        copy(memory, &segment.memory, whole.as_file(), segment.offset)?;
    }
    // The last pages may be a hole, which a seek alone does not create.
    whole.as_file().set_len(header.end())?;
    whole.as_file().sync_all()?;
    whole.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// Copies a range of guest memory to `offset` of a file, skipping pages of zeroes.
fn copy(memory: &GuestMemoryMmap, range: &Range<u64>, file: &File, offset: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = range.start;
    while at < range.end {
        let size = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        let chunk = buffer.get_mut(..size).unwrap_or_default();
        memory.read_slice(chunk, GuestAddress(at)).map_err(io::Error::other)?;
        let mut begin = offset + (at - range.start);
        for run in runs(chunk) {
            if !is_zero(run) {
                file.write_all_at(run, begin)?;
            }
            begin += run.len() as u64;
        }
        at += size as u64;
    }
    Ok(())
}

/// Splits a chunk into runs of pages that are all data or all zeroes.
fn runs(chunk: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = chunk;
    std::iter::from_fn(move || {
        let zero = is_zero(rest.chunks(PAGE).next()?);
        let pages = rest.chunks(PAGE).take_while(|page| is_zero(page) == zero).map(<[u8]>::len).sum();
        let (run, behind) = rest.split_at_checked(pages)?;
        rest = behind;
        Some(run)
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// 64 MiB with some data at both ends of the RAM, and a region after it that is not RAM.
    fn memory() -> GuestMemoryMmap {
        let ranges = [(GuestAddress(0), 64 << 20), (GuestAddress(128 * MIB), 2 << 20)];
        let memory = GuestMemoryMmap::from_ranges(&ranges).expect("memory");
        memory.write_slice(b"first", GuestAddress(0x7000)).expect("RAM");
        memory.write_slice(b"last", GuestAddress(64 * MIB - 4)).expect("RAM");
        memory.write_slice(b"not RAM", GuestAddress(128 * MIB)).expect("memory");
        memory
    }

    fn ram(mib: u64) -> Range<u64> {
        0..mib * MIB
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    #[test]
    fn a_core_has_all_ram_at_the_offsets_in_its_headers_and_holes_for_zeroes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("core");
        write(&file, &memory(), &[ram(64)], &[Registers::default()]).expect("written");
        let bytes = std::fs::read(&file).expect("a core");
        assert_eq!(&bytes[..4], b"\x7fELF");
        let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
        let headers: Vec<_> = (0..count).map(|index| &bytes[64 + index * 56..]).collect();
        let loads: Vec<_> = headers.iter().filter(|header| header[0] == 1).collect();
        assert_eq!(loads.iter().map(|load| u64_at(load, 32)).sum::<u64>(), 64 * MIB);
        let byte = |address: u64| {
            let inside =
                |load: &&&&[u8]| (u64_at(load, 24)..u64_at(load, 24) + u64_at(load, 32)).contains(&address);
            let load = loads.iter().find(inside).expect("a segment");
            bytes[usize::try_from(u64_at(load, 8) + address - u64_at(load, 24)).expect("small")]
        };
        assert_eq!((byte(0x7000), byte(64 * MIB - 1), byte(5 * MIB)), (b'f', b't', 0));
        let meta = std::fs::metadata(&file).expect("metadata");
        assert!(meta.blocks() * 512 < MIB, "{} blocks of 512 bytes for two pages of data", meta.blocks());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "something is left");
    }

    #[test]
    fn a_failed_core_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        // RAM that does not exist stands for any failure half way.
        let file = folder.path().join("core");
        assert!(write(&file, &memory(), &[ram(65)], &[]).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let error = write(Path::new("/nonexistent/core"), &memory(), &[], &[]).expect_err("no folder");
        assert!(format!("{error:#}").contains("/nonexistent"), "{error:#}");
    }

    #[test]
    fn runs_are_uniform_and_cover_the_chunk() {
        let mut chunk = vec![0; 5 * PAGE + 100];
        chunk[PAGE] = 1;
        chunk[2 * PAGE + 7] = 1;
        let sizes: Vec<_> = runs(&chunk).map(|run| (run.len(), is_zero(run))).collect();
        assert_eq!(sizes, [(PAGE, true), (2 * PAGE, false), (2 * PAGE + 100, true)]);
    }
}
