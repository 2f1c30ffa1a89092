//! Sampled requests: records of each from doorbell to completion, and durations of the steps.

use refault_abi::codes::{
    OP_ATOMIC_WRITE, OP_COMPARE_SWAP, OP_FETCH_ADD, OP_FLUSH, OP_RDMA_READ, OP_RDMA_WRITE, OP_RDMA_WRITE_IMM,
    OP_SEND, OP_SEND_IMM, Opcode,
};
use refault_bus::probe::RequestEvent;

use super::durations::Durations;
use super::record::FaultRecord;

/// A sampled request. Times are nanoseconds since the recorder's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// Index into [`Records::scenarios`](super::Records::scenarios): the scenario in which the request ended.
    pub scenario: u16,
    /// The device's event, with times relative to the recorder's start.
    pub event: RequestEvent,
}

/// The kept records.
#[derive(Debug)]
pub(super) struct RequestStore {
    kept: Vec<RequestRecord>,
    bound: usize,
    /// How many more records the current scenario may have.
    room: usize,
    dropped: u64,
}

impl RequestStore {
    /// An empty store for `bound` records. Memory is reserved now, but not touched before it is used.
    pub(super) fn new(bound: usize) -> Self {
        Self { kept: Vec::with_capacity(bound), bound, room: bound, dropped: 0 }
    }

    /// Lets a new scenario use one part in `parts` of the free space.
    pub(super) fn share(&mut self, parts: usize) {
        self.room = (self.bound - self.kept.len()).div_ceil(parts);
    }

    pub(super) fn push(&mut self, record: RequestRecord) {
        if self.room == 0 {
            self.dropped += 1;
            return;
        }
        self.room -= 1;
        self.kept.push(record);
    }

    pub(super) fn kept(&self) -> &[RequestRecord] {
        &self.kept
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Names of the steps of a request, in the order of the path.
pub const REQUEST_STEPS: [&str; 5] =
    ["wait for the device", "translate", "copy", "write completion", "interrupt and retire"];

impl RequestRecord {
    /// The record of a device's event, whose clock read `origin` when the recorder started.
    pub(super) fn new(scenario: u16, event: &RequestEvent, origin: u64) -> Self {
        let since = |at: u64| at.saturating_sub(origin);
        let event = RequestEvent {
            doorbell_ns: event.doorbell_ns.map(since),
            fetched_ns: since(event.fetched_ns),
            translated_ns: event.translated_ns.map(since),
            landed_ns: event.landed_ns.map(since),
            written_ns: event.written_ns.map(since),
            end_ns: since(event.end_ns),
            ..*event
        };
        Self { scenario, event }
    }

    /// Its start: the doorbell if known, otherwise the fetch.
    pub fn begin(&self) -> u64 {
        self.event.doorbell_ns.unwrap_or(self.event.fetched_ns).min(self.event.fetched_ns)
    }

    /// Nanoseconds from start to end.
    pub fn total(&self) -> u64 {
        self.event.end_ns.saturating_sub(self.begin())
    }

    /// Its steps as (name, start, end), gapless. A step that was not recorded is part of the one before it.
    pub fn steps(&self) -> impl Iterator<Item = (&'static str, u64, u64)> + use<> {
        let RequestEvent { doorbell_ns, fetched_ns, translated_ns, landed_ns, written_ns, end_ns, .. } =
            self.event;
        let begins = [doorbell_ns, Some(fetched_ns), translated_ns, landed_ns, written_ns];
        let mut end = end_ns;
        let mut steps = [None; REQUEST_STEPS.len()];
        for ((step, begin), name) in steps.iter_mut().zip(begins).zip(REQUEST_STEPS).rev() {
            if let Some(begin) = begin {
                let begin = begin.min(end);
                *step = Some((name, begin, end));
                end = begin;
            }
        }
        steps.into_iter().flatten()
    }

    /// Name of the operation.
    pub fn operation(&self) -> &'static str {
        match Opcode(self.event.opcode) {
            OP_SEND => "send",
            OP_SEND_IMM => "send-imm",
            OP_RDMA_WRITE => "write",
            OP_RDMA_WRITE_IMM => "write-imm",
            OP_RDMA_READ => "read",
            OP_COMPARE_SWAP => "compare-swap",
            OP_FETCH_ADD => "fetch-add",
            OP_FLUSH => "flush",
            OP_ATOMIC_WRITE => "atomic-write",
            _ => "unknown",
        }
    }

    /// Whether a fault belongs to this request: a queue pair executes one request at a time.
    pub fn has(&self, fault: &FaultRecord) -> bool {
        let RequestEvent { qpn, fetched_ns, end_ns, .. } = self.event;
        fault.qpn == qpn && (fetched_ns..=end_ns).contains(&fault.times.miss)
    }
}

/// Durations of the steps of requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestTimes {
    steps: [Durations; REQUEST_STEPS.len()],
    /// Durations of whole requests.
    pub(crate) whole: Durations,
}

impl RequestTimes {
    pub(crate) fn record(&mut self, request: &RequestRecord) {
        for (name, from, to) in request.steps() {
            let step = REQUEST_STEPS.iter().zip(&mut self.steps).find(|(known, _)| **known == name);
            step.into_iter().for_each(|(_, durations)| durations.record(to - from));
        }
        self.whole.record(request.total());
    }

    /// Durations by step, each over the requests in which it was recorded.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&'static str, &Durations)> {
        REQUEST_STEPS.into_iter().zip(&self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RequestRecord {
        let event = RequestEvent {
            qpn: 7,
            doorbell_ns: Some(1_100),
            fetched_ns: 1_150,
            translated_ns: Some(1_250),
            landed_ns: Some(1_450),
            written_ns: Some(1_460),
            end_ns: 1_500,
            ..RequestEvent::default()
        };
        RequestRecord::new(0, &event, 1_000)
    }

    #[test]
    fn steps_are_gapless_from_doorbell_to_end() {
        let steps: Vec<_> = record().steps().collect();
        let names = REQUEST_STEPS;
        let expected = [(100, 150), (150, 250), (250, 450), (450, 460), (460, 500)];
        assert!(
            steps.iter().zip(names).zip(expected).all(|((&step, name), (from, to))| step == (name, from, to))
        );
        assert_eq!((record().begin(), record().total()), (100, 400));
    }

    #[test]
    fn a_step_that_was_not_recorded_is_part_of_the_one_before() {
        let mut silent = record();
        (silent.event.doorbell_ns, silent.event.written_ns) = (None, None);
        let steps: Vec<_> = silent.steps().map(|(_, from, to)| (from, to)).collect();
        assert_eq!(steps, [(150, 250), (250, 450), (450, 500)]);
        assert_eq!(silent.total(), 350);
    }

    #[test]
    fn durations_of_a_step_cover_requests_that_had_it() {
        let mut silent = record();
        silent.event.doorbell_ns = None;
        let mut times = RequestTimes::default();
        [record(), silent].iter().for_each(|request| times.record(request));
        let steps: Vec<_> = times.steps().map(|(name, step)| (name, step.count(), step.max())).collect();
        assert_eq!(steps[..2], [(REQUEST_STEPS[0], 1, 50), (REQUEST_STEPS[1], 2, 100)]);
        assert_eq!((times.whole.count(), times.whole.max()), (2, 400));
    }
}
