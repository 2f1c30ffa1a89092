//! The wall clock of a real machine, for the models that have none of their own.

use std::time::Instant;

use refault_bus::clock::Clock;

/// CLOCK_MONOTONIC, counted from the clock's creation. All threads see one order: a stage that caused another
/// never carries the later stamp.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    origin: Instant,
}

impl WallClock {
    /// A clock that shows zero now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for WallClock {
    fn now_ns(&self) -> u64 {
        // 584 years fit into 64 bits of nanoseconds.
        self.origin.elapsed().as_nanos() as u64
    }
}
