//! The cost of invalidating one page, whatever else the caches hold.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use refault_bus::Iova;
use refault_model::paging::{PageSize, Rights};
use refault_tests::bench::{Bench, Comparison, Target};
use refault_tests::bench_rig::{AREA, Rig};

/// Address of the many pages.
const MANY: Iova = Iova(0x7000_0000_0000);

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    let (mut full, mut sparse) = (filled(1 << 20), filled(1 << 10));
    let name = "invalidation of one cached page, a million others cached";
    let baseline = "the same, a thousand others cached";
    bench.compare(
        Comparison { name, baseline, target: Target::AtMost(2.0) },
        &mut |count| (0..count).map(|index| invalidate(&mut full, 1 << 20, index)).sum(),
        &mut |count| (0..count).map(|index| invalidate(&mut sparse, 1 << 10, index)).sum(),
    );
    bench.finish()
}

/// A rig in whose device TLB and IOTLB `pages` translations are cached: the device has read every page.
fn filled(pages: u64) -> Rig {
    let mut rig = Rig::new(1 << 21);
    let target = rig.map(Iova(MANY.0 - AREA), AREA, false);
    let page = PageSize::Small.bytes();
    for index in 0..pages {
        // All pages share a few frames: only the number of translations matters.
        let frame = target[index as usize % target.len()];
        let at = Iova(MANY.0 + index * page);
        rig.session.process.space.map(at, frame, PageSize::Small, Rights::Write).expect("an empty page");
    }
    for start in (0..pages * page).step_by(AREA as usize) {
        let length = AREA.min(pages * page - start);
        rig.write_warm(Iova(MANY.0 + start), Iova(MANY.0 - AREA), length as u32);
    }
    let misses = rig.machine.iommu.statistics().translations;
    rig.write_warm(Iova(MANY.0), Iova(MANY.0 - AREA), 4096);
    assert_eq!(rig.machine.iommu.statistics().translations, misses, "the caches do not hold every page");
    rig
}

/// Invalidates one cached page, as the kernel does. The time to cache it again is not included.
fn invalidate(rig: &mut Rig, pages: u64, turn: u64) -> Duration {
    let page = PageSize::Small.bytes();
    let at = Iova(MANY.0 + turn.wrapping_mul(0x9e37_79b9) % pages * page);
    let start = Instant::now();
    rig.session.process.flush(at, page).expect("the flush ends");
    let took = start.elapsed();
    rig.write_warm(at, Iova(MANY.0 - AREA), 64);
    took
}
