//! How long a step is to take, and waiting on the spot where nothing else will do.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand_pcg::Pcg64Mcg;

use super::line::spin_until;
use refault_timing::{Delay, Timing};

/// Longest wait on the spot. A worker waits so with its guard held, and the guest waits for that guard with
/// interrupts off: one invalidation waits for one of these at most for each worker.
pub(super) const LONGEST_PAUSE_NS: u64 = 100_000;

/// Where the delays' chance comes from: two runs of a guest are never alike, but their delays are.
const SEED: u128 = 0x7265_6661_756c_7420_736c_6f77_2064_6576;

/// A timing, and the chance in it.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) timing: Timing,
    random: Mutex<Pcg64Mcg>,
}

impl Pace {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, random: Mutex::new(Pcg64Mcg::new(SEED)) }
    }

    /// How long a step takes this time, in nanoseconds.
    pub(super) fn of(&self, step: impl Fn(&Timing) -> &Delay) -> u64 {
        match step(&self.timing) {
            Delay::Constant(ns) => *ns,
            delay => delay.sample(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// Waits on the spot for `ns` since `begun`, or [`LONGEST_PAUSE_NS`] if that is less. It does not sleep: a sleep of so
/// little would be twice as long.
pub(super) fn pause(begun: Instant, ns: u64) {
    if ns > 0 {
        spin_until(begun + Duration::from_nanos(ns.min(LONGEST_PAUSE_NS)));
    }
}
