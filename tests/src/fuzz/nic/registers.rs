//! Registers and config space: a driver that writes anything to any BAR and to config space, at any width, while
//! requests are under way.
//!
//! **Invariant.** No access panics, and the NIC comes to rest after bounded work. Reads change nothing. What config space
//! says that the function is, and its lists of capabilities, never change. The IOMMU keeps the NIC to what the driver has mapped.
//! After a reset the next kernel finds everything working.

use refault_bus::Iova;
use refault_model::memory::FRAME;
use refault_pci::PciFunction;
use refault_rig::machine::OwnSpace;

use super::frames::{Frames, Owner};
use super::{SOURCE, SOURCE_PAGES, World};
use crate::fuzz::OPERATIONS_MAX;
use crate::fuzz::feed::Feed;

/// Extended capabilities begin there, and config space ends there.
const EXTENDED: u16 = 0x100;
const CONFIG_END: u16 = 0x1000;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let world = World::new(OwnSpace::Translated);
    let mut session = world.open(1);
    let end = world.machine.memory.frame().expect("a frame");
    let mut frames = Frames::new(end);
    frames.is_driver_open = true;
    for page in 0..SOURCE_PAGES {
        let leaf = session.process.space.lookup(Iova(SOURCE.0 + page * FRAME)).expect("tables are memory");
        frames.give(leaf.expect("present").gpa, Owner::Process { write: true });
    }
    let identity = identity(&world);
    let mut feed = Feed::new(bytes);
    for _ in 0..OPERATIONS_MAX {
        if feed.is_empty() {
            break;
        }
        match feed.below(10) {
            0..=3 => write_bar(&world, &mut feed),
            4..=6 => write_config(&world, &mut feed),
            7 => read(&world, &mut feed),
            8 => session.write(1, SOURCE, Iova(SOURCE.0 + FRAME), feed.half().into()),
            _ => drop(world.pass_time()),
        }
        world.rest(|accesses| frames.check(accesses));
    }
    assert_eq!(self::identity(&world), identity);
    world.recovers();
}

fn write_bar(world: &World, feed: &mut Feed<'_>) {
    let bar = feed.pick(&[0, 0, 2, 4, 1, 5]);
    let offset = match feed.below(4) {
        0 => feed.word(),
        1 => u64::from(feed.byte()) << 12,
        _ => u64::from(feed.byte()) * 4,
    };
    let offset = inside(world, bar, offset);
    let data = feed.word().to_le_bytes();
    let width = [4, 4, 8, 1 + feed.below(8)][feed.below(4)];
    world.machine.nic.bar_write(bar, offset, &data[..width]);
}

fn write_config(world: &World, feed: &mut Feed<'_>) {
    let offset = if feed.flag() { feed.half() } else { u16::from(feed.byte()) * 4 };
    let data = feed.word().to_le_bytes();
    let width = [4, 2, 1, 1 + feed.below(8)][feed.below(4)];
    let _ = world.machine.nic.config_write(offset, &data[..width]);
}

fn read(world: &World, feed: &mut Feed<'_>) {
    let (bar, offset, width) = (feed.below(8) as u8, u64::from(feed.half()), 1 + feed.below(8));
    let read = || {
        let mut data = [0xa5; 8];
        match (bar, u16::try_from(offset)) {
            (7, Ok(offset)) => world.machine.nic.config_read(offset, &mut data[..width]),
            _ => world.machine.nic.bar_read(bar, inside(world, bar, offset), &mut data[..width]),
        }
        data
    };
    assert_eq!(read(), read());
}

/// An offset in a BAR: a host passes no other, though an access may reach beyond the end.
fn inside(world: &World, bar: u8, offset: u64) -> u64 {
    let bars = world.machine.nic.endpoint().bars();
    let size = bars.iter().find(|known| known.index == bar).map_or(0x1000, |known| known.size);
    offset % size
}

/// Vendor, device, class, and where each capability is.
fn identity(world: &World) -> Vec<u32> {
    let config = |offset: u16| {
        let mut data = [0; 4];
        world.machine.nic.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    };
    let mut found = vec![config(0), config(8), config(0x34)];
    let mut at = (config(0x34) & 0xfc) as u16;
    while at != 0 {
        found.push(config(at) & 0xffff);
        at = (config(at) >> 8 & 0xfc) as u16;
        assert!(found.len() < 64, "the list of capabilities has a loop");
    }
    let mut at = EXTENDED;
    while (EXTENDED..CONFIG_END).contains(&at) {
        found.push(config(at));
        at = (config(at) >> 20) as u16;
        assert!(found.len() < 256, "the list of extended capabilities has a loop");
    }
    found
}
