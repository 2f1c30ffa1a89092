//! How fast this machine is, by two things that need no device: so that figures of two machines can be held side by side.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const PAGE: usize = 0x1000;
/// Bytes mapped at a time: less than a huge page, so that no touch brings in more than one page.
const REGION: usize = 1 << 20;
/// Pages touched in a measurement.
const PAGES: u64 = 2048;
const COPIED: usize = 8 << 20;
/// The best of these counts: what else the machine does is not its speed.
const ROUNDS: usize = 3;

/// What a machine takes for things that need no device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speed {
    /// An anonymous minor fault in nanoseconds.
    pub fault_ns: u64,
    /// memcpy in bytes a second.
    pub copy_rate: u64,
}

impl Speed {
    /// Measures this machine, in some ten milliseconds.
    pub fn measure() -> Self {
        let faults = (0..ROUNDS).map(|_| first_touch(PAGES)).min().unwrap_or_default();
        let (from, mut to) = (vec![1u8; COPIED], vec![2u8; COPIED]);
        let copies = (0..ROUNDS).map(|_| {
            let start = Instant::now();
            std::hint::black_box(&mut to).copy_from_slice(&from);
            start.elapsed()
        });
        let copy = copies.min().unwrap_or_default().as_secs_f64().max(1e-9);
        Self { fault_ns: faults.as_nanos() as u64 / PAGES, copy_rate: (COPIED as f64 / copy) as u64 }
    }

    /// In words: "a minor fault takes 1.2 us, memcpy does 9.1 GB/s".
    pub fn line(&self) -> String {
        format!(
            "a minor fault takes {:.2} us, memcpy does {:.1} GB/s",
            self.fault_ns as f64 / 1e3,
            self.copy_rate as f64 / 1e9
        )
    }
}

/// Touches `pages` fresh anonymous pages. Mapping and unmapping them is not counted, nor is what there is no memory for.
pub fn first_touch(pages: u64) -> Duration {
    let mut left = pages as usize;
    let mut total = Duration::ZERO;
    while left > 0 {
        let count = left.min(REGION / PAGE);
        let Ok(region) = MmapRegion::<()>::new(REGION) else { return total };
        let slice = region.as_volatile_slice();
        let start = Instant::now();
        for page in 0..count {
            let _ = slice.store(1u64, page * PAGE, Ordering::Relaxed);
        }
        total += start.elapsed();
        left -= count;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_takes_some_time_for_both() {
        let speed = Speed::measure();
        assert!(speed.fault_ns > 0 && speed.copy_rate > 0, "{speed:?}");
        let speed = Speed { fault_ns: 1234, copy_rate: 9_100_000_000 };
        assert_eq!(speed.line(), "a minor fault takes 1.23 us, memcpy does 9.1 GB/s");
    }
}
