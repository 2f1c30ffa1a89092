//! The invalidation queue: descriptors of every kind, valid or not.
//!
//! **Invariant.** Descriptors are executed in order, each once, up to the first that the specification has the unit
//! refuse; the head stays there, and IQERCD says why. The device hears exactly what they say, and each wait
//! writes its status. When the descriptor is repaired the queue goes on behind it.

use refault_bus::ats::InvalidationRequest;
use refault_bus::bits::low_u32;
use refault_bus::{Gpa, Iova};
use refault_iommu::spec::invalidation::{DESCRIPTOR_BYTES, InvalidationDescriptor, QueueError, decode};
use refault_iommu::spec::registers::offset as reg;
use refault_model::vtd::Descriptor;

use super::{AREA, DEVICE, Doing, Heard, PASID, World, requester, ring};
use crate::fuzz::feed::Feed;
use crate::fuzz::watch::How;

/// Fewer than the ring of the model's driver has slots.
const BATCH_MAX: usize = 64;
/// FSTS.IQE.
const QUEUE_ERROR: u32 = 1 << 4;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let world = World::new();
    let mut feed = Feed::new(bytes);
    let status = world.kernel.memory.frame().expect("a frame");
    while !feed.is_empty() {
        let count = 1 + feed.below(BATCH_MAX);
        let batch: Vec<_> = (0..count).map(|_| descriptor(&mut feed, status)).collect();
        // One of them may be cached now.
        let _ = world.translate(&super::registers::translation(&mut feed));
        submit(&world, &batch);
    }
    world.recovers();
}

/// Submits a batch, and repairs it until it is executed.
fn submit(world: &World, batch: &[Descriptor]) {
    let (mut from, tail) = (slot(world, reg::IQT), slot(world, reg::IQT));
    let queue = &world.kernel.unit.queue;
    let mut left = batch;
    world.ear.take();
    let (_, mut done) = world
        .watch(Doing::Registers, 2 * batch.len(), || queue.submit_raw(batch).expect("the ring is memory"));
    loop {
        let expected = Expected::of(left);
        let heard: Vec<_> = world.ear.take().into_iter().filter(|heard| *heard != Heard::Drain).collect();
        assert_eq!(heard, expected.heard);
        let stores: Vec<_> = done
            .iter()
            .filter_map(|access| match access.how {
                How::Store(value) => Some((access.at, low_u32(value))),
                _ => None,
            })
            .collect();
        assert_eq!(stores, expected.stores);
        from = (from + expected.executed) % RING;
        assert_eq!(slot(world, reg::IQH), from, "the head is behind what was executed");
        let stopped = world.read32(reg::FSTS) & QUEUE_ERROR != 0;
        assert_eq!(stopped, expected.error.is_some());
        let Some(error) = expected.error else { break };
        assert_eq!(world.read64(reg::IQERCD) & 0xf, u64::from(error.code()));
        // Repaired: a fence is harmless.
        let at = ring(world).0 + (from * u64::from(DESCRIPTOR_BYTES));
        world.ram.write(Gpa(at), &Descriptor::fence().to_bytes()).expect("the ring is memory");
        let registers = world.kernel.unit.registers();
        left = &left[low_u32(expected.executed) as usize + 1..];
        (_, done) =
            world.watch(Doing::Registers, 2 * (left.len() + 1), || registers.write32(reg::FSTS, QUEUE_ERROR));
        from = (from + 1) % RING;
    }
    assert_eq!(from, (tail + batch.len() as u64) % RING);
}

/// Slots of the model's ring.
const RING: u64 = 256;

fn slot(world: &World, register: u64) -> u64 {
    u64::from(world.read32(register) / DESCRIPTOR_BYTES)
}

/// What descriptors must do.
#[derive(Default)]
struct Expected {
    heard: Vec<Heard>,
    stores: Vec<(Gpa, u32)>,
    executed: u64,
    error: Option<QueueError>,
}

impl Expected {
    fn of(batch: &[Descriptor]) -> Self {
        let mut expected = Self::default();
        for Descriptor(quads) in batch {
            match decode(*quads) {
                Err(error) => {
                    expected.error = Some(error);
                    break;
                }
                Ok(descriptor) => expected.add(descriptor),
            }
            expected.executed += 1;
        }
        expected
    }

    fn add(&mut self, descriptor: InvalidationDescriptor) {
        match descriptor {
            InvalidationDescriptor::DeviceTlb { device: DEVICE, request } => {
                self.heard.push(Heard::Invalidation(request));
            }
            InvalidationDescriptor::PageGroupResponse { device: DEVICE, response } => {
                self.heard.push(Heard::Response(response));
            }
            // What the device has cached came through its context entry.
            InvalidationDescriptor::ContextCache { device }
                if device.is_none_or(|(named, mask)| (named.0 ^ DEVICE.0) & mask == 0) =>
            {
                let everything = InvalidationRequest { pasid: None, iova: Iova(0), size_shift: 64 };
                self.heard.push(Heard::Invalidation(everything));
            }
            InvalidationDescriptor::Wait(wait) => self.stores.extend(wait.status),
            _ => {}
        }
    }
}

/// A descriptor: one that Linux would write, with one field that is anything, or anything at all.
fn descriptor(feed: &mut Feed<'_>, status: Gpa) -> Descriptor {
    let kind = feed.byte();
    let (at, shift) = (Iova(AREA.0 + (u64::from(feed.byte()) << 12)), 12 + (kind >> 4));
    let device = requester(feed.byte());
    let Descriptor(mut quads) = match kind & 0xf {
        0 => Descriptor::contexts(),
        1 => Descriptor::context(device),
        2 => Descriptor::iotlb(),
        3 => Descriptor::pasid_cache(),
        4 => Descriptor::pasid_entry(1, PASID),
        5 => Descriptor::pasid_iotlb(1, PASID),
        6 => Descriptor::pasid_iotlb_block(1, PASID, at, shift),
        7 => Descriptor::device_tlb(device, at, shift),
        8 | 9 => Descriptor::pasid_device_tlb(device, PASID, at, shift),
        10 => Descriptor::fence(),
        11 | 12 => Descriptor::wait(Gpa(status.0 + u64::from(kind >> 4) * 4), kind & 1 != 0),
        13 => Descriptor([9 | 1 << 4 | 1 << 32 | u64::from(device.0) << 16, u64::from(kind) << 3, 0, 0]),
        _ => Descriptor([feed.word(), feed.word(), 0, 0]),
    };
    if feed.below(4) == 3 {
        let (quad, change) = (feed.below(4), feed.word());
        quads[quad] ^= change << feed.below(64);
    }
    Descriptor(quads)
}
