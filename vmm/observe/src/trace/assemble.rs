//! Assembles events into faults.
//!
//! A fault is identified by its queue pair and page from the miss on, by its page request group (for an on-demand region,
//! the slot of its token) from the page request to the match, and by queue pair and page again until it ends. A queue pair
//! may have several open faults, on different pages. Events arrive in causal order, but any of them may be missing,
//! duplicated or unrelated: guests answer groups that were never requested, queue pairs are destroyed with faults in flight,
//! events are lost under load. Such an event is counted as an anomaly, and the record stays incomplete.

use std::collections::VecDeque;

use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::{AddressSpace, PrgIndex};
use rustc_hash::FxHashMap;

use super::anomaly::{Anomalies, Anomaly};
use super::record::{FaultOutcome, FaultRecord, StageTimes};

/// Most open faults; far more than the 512 groups of a function.
const MAX_OPEN: usize = 4096;

/// Number of ended faults that are remembered.
const MAX_ENDED: usize = 256;

/// The state of all faults that have begun and not ended.
#[derive(Debug)]
pub(super) struct Assembler {
    open: FxHashMap<Key, Open>,
    /// Page request groups, and behind them the slots of page faults' tokens.
    groups: Vec<Option<Waiting>>,
    /// The group whose entry was queued last: an interrupt event without a group refers to it.
    last_queued: Option<PrgIndex>,
    /// The most recently ended faults.
    ended: VecDeque<Key>,
    pub(super) anomalies: Anomalies,
}

/// Queue pair, key of the on-demand region (if any), page, and whether the access is a write.
type Key = (u32, Option<u32>, u64, bool);

/// An open fault.
#[derive(Clone, Copy, Debug)]
struct Open {
    record: FaultRecord,
    /// Whether its page request has no matched response yet.
    waiting: bool,
}

/// An outstanding page request group.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    key: Key,
    space: AddressSpace,
    queued: Option<u64>,
    interrupt: Option<u64>,
    taken: Option<u64>,
    handling: Option<u64>,
    handled: Option<u64>,
    response: Option<u64>,
}

impl Assembler {
    /// Without open faults.
    pub(super) fn new() -> Self {
        Self {
            open: FxHashMap::default(),
            groups: vec![None; 2 * PrgIndex::COUNT],
            last_queued: None,
            ended: VecDeque::with_capacity(MAX_ENDED),
            anomalies: Anomalies::default(),
        }
    }

    /// Takes an event, and appends faults that it ends to `done`. Ignores invalidations.
    pub(super) fn take(&mut self, at: u64, scenario: u16, event: &ProbeEvent, done: &mut Vec<FaultRecord>) {
        match event.stage {
            Stage::Miss => self.miss(at, scenario, event, done),
            Stage::PageRequest => self.page_request(at, scenario, event, done),
            Stage::Queued => self.queued(at, event),
            Stage::Interrupt => self.interrupt(at, event),
            Stage::Taken => self.guest(event, |waiting| &mut waiting.taken, at),
            Stage::Handling => self.guest(event, |waiting| &mut waiting.handling, at),
            Stage::Handled => self.guest(event, |waiting| &mut waiting.handled, at),
            Stage::Response => self.response(at, event),
            Stage::Matched => self.matched(at, event),
            Stage::Copied => self.end(at, event, FaultOutcome::Copied, done),
            Stage::Failed => self.end(at, event, FaultOutcome::Failed, done),
            Stage::Invalidate | Stage::Invalidated => {}
        }
    }

    /// Number of open faults.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    fn miss(&mut self, at: u64, scenario: u16, event: &ProbeEvent, done: &mut Vec<FaultRecord>) {
        let key = key_of(event);
        match self.open.get_mut(&key) {
            Some(open) if open.is_of(scenario, event) => open.miss_again(at),
            // The queue pair number was reused, and the old fault's end was not recorded.
            Some(_) => {
                self.anomalies.count(Anomaly::MissTwice);
                self.abandon(key, at, done);
                self.begin(at, scenario, event, done);
            }
            None => self.begin(at, scenario, event, done),
        }
    }

    fn begin(&mut self, at: u64, scenario: u16, event: &ProbeEvent, done: &mut Vec<FaultRecord>) {
        if self.open.len() >= MAX_OPEN {
            self.anomalies.count(Anomaly::TooManyOpen);
            let oldest = self.open.iter().min_by_key(|(_, open)| open.record.times.miss);
            if let Some(key) = oldest.map(|(&key, _)| key) {
                self.abandon(key, at, done);
            }
        }
        let record = FaultRecord {
            scenario,
            qpn: event.qpn,
            space: event.space,
            iova: event.iova.align_down(12),
            write: event.write,
            group: None,
            requests: 0,
            outcome: FaultOutcome::Abandoned,
            times: StageTimes { miss: at, round: at, end: at, ..Default::default() },
        };
        self.open.insert(key_of(event), Open { record, waiting: false });
    }

    fn page_request(&mut self, at: u64, scenario: u16, event: &ProbeEvent, done: &mut Vec<FaultRecord>) {
        let Some(group) = event.group else { return self.anomalies.count(Anomaly::NoGroup) };
        let key = key_of(event);
        let slot = slot_of(event.space, group);
        if let Some(older) = self.groups[slot].take()
            && self.open.get(&older.key).is_some_and(|open| open.waits_for(group))
        {
            self.anomalies.count(Anomaly::GroupTwice);
            if older.key != key {
                self.abandon(older.key, at, done);
            }
        }
        if !self.open.contains_key(&key) {
            self.anomalies.count(Anomaly::RequestWithoutMiss);
            self.begin(at, scenario, event, done);
        }
        let Some(open) = self.open.get_mut(&key) else { return };
        if let (true, Some(older)) = (open.waiting, open.record.group)
            && older != group
        {
            self.anomalies.count(Anomaly::RequestTwice);
            self.groups[slot_of(event.space, older)].take_if(|waiting| waiting.key == key);
        }
        if open.record.times.page_request.is_some() {
            open.next_round(at);
        }
        open.waiting = true;
        open.record.group = Some(group);
        open.record.requests = open.record.requests.saturating_add(1);
        open.record.times.page_request = Some(at);
        self.groups[slot] = Some(Waiting::new(key, event.space));
    }

    /// A guest that is awake may respond before this event is timestamped, so a missing group is no anomaly.
    fn queued(&mut self, at: u64, event: &ProbeEvent) {
        if event.space.key().is_none() {
            self.last_queued = event.group;
        }
        if let Some(waiting) = self.waiting(event.space, event.group) {
            waiting.queued = waiting.queued.or(Some(at));
        }
    }

    /// Likewise for the interrupt; by then the group may even have been reused, which `queued` detects.
    fn interrupt(&mut self, at: u64, event: &ProbeEvent) {
        let group = event.group.or(self.last_queued.take());
        if let Some(waiting) = self.waiting(event.space, group).filter(|waiting| waiting.queued.is_some()) {
            waiting.interrupt = waiting.interrupt.or(Some(at));
        }
    }

    /// A stage that the guest reports.
    fn guest(&mut self, event: &ProbeEvent, field: impl Fn(&mut Waiting) -> &mut Option<u64>, at: u64) {
        if let Some(waiting) = self.waiting(event.space, event.group) {
            field(waiting).get_or_insert(at);
        }
    }

    fn response(&mut self, at: u64, event: &ProbeEvent) {
        match self.waiting(event.space, event.group) {
            None => self.anomalies.count(Anomaly::ResponseWithoutRequest),
            // The device matches by index and PASID: this response belongs to another request.
            Some(waiting) if waiting.space != event.space => self.anomalies.count(Anomaly::ResponseForeign),
            Some(waiting) => waiting.response = waiting.response.or(Some(at)),
        }
    }

    fn matched(&mut self, at: u64, event: &ProbeEvent) {
        let waiting = event.group.and_then(|group| self.groups[slot_of(event.space, group)].take());
        let Some(waiting) = waiting else { return self.anomalies.count(Anomaly::MatchedWithoutRequest) };
        // A prefetched page may be copied, or the device may give up, before the response arrives.
        let open =
            self.open.get_mut(&waiting.key).filter(|open| event.group.is_some_and(|g| open.waits_for(g)));
        if let Some(open) = open {
            open.record.times.matched = Some(at);
            open.adopt(&waiting);
        }
    }

    fn end(&mut self, at: u64, event: &ProbeEvent, outcome: FaultOutcome, done: &mut Vec<FaultRecord>) {
        let key = key_of(event);
        let Some(mut record) = self.close(key) else {
            // Every round may report an end; the first one ends the fault.
            if !self.ended.contains(&key) {
                self.anomalies.count(Anomaly::EndWithoutMiss);
            }
            return;
        };
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(key);
        record.times.end = at;
        record.outcome = match outcome {
            FaultOutcome::Copied if record.requests == 0 => FaultOutcome::Coalesced,
            other => other,
        };
        done.push(record);
    }

    fn waiting(&mut self, space: AddressSpace, group: Option<PrgIndex>) -> Option<&mut Waiting> {
        group.and_then(|group| self.groups[slot_of(space, group)].as_mut())
    }

    fn abandon(&mut self, key: Key, at: u64, done: &mut Vec<FaultRecord>) {
        if let Some(mut record) = self.close(key) {
            record.times.end = at;
            record.outcome = FaultOutcome::Abandoned;
            done.push(record);
        }
    }

    /// Removes an open fault, with the stages of its group. The group stays until its response arrives.
    fn close(&mut self, key: Key) -> Option<FaultRecord> {
        let mut open = self.open.remove(&key)?;
        let group = open.record.group.filter(|_| open.waiting);
        let waiting = group.and_then(|group| self.groups[slot_of(open.record.space, group)]);
        if let Some(waiting) = waiting.filter(|waiting| waiting.key == key) {
            open.adopt(&waiting);
        }
        Some(open.record)
    }
}

impl Waiting {
    fn new(key: Key, space: AddressSpace) -> Self {
        let (queued, interrupt, response) = (None, None, None);
        Self { key, space, queued, interrupt, taken: None, handling: None, handled: None, response }
    }
}

impl Open {
    /// Whether a miss belongs to this fault, not to a new queue pair with the same number.
    fn is_of(&self, scenario: u16, event: &ProbeEvent) -> bool {
        self.record.scenario == scenario && self.record.space == event.space
    }

    /// Whether this fault waits for the response to `group`.
    fn waits_for(&self, group: PrgIndex) -> bool {
        self.waiting && self.record.group == Some(group)
    }

    /// A miss after the match means that the page was gone again when the device retried. Before the match it only repeats
    /// the first one: when the device gets a credit, or reaches a prefetched page.
    fn miss_again(&mut self, at: u64) {
        if !self.waiting && self.record.times.matched.is_some() {
            self.next_round(at);
        }
    }

    /// Starts a new round, whose stages replace the earlier ones.
    fn next_round(&mut self, at: u64) {
        let times = &mut self.record.times;
        *times = StageTimes { miss: times.miss, round: at, end: at, ..Default::default() };
        self.waiting = false;
    }

    /// Copies the stages of its group.
    fn adopt(&mut self, waiting: &Waiting) {
        self.waiting = false;
        let times = &mut self.record.times;
        (times.queued, times.interrupt, times.response) =
            (waiting.queued, waiting.interrupt, waiting.response);
        (times.taken, times.handling, times.handled) = (waiting.taken, waiting.handling, waiting.handled);
    }
}

fn key_of(event: &ProbeEvent) -> Key {
    (event.qpn, event.space.key(), event.iova.0 >> 12, event.write)
}

/// Index of a group, or of a token's slot, in the table.
fn slot_of(space: AddressSpace, group: PrgIndex) -> usize {
    let slot = usize::from(group.get());
    if space.key().is_some() { PrgIndex::COUNT + slot } else { slot }
}
