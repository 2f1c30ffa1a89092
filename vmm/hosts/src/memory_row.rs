//! Places RAM and persistent memory in a QEMU machine, and generates the options for that.
//!
//! QEMU lays out all memory in one row, NUMA node after NUMA node, with a hole below 4 GiB. So each persistent region is a
//! node of its own after the RAM, the hole starts where the RAM ends (at 2 GiB at most), and the kernel's command line says
//! which parts are persistent: `memmap=SIZE!START` makes an e820 region of type 12.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use refault_machine::config::{PmemBacking, PmemConfig};

/// For the kernel's command line: a kernel with emulated nodes (numa=fake=) does not boot with the real nodes that we use
/// to back memory with files.
pub(crate) const ONE_NODE: &str = "numa=noacpi";
/// Most bytes that q35 places below the hole if there is memory above it.
const LOW_MAX: u64 = 2 << 30;
/// Address at which the row continues after the hole.
const HIGH: u64 = 4 << 30;
/// Gap between two regions: the kernel would merge adjacent ones.
const GAP: u64 = 2 << 20;

/// The row of a machine's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryRow {
    /// RAM in bytes.
    pub(crate) ram: u64,
    /// Memory below the hole in bytes.
    pub(crate) low: u64,
    /// Guest-physical ranges of the persistent regions; each has a gap before it.
    pub(crate) pmem: Vec<Range<u64>>,
}

impl MemoryRow {
    /// Lays out `ram` bytes of RAM and persistent regions of these sizes, all multiples of 2 MiB.
    pub(crate) fn new(ram: u64, pmem: impl IntoIterator<Item = u64>) -> Self {
        let low = ram.min(LOW_MAX);
        let mut at = HIGH + (ram - low);
        let place = |size| {
            // Before the first one too: a kernel may reject RAM and a region in one 2 MiB page.
            let range = at + GAP..at + GAP + size;
            at = range.end;
            range
        };
        Self { ram, low, pmem: pmem.into_iter().map(place).collect() }
    }

    /// All memory in bytes, gaps included.
    pub(crate) fn total(&self) -> u64 {
        let sizes: u64 = self.pmem.iter().map(|range| GAP + (range.end - range.start)).sum();
        self.ram + sizes
    }

    /// End address of the RAM.
    pub(crate) fn ram_end(&self) -> u64 {
        if self.ram > self.low { HIGH + (self.ram - self.low) } else { self.ram }
    }

    /// Adds the memory to QEMU's command line. `pmem` are the regions from which the row was made. All `cpus` CPUs belong
    /// to the RAM's node.
    pub(crate) fn add(&self, command: &mut Command, pmem: &[PmemConfig], cpus: usize) {
        command.args(["-m", &format!("{}M", self.total() >> 20)]);
        let mut node = 0;
        let mut add = |object: serde_json::Value, cpus: &str| {
            command.args(["-object", &object.to_string()]);
            let id = object["id"].as_str().unwrap_or_default();
            command.args(["-numa", &format!("node,nodeid={node},memdev={id}{cpus}")]);
            node += 1;
        };
        add(memfd("ram", self.ram), &format!(",cpus=0-{}", cpus - 1));
        for (index, (region, range)) in pmem.iter().zip(&self.pmem).enumerate() {
            add(memfd(&format!("gap{index}"), GAP), "");
            let (id, size) = (format!("pmem{index}"), range.end - range.start);
            let object = match &region.backing {
                PmemBacking::Anonymous => memfd(&id, size),
                PmemBacking::Shared(path) | PmemBacking::Lent(path, _) => file(&id, size, path, false),
                PmemBacking::Private(path) => file(&id, size, path, true),
            };
            add(object, "");
        }
    }

    /// Arguments for the kernel's command line: regions are persistent, gaps are reserved.
    pub(crate) fn command_line(&self) -> String {
        let mut text = String::new();
        for region in &self.pmem {
            let (start, size) = (region.start, region.end - region.start);
            let _ = write!(text, " memmap={GAP:#x}${:#x} memmap={size:#x}!{start:#x}", start - GAP);
        }
        text
    }
}

fn memfd(id: &str, size: u64) -> serde_json::Value {
    serde_json::json!({ "qom-type": "memory-backend-memfd", "id": id, "size": size, "share": true })
}

fn file(id: &str, size: u64, path: &Path, readonly: bool) -> serde_json::Value {
    serde_json::json!({
        "qom-type": "memory-backend-file", "id": id, "size": size, "mem-path": own_path(path), "share": true,
        "readonly": readonly,
    })
}

/// QEMU would resolve a path below /proc/self to a file of its own process.
fn own_path(path: &Path) -> PathBuf {
    match path.strip_prefix("/proc/self") {
        Ok(rest) => Path::new("/proc").join(std::process::id().to_string()).join(rest),
        Err(_) => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn persistent_memory_begins_after_the_hole() {
        let layout = MemoryRow::new(1 << 30, [512 * MIB, 64 * MIB]);
        assert_eq!(layout.low, 1 << 30);
        assert_eq!(layout.pmem[0], HIGH + GAP..HIGH + GAP + 512 * MIB);
        assert_eq!(layout.pmem[1].start, layout.pmem[0].end + GAP);
        assert_eq!(layout.total(), (1 << 30) + 576 * MIB + 2 * GAP);
        assert!(layout.command_line().contains(" memmap=0x20000000!0x100200000"));
    }

    #[test]
    fn ram_beyond_two_gib_lies_before_persistent_memory() {
        let layout = MemoryRow::new(3 << 30, [64 * MIB]);
        assert_eq!((layout.low, layout.pmem[0].start), (2 << 30, (5 << 30) + GAP));
        assert_eq!((layout.ram_end(), MemoryRow::new(1 << 30, []).ram_end()), (5 << 30, 1 << 30));
    }
}
