//! Sampled requests: one in so many of each queue pair, chosen when it is fetched.
//!
//! A request that is not sampled costs a count. One that is has its stages stamped on the way, and is reported to
//! the probe once, when it ends.

use refault_bus::probe::{RequestEvent, Translator};

use crate::stats::ShardStats;

/// Requests before a sampled one from which doorbells are timed: more than drivers usually post with one doorbell.
const NEAR: u32 = 64;

/// When a queue pair's next request is sampled, and what is known of the one that is.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    /// Requests before the next one to sample. Zero at first.
    left: u32,
    /// The first doorbell that announced the requests found last.
    pub(crate) rung_ns: Option<u64>,
    sampled: Option<Box<RequestEvent>>,
}

impl Sampling {
    /// Counts a request; whether [`Self::choose`] must look at it: it is one to sample, or shortly before one.
    #[inline]
    pub(crate) fn is_near(&mut self) -> bool {
        let far = self.left > NEAR;
        self.left -= u32::from(far);
        !far
    }

    /// Samples the request if it is the next of `every`, none if that is zero; whether doorbells must be timed
    /// from now on.
    pub(crate) fn choose(&mut self, every: u32, event: impl FnOnce() -> RequestEvent) -> bool {
        match (every, self.left) {
            (0, _) => self.left = u32::MAX,
            (_, 0) => {
                self.left = every - 1;
                self.sampled = Some(Box::new(RequestEvent { doorbell_ns: self.rung_ns, ..event() }));
            }
            (_, more) => self.left = more - 1,
        }
        self.left <= NEAR
    }

    /// Whether the active request is sampled.
    #[inline]
    pub(crate) fn is_sampling(&self) -> bool {
        self.sampled.is_some()
    }

    /// What is known of the active request, if it is sampled.
    pub(crate) fn sampled(&mut self) -> Option<&mut RequestEvent> {
        self.sampled.as_deref_mut()
    }

    /// What is known of the request, which is over.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Box<RequestEvent>> {
        self.sampled.take()
    }

    /// Counts a page fault of the active request.
    pub(crate) fn count_fault(&mut self) {
        if let Some(sampled) = &mut self.sampled {
            sampled.faults = sampled.faults.saturating_add(1);
        }
    }
}

/// What a port stamps while it serves a sampled request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestStamps {
    /// Counters of the shard at the start.
    table_walks: u64,
    atc_misses: u64,
    interrupts: u64,
    /// When memory was found first, and what found it.
    pub(crate) translated: Option<(u64, Translator)>,
    /// When the completion was written.
    pub(crate) written_ns: Option<u64>,
}

impl RequestStamps {
    /// No stamps yet.
    pub(crate) fn begin(stats: &ShardStats) -> Self {
        let &ShardStats { table_walks, atc_misses, interrupts, .. } = stats;
        Self { table_walks, atc_misses, interrupts, translated: None, written_ns: None }
    }

    /// Stamps the first translation. The slowest translator that was needed counts.
    #[cold]
    pub(crate) fn stamp_translated(&mut self, now_ns: u64, stats: &ShardStats) {
        if self.translated.is_some() {
            return;
        }
        let translator = if stats.table_walks != self.table_walks {
            Translator::Table
        } else if stats.atc_misses != self.atc_misses {
            Translator::Iommu
        } else {
            Translator::DeviceTlb
        };
        self.translated = Some((now_ns, translator));
    }

    /// Stamps the first completion.
    #[cold]
    pub(crate) fn stamp_written(&mut self, now_ns: u64) {
        self.written_ns.get_or_insert(now_ns);
    }

    /// Whether an interrupt was sent since the start.
    pub(crate) fn interrupted(&self, stats: &ShardStats) -> bool {
        stats.interrupts != self.interrupts
    }
}
