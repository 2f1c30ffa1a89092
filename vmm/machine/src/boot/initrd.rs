//! Initial RAM file systems: archives one after the other, as high in low memory as they fit.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::BootError;

const PAGE: u64 = 0x1000;
/// Each archive starts at a multiple of this; the kernel skips zeroes between archives.
const ARCHIVE_ALIGN: u64 = 4;

/// Loads `files` at the end of `room` and returns their range, which is empty if there are none.
pub(super) fn load(
    memory: &GuestMemoryMmap,
    files: &[PathBuf],
    room: Range<u64>,
) -> Result<Range<u64>, BootError> {
    let mut archives = Vec::with_capacity(files.len());
    let mut total = 0u64;
    for path in files {
        let (file, size) = open(path)?;
        archives.push((path, file, total, size));
        total = total.saturating_add(size).next_multiple_of(ARCHIVE_ALIGN);
    }
    let start = room.end.checked_sub(total).map(|start| start & !(PAGE - 1));
    let Some(start) = start.filter(|&start| start >= room.start) else {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        return Err(BootError::TooLittleMemory {
            memory: mib(room.end),
            kernel: mib(room.start),
            initrd: mib(total),
        });
    };
    for (path, mut file, offset, size) in archives {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        memory.read_exact_volatile_from(GuestAddress(start + offset), &mut file, size).map_err(|error| {
            let source = std::io::Error::other(error);
            BootError::Read { what: "initial RAM file system", path: path.clone(), source }
        })?;
    }
    Ok(start..start + total)
}

fn open(path: &Path) -> Result<(File, u64), BootError> {
    let read = |source| BootError::Read { what: "initial RAM file system", path: path.into(), source };
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    Ok((file, size))
}
