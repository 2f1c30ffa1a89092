//! Durations of the steps, and how that time passes: for messages in delay lines, for other steps by waiting in place.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use rand_pcg::Pcg64Mcg;
use refault_bus::ats::{AtsEndpoint, RequestKind, TranslationAgent, TranslationRequest};
use refault_bus::pri::{PageGroupResponse, PageRequest};
use refault_bus::sync::lock;
use refault_timing::{Delay, Timing};

use super::delay_line::{DelayLine, spin_until};
use crate::paced::Pace;

/// Longest wait in place. A worker waits with its guard held, and the guest waits for that guard with
/// interrupts off: an invalidation waits for at most one of these for each worker.
pub(super) const LONGEST_PAUSE_NS: u64 = 100_000;

/// Seed of the random delays: every run of a guest differs, but all draw the same sequence of delays.
const SEED: u128 = 0x7265_6661_756c_7420_736c_6f77_2064_6576;

/// A timing and the random numbers for its distributions.
#[derive(Debug)]
pub(super) struct Durations {
    timing: Timing,
    random: Mutex<Pcg64Mcg>,
}

impl Durations {
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

    /// The next duration of `pieces` copies with `bytes` in all, in nanoseconds.
    fn of_copies(&self, pieces: usize, bytes: u64) -> u64 {
        let fixed = (0..pieces).fold(0u64, |sum, _| sum.saturating_add(self.of(|timing| &timing.copy)));
        fixed.saturating_add(bytes.saturating_mul(1000) / self.timing.bytes_per_us.max(1))
    }
}

/// Delivers a message at the end of its delay.
type Delivery = Box<dyn FnOnce() + Send>;

/// The pace of one NIC's seams.
pub(super) struct WallPace {
    durations: Arc<Durations>,
    origin: Instant,
    page_requests: DelayLine<Delivery>,
    responses: DelayLine<Delivery>,
}

impl WallPace {
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn new(durations: Arc<Durations>) -> Result<Self> {
        Ok(Self {
            durations,
            origin: Instant::now(),
            page_requests: DelayLine::new("requests", |deliver: Delivery| deliver())?,
            responses: DelayLine::new("responses", |deliver: Delivery| deliver())?,
        })
    }

    /// Discards page requests in flight.
    pub(super) fn clear_page_requests(&self) {
        self.page_requests.clear();
    }

    /// Discards page group responses in flight.
    pub(super) fn clear_responses(&self) {
        self.responses.clear();
    }

    /// Waits in place until `ns` after `start_ns`, or [`LONGEST_PAUSE_NS`] if that is less. It spins: a sleep this short
    /// would take twice as long.
    fn pause(&self, start_ns: u64, ns: u64) {
        if ns > 0 {
            let end_ns = start_ns.saturating_add(ns.min(LONGEST_PAUSE_NS));
            spin_until(self.origin + Duration::from_nanos(end_ns));
        }
    }
}

impl Pace for WallPace {
    fn start_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn translation(&self, request: &TranslationRequest) {
        if request.kind == RequestKind::Translation {
            self.pause(self.start_ns(), self.durations.of(|timing| &timing.translation));
        }
    }

    /// One delay for both the message and the write of the queue entry: there is no seam between them.
    fn page_request(&self, iommu: &Arc<dyn TranslationAgent>, request: PageRequest) {
        let way = self.durations.of(|timing| &timing.page_request);
        let written = self.durations.of(|timing| &timing.queue_write);
        let iommu = iommu.clone();
        self.page_requests.send(way.saturating_add(written), Box::new(move || iommu.page_request(request)));
    }

    /// One delay for both the message and waking the queue pair: there is no seam between them.
    fn response(&self, nic: &Arc<dyn AtsEndpoint>, response: PageGroupResponse) {
        let way = self.durations.of(|timing| &timing.response_message);
        let wake = self.durations.of(|timing| &timing.device_wake);
        let nic = nic.clone();
        self.responses.send(way.saturating_add(wake), Box::new(move || nic.page_group_response(response)));
    }

    fn push_page_requests(&self) {
        self.page_requests.flush();
    }

    fn push_responses(&self) {
        self.responses.flush();
    }

    /// The guest waits with interrupts off for an invalidation, so it is delayed in place.
    fn invalidation(&self, start_ns: u64) {
        self.pause(start_ns, self.durations.of(|timing| &timing.invalidation));
    }

    fn copies(&self, start_ns: u64, pieces: usize, bytes: u64) {
        self.pause(start_ns, self.durations.of_copies(pieces, bytes));
    }
}
