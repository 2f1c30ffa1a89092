//! What a probe sees of invalidations.

use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::{AddressSpace, Iova, Pasid};

use crate::support::table::*;
use crate::support::*;

/// The two events of an invalidation, which are equal but for the stage.
fn events(space: AddressSpace, iova: u64, size_shift: u8) -> [ProbeEvent; 2] {
    [Stage::Invalidate, Stage::Invalidated]
        .map(|stage| ProbeEvent { size_shift, ..ProbeEvent::new(stage, space, Iova(iova)) })
}

#[test]
fn an_invalidation_by_the_iommu_is_recorded_with_its_block_when_it_begins_and_when_it_is_over() {
    let pair = Pair::new();
    let blocks = [(None, 0x4000, 12), (Some(PASID), 0x7f00_0020_0000, 21), (Some(PASID), 0, 64)];
    for (count, (pasid, iova, size_shift)) in (1..).zip(blocks) {
        pair.bench.probe.take();
        pair.bench.iommu.invalidate(pasid, iova, size_shift);
        let space = AddressSpace::of(pasid.and_then(Pasid::new));
        assert_eq!(pair.bench.probe.take(), events(space, iova, size_shift));
        assert_eq!(pair.bench.nic.stats().invalidations, count);
    }
}

#[test]
fn an_invalidation_by_the_driver_is_recorded_with_the_smallest_block_around_its_range() {
    const START: u64 = 0x7f00_0000_0000;
    const LENGTH: u64 = 16 << 20;
    let pair = Pair::new();
    let region = OnDemand::new(&pair.bench, pair.pd, START, LENGTH);
    for (offset, bytes) in
        [(0, 0x1000), (0x1000, 0x1000), (0x1000, 0x2000), (0x6000, 0x2000), (0x1f_f000, 0x2000), (0, LENGTH)]
    {
        let (first, last) = (START + offset, START + offset + bytes - 1);
        let size_shift = (12..64).find(|shift| first >> shift == last >> shift).unwrap();
        pair.bench.probe.take();
        region.invalidate(&pair.bench, first, bytes).unwrap();
        assert_eq!(pair.bench.probe.take(), events(AddressSpace::Region(region.key), first, size_shift));
    }
}
