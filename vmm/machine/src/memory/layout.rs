//! The guest's physical address space: every fixed address is defined here.
//!
//! ```text
//! 0000_0000 .. 000a_0000   RAM: boot structures
//! 000e_0000 .. 000f_0000   ACPI tables (RAM, reserved)
//! 000f_fff0                real-mode reset vector (RAM, reserved)
//! 0010_0000 .. c000_0000   RAM: kernel, initial RAM file systems
//! c000_0000 .. e000_0000   PCI memory, 32 bits
//! e000_0000 .. e010_0000   ECAM: config space of bus 0
//! fec0_0000                I/O APIC (KVM)
//! fed9_0000                IOMMU registers
//! fee0_0000                local APICs (KVM), message-signalled interrupts
//! 1_0000_0000 ..           RAM that does not fit below, then each persistent region at a whole GiB,
//!                          then PCI memory, 64 bits
//! ```

use std::ops::Range;

use thiserror::Error;

use crate::config::MachineConfig;

/// One GiB in bytes.
const GIB: u64 = 1 << 30;

/// Segment descriptors of the first vCPU.
pub const GDT: u64 = 0x500;
/// The kernel's boot parameters.
pub const ZERO_PAGE: u64 = 0x7000;
/// Extra boot parameters: the seed of the kernel's random numbers.
pub const SETUP_DATA: u64 = 0x8000;
/// Initial page tables of the first vCPU: six pages.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Room for the command line in bytes, terminating zero included.
pub const CMDLINE_SIZE: usize = 0x1_0000;
/// End of the RAM below the ISA hole that the kernel may use.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables, in the region where firmware keeps them.
pub const ACPI: Range<u64> = 0xe_0000..0xf_0000;
/// The real-mode reset vector: the last 16 bytes below 1 MiB.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// First byte of the RAM above the ISA hole; kernels are loaded here.
pub const HIGH_RAM: u64 = 0x10_0000;
/// PCI memory for 32-bit BARs.
pub const PCI_MMIO32: Range<u64> = 0xc000_0000..0xe000_0000;
/// Memory-mapped config space of bus 0.
pub const ECAM: Range<u64> = 0xe000_0000..0xe010_0000;
/// Registers of KVM's I/O APIC.
pub const IOAPIC: u32 = 0xfec0_0000;
/// The IOMMU's register page.
pub const IOMMU: Range<u64> = 0xfed9_0000..0xfed9_1000;
/// Registers of the local APICs.
pub const LAPIC: u32 = 0xfee0_0000;
/// Page tables with which Intel processors run a guest's real mode: one of four unused pages.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Task state segment for the same purpose: three pages.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// End of the RAM below 4 GiB, if there is that much.
const RAM32_END: u64 = PCI_MMIO32.start;
/// Start of RAM and everything else above the hole.
const ABOVE_4G: u64 = 4 * GIB;
/// Size of the 64-bit window in bytes.
const PCI_MMIO64_SIZE: u64 = 64 * GIB;

/// Addresses of those parts of a machine that depend on its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// RAM: from zero, and from 4 GiB if there is more than fits below.
    pub ram: Vec<Range<u64>>,
    /// Persistent memory regions, in the order of the configuration.
    pub pmem: Vec<Range<u64>>,
    /// PCI memory for BARs that are too large for the 32-bit window.
    pub pci_mmio64: Range<u64>,
}

/// The machine is too large for the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "RAM and persistent memory reach up to {end:#x}, but this host's processor gives a guest only \
     {bits} address bits; use less memory or fewer persistent regions"
)]
pub struct LayoutError {
    /// End address of the last part.
    pub end: u64,
    /// Width of the guest's physical addresses in bits.
    pub bits: u8,
}

impl Layout {
    /// Lays out a machine whose guest has `bits` physical address bits.
    ///
    /// # Errors
    /// The last part would end beyond what `bits` can address.
    pub fn new(config: &MachineConfig, bits: u8) -> Result<Self, LayoutError> {
        let low = config.memory.min(RAM32_END);
        let mut ram = vec![Range { start: 0, end: low }];
        let mut end = ABOVE_4G.saturating_add(config.memory - low);
        if config.memory > low {
            ram.push(ABOVE_4G..end);
        }
        let mut pmem = Vec::with_capacity(config.pmem.len());
        for region in &config.pmem {
            // Whole GiBs keep regions in separate memory sections of the kernel, and allow large pages.
            let start = round_up(end, GIB);
            end = start.saturating_add(region.size);
            pmem.push(start..end);
        }
        let start = round_up(end, PCI_MMIO64_SIZE);
        let end = start.saturating_add(PCI_MMIO64_SIZE);
        let limit = 1u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX);
        if end > limit {
            return Err(LayoutError { end, bits });
        }
        Ok(Self { ram, pmem, pci_mmio64: start..end })
    }

    /// End of the RAM below 4 GiB.
    pub fn low_ram_end(&self) -> u64 {
        self.ram.first().map_or(0, |range| range.end)
    }
}

/// The type of a range in the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820 {
    /// RAM that the kernel may use.
    Ram = 1,
    /// Reserved: the kernel must not use it.
    Reserved = 2,
    /// Persistent memory that no firmware table describes: the kernel makes /dev/pmem of it.
    Persistent = 12,
}

impl Layout {
    /// The memory map, in ascending order.
    pub fn e820(&self) -> Vec<(Range<u64>, E820)> {
        let mut map = vec![
            (0..LOW_RAM_END, E820::Ram),
            (LOW_RAM_END..HIGH_RAM, E820::Reserved),
            (HIGH_RAM..self.low_ram_end(), E820::Ram),
            (ECAM, E820::Reserved),
        ];
        map.extend(self.ram.iter().skip(1).map(|range| (range.clone(), E820::Ram)));
        map.extend(self.pmem.iter().map(|range| (range.clone(), E820::Persistent)));
        map
    }
}

fn round_up(value: u64, unit: u64) -> u64 {
    value.checked_next_multiple_of(unit).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PmemBacking, PmemConfig};

    fn config(memory: u64, pmem: &[u64]) -> MachineConfig {
        let pmem = pmem.iter().map(|&size| PmemConfig { backing: PmemBacking::Anonymous, size });
        MachineConfig { memory, pmem: pmem.collect(), ..MachineConfig::sample() }
    }

    #[test]
    fn little_ram_stays_below_the_pci_window() {
        let layout = Layout::new(&config(GIB, &[]), 40).unwrap();
        assert_eq!(layout.ram, vec![Range { start: 0, end: GIB }]);
        assert!(layout.pmem.is_empty());
    }

    #[test]
    fn more_ram_continues_at_4_gib() {
        let layout = Layout::new(&config(5 * GIB, &[]), 40).unwrap();
        assert_eq!(layout.ram, [0..3 * GIB, 4 * GIB..6 * GIB]);
    }

    #[test]
    fn persistent_regions_start_at_whole_gibs_after_ram() {
        let layout = Layout::new(&config(3 * GIB + (2 << 20), &[64 << 20, 2 * GIB, 2 << 20]), 40).unwrap();
        assert_eq!(layout.ram[1], 4 * GIB..4 * GIB + (2 << 20));
        assert_eq!(
            layout.pmem,
            [5 * GIB..5 * GIB + (64 << 20), 6 * GIB..8 * GIB, 8 * GIB..8 * GIB + (2 << 20),]
        );
        assert_eq!(layout.pci_mmio64, 64 * GIB..128 * GIB);
    }

    #[test]
    fn the_memory_map_is_ascending_and_says_what_is_persistent() {
        let map = Layout::new(&config(4 * GIB, &[GIB, GIB]), 40).unwrap().e820();
        assert!(map.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start), "{map:x?}");
        let total = |kind| -> u64 {
            map.iter().filter(|entry| entry.1 == kind).map(|(range, _)| range.end - range.start).sum()
        };
        assert_eq!(total(E820::Ram), 4 * GIB - (HIGH_RAM - LOW_RAM_END));
        assert_eq!(total(E820::Persistent), 2 * GIB);
        assert_eq!(E820::Persistent as u32, 12);
    }

    #[test]
    fn nothing_of_the_fixed_layout_overlaps() {
        let tss = KVM_IDENTITY_MAP..KVM_TSS + 0x3000;
        let page = |start: u32| u64::from(start)..u64::from(start) + 0x1000;
        let ram = Range { start: 0, end: RAM32_END };
        let fixed = [ram, PCI_MMIO32, ECAM, page(IOAPIC), IOMMU, page(LAPIC), tss];
        assert!(fixed.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let low = [GDT, ZERO_PAGE, SETUP_DATA, PAGE_TABLES, PAGE_TABLES + 0x6000, CMDLINE];
        assert!(low.is_sorted() && CMDLINE + CMDLINE_SIZE as u64 <= LOW_RAM_END);
    }

    #[test]
    fn a_machine_too_large_for_the_host_is_refused_with_the_reason() {
        let error = Layout::new(&config(GIB, &[1 << 40]), 40).unwrap_err();
        assert!(error.to_string().contains("40 address bits"), "{error}");
        assert!(Layout::new(&config(GIB, &[!(GIB - 1)]), 48).is_err());
    }
}
