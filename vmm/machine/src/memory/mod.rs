//! Guest memory: RAM and persistent regions, mapped into this process.

mod huge_pages;
pub mod layout;
pub mod pmem;
mod window;

use std::sync::Arc;

use anyhow::Context;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::config::MachineConfig;
use layout::Layout;
pub use pmem::Backing;
use refault_os::sigbus;

/// Maps all memory of a machine. Pages are allocated when they are first touched.
///
/// # Errors
/// The host has too little memory, or a file cannot be opened, locked or mapped.
pub fn map(config: &MachineConfig, layout: &Layout) -> anyhow::Result<Arc<GuestMemoryMmap>> {
    let mut regions = Vec::new();
    for range in &layout.ram {
        let size = range.end - range.start;
        let region = map_region(Backing::NONE, range.start, size)
            .with_context(|| format!("cannot map {} MiB of guest RAM; use less memory", size >> 20))?;
        huge_pages::advise(&region);
        regions.push(region);
    }
    for (region, range) in config.pmem.iter().zip(&layout.pmem) {
        let backing = pmem::open(region)?;
        let region = map_region(backing, range.start, region.size).with_context(|| {
            format!(
                "cannot map persistent memory file {}; a shared one must lie on a file system that can map it (9p \
                 only with cache=mmap)",
                region.backing
            )
        })?;
        regions.push(region);
    }
    Ok(Arc::new(GuestMemoryMmap::from_regions(regions)?))
}

/// Maps one region at guest-physical address `start`.
///
/// # Errors
/// The file is too short, or the host cannot map it.
pub fn map_region(backing: Backing, start: u64, size: u64) -> anyhow::Result<GuestRegionMmap> {
    let flags = if backing.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let anonymous = if backing.file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
    let mut builder = MmapRegionBuilder::new(usize::try_from(size)?)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags | anonymous | libc::MAP_NORESERVE);
    if let Some(at) = backing.at {
        builder = window::open(builder, at, usize::try_from(size)?)?;
    }
    if let Some(file) = backing.file {
        builder = builder.with_file_offset(file);
    }
    let region = builder.build()?;
    if let Some(file) = region.file_offset() {
        let at = region.as_ptr() as usize;
        sigbus::explain(file.file(), at..at + region.size());
    }
    GuestRegionMmap::new(region, GuestAddress(start)).context("address out of range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PmemBacking, PmemConfig};
    use vm_memory::{Bytes, GuestMemoryBackend};

    fn machine(backing: PmemBacking) -> (MachineConfig, Layout) {
        let pmem = vec![PmemConfig { backing, size: 2 << 20 }];
        let config = MachineConfig { memory: 64 << 20, pmem, ..MachineConfig::sample() };
        let layout = Layout::new(&config, 40).unwrap();
        (config, layout)
    }

    fn file() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 << 20).unwrap();
        file
    }

    #[test]
    fn a_shared_file_keeps_what_the_guest_wrote() {
        let file = file();
        let (config, layout) = machine(PmemBacking::Shared(file.path().into()));
        let memory = map(&config, &layout).unwrap();
        memory.write_slice(b"refault", GuestAddress(layout.pmem[0].start + 4096)).unwrap();
        drop(memory);
        assert_eq!(&std::fs::read(file.path()).unwrap()[4096..4103], b"refault");
    }

    #[test]
    fn a_private_file_never_changes() {
        let file = file();
        let (config, layout) = machine(PmemBacking::Private(file.path().into()));
        let memory = map(&config, &layout).unwrap();
        memory.write_slice(b"refault", GuestAddress(layout.pmem[0].start)).unwrap();
        drop(memory);
        assert_eq!(std::fs::read(file.path()).unwrap()[..7], [0; 7]);
    }

    #[test]
    fn anonymous_memory_needs_no_file() {
        let (config, layout) = machine(PmemBacking::Anonymous);
        let memory = map(&config, &layout).unwrap();
        assert_eq!(memory.num_regions(), 2);
        assert!(memory.write_slice(&[1], GuestAddress(layout.pmem[0].end)).is_err());
    }

    #[test]
    fn the_lock_lasts_as_long_as_the_memory() {
        let file = file();
        let (config, layout) = machine(PmemBacking::Shared(file.path().into()));
        let memory = map(&config, &layout).unwrap();
        assert!(map(&config, &layout).is_err());
        drop(memory);
        assert!(map(&config, &layout).is_ok());
    }
}
