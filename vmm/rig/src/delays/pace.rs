//! How long each step takes, and waiting in place.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand_pcg::Pcg64Mcg;
use refault_bus::sync::lock;

use super::delay_line::spin_until;
use refault_timing::{Delay, Timing};

/// Longest wait in place. A worker waits with its guard held, and the guest waits for that guard with
/// interrupts off: an invalidation waits for at most one of these for each worker.
pub(super) const LONGEST_PAUSE_NS: u64 = 100_000;

/// Seed of the random delays: no two runs of a guest are the same, but their sequences of delays are.
const SEED: u128 = 0x7265_6661_756c_7420_736c_6f77_2064_6576;

/// A timing and the random numbers for its distributions.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) timing: Timing,
    random: Mutex<Pcg64Mcg>,
}

impl Pace {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, random: Mutex::new(Pcg64Mcg::new(SEED)) }
    }

    /// The next duration of a step, in nanoseconds.
    pub(super) fn of(&self, step: impl Fn(&Timing) -> &Delay) -> u64 {
        match step(&self.timing) {
            Delay::Constant(ns) => *ns,
            delay => delay.sample(&mut lock(&self.random)),
        }
    }
}

/// Waits in place until `ns` after `begun`, or [`LONGEST_PAUSE_NS`] if that is less. It spins: a sleep this short would
/// take twice as long.
pub(super) fn pause(begun: Instant, ns: u64) {
    if ns > 0 {
        spin_until(begun + Duration::from_nanos(ns.min(LONGEST_PAUSE_NS)));
    }
}
