//! How long frames between queue pairs of one device take.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::PacketConfig;

/// What goes over the wire with each frame: preamble, checksum and the gap behind it (IEEE 802.3).
const AROUND_A_FRAME: u64 = 24;

/// A line from the port to itself: a rate in each direction, and a delay.
#[derive(Debug)]
pub(crate) struct Line {
    delay_ns: u64,
    bytes_per_us: Option<u64>,
    /// When the last bit of what was sent leaves, in picoseconds: of requests, and of responses.
    busy_until_ps: [AtomicU64; 2],
}

impl Line {
    pub(crate) fn new(config: &PacketConfig) -> Self {
        let PacketConfig { delay_ns, bytes_per_us, .. } = *config;
        Self { delay_ns, bytes_per_us, busy_until_ps: Default::default() }
    }

    /// Whether frames take any time.
    pub(crate) fn takes_time(&self) -> bool {
        self.delay_ns > 0 || self.bytes_per_us.is_some()
    }

    /// When a frame of `length` bytes that is sent at `now_ns` arrives.
    pub(crate) fn due_ns(&self, now_ns: u64, length: usize, is_response: bool) -> u64 {
        let Some(bytes_per_us) = self.bytes_per_us else { return now_ns.saturating_add(self.delay_ns) };
        let takes_ps = (length as u64 + AROUND_A_FRAME) * 1_000_000 / bytes_per_us;
        let busy = &self.busy_until_ps[usize::from(is_response)];
        let after = |until: u64| until.max(now_ns.saturating_mul(1000)).saturating_add(takes_ps);
        let before = busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| Some(after(until)));
        (after(before.unwrap_or(0)) / 1000).saturating_add(self.delay_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_one_another_and_each_direction_has_its_own_rate() {
        let line = Line::new(&PacketConfig { delay_ns: 1000, bytes_per_us: Some(100), ..Default::default() });
        assert_eq!(line.due_ns(0, 76, false), 2000);
        assert_eq!(line.due_ns(0, 176, false), 4000);
        assert_eq!(line.due_ns(0, 76, true), 2000);
        assert_eq!(line.due_ns(10_000, 76, false), 12_000, "it was idle");
        let slow = Line::new(&PacketConfig { delay_ns: 7, ..Default::default() });
        assert_eq!((slow.takes_time(), slow.due_ns(5, 1 << 20, false)), (true, 12));
        assert!(!Line::new(&PacketConfig::default()).takes_time());
    }
}
