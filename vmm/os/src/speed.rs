//! The speed of this machine, by two measurements that need no device, so that figures from different machines can be
//! compared.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const PAGE: usize = 0x1000;
/// Bytes mapped at a time: less than a huge page, so that each touch faults in exactly one page.
const REGION: usize = 1 << 20;
/// Pages touched in one measurement.
const PAGES: u64 = 2048;
/// Bytes copied in one measurement: more than a first-level cache holds.
const COPIED: usize = 8 << 20;
/// The best of these rounds counts, which leaves out other load on the machine.
const ROUNDS: usize = 3;

/// Time for two operations that involve no device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speed {
    /// Time of an anonymous minor fault, in nanoseconds.
    pub fault_ns: u64,
    /// Rate of memcpy, in bytes per second.
    pub copy_rate: u64,
}

impl Speed {
    /// Measures this machine; takes about ten milliseconds.
    pub fn measure() -> Self {
        let faults = (0..ROUNDS).map(|_| first_touch(PAGES)).min().unwrap_or_default();
        let (from, mut to) = (vec![1u8; COPIED], vec![2u8; COPIED]);
        let copies = (0..ROUNDS).map(|_| {
            let start = Instant::now();
            std::hint::black_box(&mut to).copy_from_slice(&from);
            start.elapsed()
        });
        let copy_ns = nanoseconds(copies.min().unwrap_or_default()).max(1);
        Self { fault_ns: nanoseconds(faults) / PAGES, copy_rate: COPIED as u64 * 1_000_000_000 / copy_ns }
    }

    /// One line of text: "a minor fault takes 1.2 us, memcpy does 9.1 GB/s".
    pub fn line(&self) -> String {
        format!(
            "a minor fault takes {:.2} us, memcpy does {:.1} GB/s",
            self.fault_ns as f64 / 1e3,
            self.copy_rate as f64 / 1e9
        )
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Touches `pages` fresh anonymous pages. The result excludes mapping and unmapping them, and pages for which there is no
/// memory.
pub fn first_touch(pages: u64) -> Duration {
    let mut left = usize::try_from(pages).unwrap_or(usize::MAX);
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
    fn both_measurements_are_positive() {
        let speed = Speed::measure();
        assert!(speed.fault_ns > 0 && speed.copy_rate > 0, "{speed:?}");
        let speed = Speed { fault_ns: 1234, copy_rate: 9_100_000_000 };
        assert_eq!(speed.line(), "a minor fault takes 1.23 us, memcpy does 9.1 GB/s");
    }
}
