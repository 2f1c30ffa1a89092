//! Registers: a kernel that writes anything to any of them, and to the tables and queues that they point to.
//!
//! **Invariant.** No access panics. A register write executes one ring of descriptors at most, a translation walks once, a
//! page request writes one entry. The unit changes memory only to mark entries of tables, to queue page requests, and to
//! write the status of a wait. Reads change nothing. After a reset the next kernel finds everything working.

use refault_bus::Gpa;
use refault_bus::Iova;
use refault_bus::PrgIndex;
use refault_bus::ats::{RequestKind, TranslationAgent, TranslationRequest};
use refault_bus::mmio::MmioDevice;
use refault_bus::pri::PageRequest;
use refault_iommu::spec::registers::offset as reg;

use super::{AREA, Doing, WALK_MAX, World, pasid, requester, ring};
use crate::fuzz::OPERATIONS_MAX;
use crate::fuzz::feed::Feed;

/// The most descriptors that fit into a queue: 2^7 pages.
const RING_MAX: usize = 0x1000 << 7 >> 5;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let world = World::new();
    let mut feed = Feed::new(bytes);
    for _ in 0..OPERATIONS_MAX {
        if feed.is_empty() {
            break;
        }
        operate(&world, &mut feed);
        world.ear.take();
    }
    reads_change_nothing(&world);
    world.recovers();
}

fn operate(world: &World, feed: &mut Feed<'_>) {
    match feed.below(16) {
        0 => read(world, feed),
        1..=5 => {
            let offset = u64::from(feed.byte()) * 4;
            let data = feed.word().to_le_bytes();
            let width = if feed.flag() { 4 } else { 8 };
            write(world, offset, &data[..width]);
        }
        6 => {
            let offset = feed.word();
            write(world, offset, feed.bytes(12));
        }
        // Any descriptor, where the queue is or is not.
        7 | 8 => {
            let at = ring(world).0.wrapping_add(u64::from(world.read32(reg::IQT)));
            for quad in [0, 8] {
                let _ = world.ram.store_u64(Gpa(at.wrapping_add(quad)), feed.word());
            }
            let next = world.read32(reg::IQT).wrapping_add(32);
            write(world, reg::IQT, &next.to_le_bytes());
        }
        // Any entry of any table: they are at the start of memory.
        9 | 10 => {
            let at = u64::from(feed.half()) * 8;
            let _ = world.ram.store_u64(Gpa(at), feed.word());
        }
        11 | 12 => drop(world.translate(&translation(feed))),
        13 | 14 => request_page(world, feed),
        _ => {
            world.watch(Doing::Registers, 0, || world.iommu.reset());
        }
    }
}

fn read(world: &World, feed: &mut Feed<'_>) {
    let offset = if feed.flag() { u64::from(feed.half() & 0x3ff) } else { feed.word() };
    let (mut first, mut second) = ([0xa5; 16], [0x5a; 16]);
    let width = feed.below(17);
    world.watch(Doing::Registers, 0, || {
        world.iommu.read(offset, &mut first[..width]);
        world.iommu.read(offset, &mut second[..width]);
    });
    assert_eq!(first[..width], second[..width], "a read changed the register at {offset:#x}");
}

fn write(world: &World, offset: u64, data: &[u8]) {
    // Each descriptor is read, and may write a status.
    world.watch(Doing::Registers, 2 * RING_MAX, || world.iommu.write(offset, data));
}

/// A translation or an untranslated access, mostly by the device and where its process has memory.
pub(super) fn translation(feed: &mut Feed<'_>) -> TranslationRequest {
    let choice = feed.byte();
    let iova = match choice & 3 {
        0 => Iova(feed.word()),
        _ => Iova(AREA.0 + (u64::from(feed.half()) << 4)),
    };
    let kind = if choice & 4 != 0 { RequestKind::Untranslated } else { RequestKind::Translation };
    TranslationRequest {
        requester: requester(feed.byte()),
        pasid: pasid(feed.byte()),
        iova,
        write: choice & 8 != 0,
        kind,
    }
}

fn request_page(world: &World, feed: &mut Feed<'_>) {
    let choice = feed.byte();
    let request = PageRequest {
        requester: requester(feed.byte()),
        pasid: pasid(feed.byte()),
        page: Iova(AREA.0 + (u64::from(feed.byte()) << 12)),
        read: choice & 1 != 0,
        write: choice & 2 != 0,
        last: choice & 12 != 0,
        group: PrgIndex::truncated(choice.into()),
    };
    let queue = world.read64(reg::PQA);
    world.watch(Doing::PageRequest(queue), WALK_MAX, || world.iommu.page_request(request));
}

fn reads_change_nothing(world: &World) {
    let mut pages = [[0; 0x300]; 2];
    for page in &mut pages {
        world.iommu.read(0, page);
    }
    assert_eq!(pages[0], pages[1]);
}
