//! A limit on warnings that a guest can cause. Devices have no clock, so it counts: the first four are reported, then
//! each one whose number is a power of two.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the occurrences of one kind of guest mistake.
#[derive(Debug, Default)]
pub struct WarnLimit(AtomicU64);

impl WarnLimit {
    /// Counts one more occurrence. Returns its number, from 1, if it is to be reported.
    pub fn admit(&self) -> Option<u64> {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        (number <= 4 || number.is_power_of_two()).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_fill_the_log() {
        let limit = WarnLimit::default();
        assert_eq!((0..1 << 20).filter_map(|_| limit.admit()).count(), 4 + 18);
    }
}
