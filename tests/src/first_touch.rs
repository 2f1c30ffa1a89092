//! The cost of a minor page fault: the first touch of an anonymous page.

use std::sync::atomic::Ordering;
use std::time::Duration;

use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use crate::bench::timed;

/// Bytes of a page.
const PAGE: usize = 0x1000;
/// Bytes mapped at a time: less than a huge page, so that no touch brings in more than one page.
const REGION: usize = 0x10_0000;

/// Touches `pages` fresh anonymous pages. Mapping and unmapping them is not counted.
pub fn first_touch(pages: u64) -> Duration {
    let mut left = pages as usize;
    let mut total = Duration::ZERO;
    while left > 0 {
        let count = left.min(REGION / PAGE);
        let region: MmapRegion = MmapRegion::new(REGION).expect("a mebibyte of memory");
        let slice = region.as_volatile_slice();
        total += timed(|| {
            for page in 0..count {
                slice.store(1u64, page * PAGE, Ordering::Relaxed).expect("inside the region");
            }
        });
        left -= count;
    }
    total
}
