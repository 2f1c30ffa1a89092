//! Tables: context entries, PASID directories and tables, page tables, with any contents.
//!
//! **Invariant.** Once all caches have been flushed, the unit answers like one that has never cached anything: the same
//! translation or the same error. Each answer takes one walk at most, and changes only accessed and dirty bits of
//! entries that are present.

use std::sync::Arc;

use refault_bus::ats::{RequestKind, TranslationAgent, TranslationRequest};
use refault_bus::mmio::MmioDevice;
use refault_bus::probe::NoProbe;
use refault_bus::{Gpa, Iova};
use refault_iommu::Iommu;
use refault_iommu::spec::registers::offset as reg;
use refault_model::memory::FRAME;
use refault_model::paging::PageTableEntry;

use super::{AREA, DEVICE, Doing, PASID, SMALL, WALK_MAX, World, registers};
use crate::fuzz::OPERATIONS_MAX;
use crate::fuzz::feed::Feed;

/// Pages of the process that have tables.
const PAGES: u64 = 8;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let world = World::new();
    world.kernel.process.populate(AREA, PAGES * FRAME).expect("memory");
    let mut feed = Feed::new(bytes);
    // Whether the tables changed since the last flush: then cached entries may answer.
    let mut is_stale = false;
    for _ in 0..OPERATIONS_MAX {
        if feed.is_empty() {
            break;
        }
        match feed.below(8) {
            0..=2 => {
                edit(&world, &mut feed);
                is_stale = true;
            }
            3 => {
                assert!(world.flush_all(), "the queue runs, whatever the tables hold");
                is_stale = false;
            }
            _ => compare(&world, &mut feed, is_stale),
        }
    }
    world.recovers();
}

/// Changes one quadword of a table.
fn edit(world: &World, feed: &mut Feed<'_>) {
    let (function, process) = (&world.kernel.function, &world.kernel.process);
    let (context, directory) = function.tables();
    let value = entry(feed);
    let at = match feed.below(8) {
        0 => Gpa(context.0 + 8 * feed.below(4) as u64),
        1 => Gpa(directory.0 + 8 * feed.below(2) as u64),
        2 => {
            let quad = 8 * feed.below(4) as u64;
            let Ok(entry) = function.pasid_entry(PASID) else { return };
            Gpa(entry.0 + quad)
        }
        3 => Gpa(u64::from(feed.half()) * 8),
        level => {
            let page = Iova(AREA.0 + feed.below(8) as u64 * FRAME);
            let _ = process.space.set_raw(page, level as u8 - 3, PageTableEntry(value));
            return;
        }
    };
    let value = if feed.flag() { value } else { value ^ world.ram.load_u64(at).unwrap_or(0) };
    let _ = world.ram.store_u64(at, value);
}

/// An entry of a page table: mostly one that points to the start of memory, where tables are.
fn entry(feed: &mut Feed<'_>) -> u64 {
    match feed.below(8) {
        0 => feed.word(),
        1 => 1 << feed.below(64),
        2..=4 => u64::from(feed.byte()) << 12 | 7,
        _ => u64::from(feed.byte()) << 12 | u64::from(feed.byte()) | 7,
    }
}

/// Mostly of the process, and of its pages.
fn translation(feed: &mut Feed<'_>) -> TranslationRequest {
    let choice = feed.byte();
    if choice & 0xe0 == 0 {
        return registers::translation(feed);
    }
    let kind = if choice & 1 == 0 { RequestKind::Translation } else { RequestKind::Untranslated };
    let iova = Iova(AREA.0 + u64::from(choice >> 2) % PAGES * FRAME);
    TranslationRequest { requester: DEVICE, pasid: Some(PASID), iova, write: choice & 2 != 0, kind }
}

fn compare(world: &World, feed: &mut Feed<'_>, is_stale: bool) {
    let request = translation(feed);
    let answer = world.translate(&request);
    if is_stale {
        return;
    }
    let fresh = Iommu::new(SMALL, world.watched.clone(), world.interrupts.clone(), Arc::new(NoProbe));
    fresh.write(reg::RTADDR, &world.read64(reg::RTADDR).to_le_bytes());
    for command in [1u32 << 30, 1 << 31] {
        fresh.write(reg::GCMD, &command.to_le_bytes());
    }
    let (expected, _) = world.watch(Doing::Walk, WALK_MAX, || fresh.translate(&request));
    assert_eq!(answer, expected, "{request:x?}");
}
