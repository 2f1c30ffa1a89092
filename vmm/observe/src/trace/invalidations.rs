//! Durations of invalidations: Linux waits for them with interrupts disabled.

use refault_bus::probe::ProbeEvent;
use refault_bus::{AddressSpace, Iova};

use super::anomaly::{Anomalies, Anomaly};
use super::durations::Durations;
use crate::trace::percentiles::Percentiles;

/// Most concurrent invalidations. There is at most one per thread that feeds the IOMMU.
const MAX_OPEN: usize = 64;

/// One invalidation that reached the device. Times are nanoseconds since the recorder's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// Time of its arrival.
    pub start: u64,
    /// Nanoseconds until every copy that used the old translations had landed, saturated at 4.2 seconds.
    pub duration: u32,
    /// The address space. The function's own also stands for all of them.
    pub space: AddressSpace,
    /// First address of the block.
    pub iova: Iova,
    /// log2 of the block's size in bytes; 63 or more: everything.
    pub size_shift: u8,
}

/// All invalidations are counted; the first `bound` are kept.
#[derive(Clone, Debug)]
pub(super) struct Invalidations {
    open: Vec<(u64, ProbeEvent)>,
    durations: Durations,
    kept: Vec<Invalidation>,
    bound: usize,
}

impl Invalidations {
    pub(super) fn new(bound: usize) -> Self {
        Self { open: Vec::with_capacity(MAX_OPEN), durations: Durations::new(), kept: Vec::new(), bound }
    }

    pub(super) fn begin(&mut self, at: u64, event: &ProbeEvent) {
        if self.open.len() >= MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push((at, *event));
    }

    pub(super) fn end(&mut self, at: u64, event: &ProbeEvent, anomalies: &mut Anomalies) {
        let same = |&(_, begun): &(u64, ProbeEvent)| {
            (begun.space, begun.iova, begun.size_shift) == (event.space, event.iova, event.size_shift)
        };
        let Some(index) = self.open.iter().position(same) else {
            return anomalies.count(Anomaly::InvalidatedWithoutStart);
        };
        let (start, _) = self.open.swap_remove(index);
        let ns = at.saturating_sub(start);
        self.durations.record(ns);
        if self.kept.len() < self.bound {
            let duration = u32::try_from(ns).unwrap_or(u32::MAX);
            let (space, iova, size_shift) = (event.space, event.iova, event.size_shift);
            self.kept.push(Invalidation { start, duration, space, iova, size_shift });
        }
    }

    pub(super) fn kept(&self) -> &[Invalidation] {
        &self.kept
    }

    /// Moves out the kept ones; no more are kept afterwards.
    pub(super) fn take_kept(&mut self) -> Vec<Invalidation> {
        self.bound = 0;
        std::mem::take(&mut self.kept)
    }

    pub(super) fn count(&self) -> u64 {
        self.durations.count()
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        self.durations.percentiles()
    }
}
