//! Rate limit for warnings a guest can cause. There is no clock here, so the limit is by number: the first
//! few, then at every doubling.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts occurrences of one kind of mistake.
#[derive(Debug, Default)]
pub(crate) struct WarnLimit(AtomicU64);

impl WarnLimit {
    /// Counts one more; the total, if this one is to be reported.
    pub(crate) fn admit(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        (count <= 4 || count.is_power_of_two()).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_mistakes_are_two_dozen_lines() {
        let limit = WarnLimit::default();
        assert!((0..1_000_000).filter(|_| limit.admit().is_some()).count() < 25);
    }
}
