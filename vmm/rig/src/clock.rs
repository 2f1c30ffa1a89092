//! The wall clock of a real machine, for the models, which have no clock of their own.

use std::time::Instant;

use refault_bus::clock::Clock;

/// CLOCK_MONOTONIC in nanoseconds, from the clock's creation on. All threads see one order: a stage never has a later
/// stamp than one that it caused.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    origin: Instant,
}

impl WallClock {
    /// A clock that reads zero now.
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
        let elapsed = self.origin.elapsed();
        elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos())
    }
}
