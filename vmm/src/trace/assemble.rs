//! From single events to whole faults.
//!
//! A fault is known by its queue pair and page from the miss on, by its page request group from the page
//! request to the match, and by queue pair and page again until it ends. A queue pair may have several open,
//! on different pages. Events come in the order of their causes, but any of them may be missing, doubled, or
//! belong to nothing: a guest answers groups it was never asked about, queue pairs die with faults in flight,
//! events are lost under load. Then a count goes up, the record stays incomplete, and nothing else happens.

use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::{Pasid, PrgIndex};
use rustc_hash::FxHashMap;

use super::anomaly::{Anomalies, Anomaly};
use super::record::{FaultOutcome, FaultRecord, StageTimes};

/// Faults that can be open at one time; far more than the 512 groups of a function.
const MAX_OPEN: usize = 4096;

/// The state of all faults that have begun and not ended.
#[derive(Debug)]
pub(super) struct Assembler {
    open: FxHashMap<Key, Open>,
    groups: Vec<Option<Waiting>>,
    /// The group whose entry was queued last: an interrupt event that names no group is about it.
    last_queued: Option<PrgIndex>,
    pub(super) anomalies: Anomalies,
}

/// Queue pair, page, and whether it is wanted for writing.
type Key = (u32, u64, bool);

/// A fault under way.
#[derive(Clone, Copy, Debug)]
struct Open {
    record: FaultRecord,
    /// Its page request has no matched response yet.
    waiting: bool,
}

/// A page request group under way.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    key: Key,
    pasid: Option<Pasid>,
    queued: Option<u64>,
    interrupt: Option<u64>,
    response: Option<u64>,
}

impl Assembler {
    /// No fault under way.
    pub(super) fn new() -> Self {
        Self {
            open: FxHashMap::default(),
            groups: vec![None; PrgIndex::COUNT],
            last_queued: None,
            anomalies: Anomalies::default(),
        }
    }

    /// Takes one event of the fault path and appends the faults that it ended to `done`. Invalidation events
    /// are not of the fault path.
    pub(super) fn take(&mut self, at: u64, scenario: u16, event: &ProbeEvent, done: &mut Vec<FaultRecord>) {
        match event.stage {
            Stage::Miss => self.miss(at, scenario, event, done),
            Stage::PageRequest => self.page_request(at, scenario, event, done),
            Stage::Queued => {
                self.last_queued = event.group;
                self.stamp(event.group, Anomaly::QueuedWithoutRequest, |group| &mut group.queued, at);
            }
            Stage::Interrupt => self.interrupt(at, event),
            Stage::Response => self.response(at, event),
            Stage::Matched => self.matched(at, event),
            Stage::Copied => self.end(at, event, FaultOutcome::Copied, done),
            Stage::Failed => self.end(at, event, FaultOutcome::Failed, done),
            Stage::Invalidate | Stage::Invalidated => {}
        }
    }

    /// Faults that have begun and not ended.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    fn miss(&mut self, at: u64, scenario: u16, event: &ProbeEvent, done: &mut Vec<FaultRecord>) {
        let key = key_of(event);
        match self.open.get_mut(&key) {
            // The device had to wait before it could ask, for a credit or its turn: it is still the same fault.
            Some(open) if open.is_idle_in(scenario, event) && open.record.requests == 0 => {}
            // The page was gone again when the device looked: a further round of the same fault.
            Some(open) if open.is_idle_in(scenario, event) => open.next_round(at),
            // The number has a new owner, and the end of the old one's fault was never seen.
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
            pasid: event.pasid,
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
        if let Some(older) = self.groups[usize::from(group.get())].take() {
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
            self.groups[usize::from(older.get())].take_if(|waiting| waiting.key == key);
        }
        if open.record.times.page_request.is_some() {
            open.next_round(at);
        }
        open.waiting = true;
        open.record.group = Some(group);
        open.record.requests = open.record.requests.saturating_add(1);
        open.record.times.page_request = Some(at);
        self.groups[usize::from(group.get())] =
            Some(Waiting { key, pasid: event.pasid, queued: None, interrupt: None, response: None });
    }

    /// Notes a time in an open group.
    fn stamp(
        &mut self,
        group: Option<PrgIndex>,
        otherwise: Anomaly,
        field: impl FnOnce(&mut Waiting) -> &mut Option<u64>,
        at: u64,
    ) {
        let waiting = group.and_then(|group| self.groups[usize::from(group.get())].as_mut());
        match waiting.map(field) {
            Some(time) => *time = time.or(Some(at)),
            None => self.anomalies.count(otherwise),
        }
    }

    /// A guest that was awake already may have answered before the interrupt is even stamped, and the group may
    /// have its next owner: that is no anomaly, and no step of anybody's path.
    fn interrupt(&mut self, at: u64, event: &ProbeEvent) {
        let group = event.group.or(self.last_queued.take());
        let waiting = group.and_then(|group| self.groups[usize::from(group.get())].as_mut());
        if let Some(waiting) = waiting.filter(|waiting| waiting.queued.is_some()) {
            waiting.interrupt = waiting.interrupt.or(Some(at));
        }
    }

    fn response(&mut self, at: u64, event: &ProbeEvent) {
        let expected = event.group.and_then(|group| self.groups[usize::from(group.get())]);
        if expected.is_some_and(|waiting| waiting.pasid != event.pasid) {
            // A group is matched by index and PASID: the answer is to somebody else.
            return self.anomalies.count(Anomaly::ResponseForeign);
        }
        self.stamp(event.group, Anomaly::ResponseWithoutRequest, |group| &mut group.response, at);
    }

    fn matched(&mut self, at: u64, event: &ProbeEvent) {
        let waiting = event.group.and_then(|group| self.groups[usize::from(group.get())].take());
        let Some(waiting) = waiting else { return self.anomalies.count(Anomaly::MatchedWithoutRequest) };
        let Some(open) = self.open.get_mut(&waiting.key) else {
            return self.anomalies.count(Anomaly::MatchedAfterEnd);
        };
        open.record.times.matched = Some(at);
        open.adopt(&waiting);
    }

    fn end(&mut self, at: u64, event: &ProbeEvent, outcome: FaultOutcome, done: &mut Vec<FaultRecord>) {
        let key = key_of(event);
        let last_group = self.open.get(&key).and_then(|open| open.record.group);
        if last_group.is_some() && event.group.is_some() && last_group != event.group {
            // The end of an earlier round of this fault: the device reports each.
            return;
        }
        let Some(mut record) = self.close(key) else {
            return self.anomalies.count(Anomaly::EndWithoutMiss);
        };
        record.times.end = at;
        record.outcome = match outcome {
            FaultOutcome::Copied if record.requests == 0 => FaultOutcome::Coalesced,
            other => other,
        };
        done.push(record);
    }

    fn abandon(&mut self, key: Key, at: u64, done: &mut Vec<FaultRecord>) {
        if let Some(mut record) = self.close(key) {
            record.times.end = at;
            record.outcome = FaultOutcome::Abandoned;
            done.push(record);
        }
    }

    /// Takes a fault out of both tables, with what its group has seen.
    fn close(&mut self, key: Key) -> Option<FaultRecord> {
        let mut open = self.open.remove(&key)?;
        if open.waiting
            && let Some(group) = open.record.group
        {
            let slot = &mut self.groups[usize::from(group.get())];
            if let Some(waiting) = slot.take_if(|waiting| waiting.key == key) {
                open.adopt(&waiting);
            }
        }
        Some(open.record)
    }
}

impl Open {
    /// Whether a miss like `event` is this fault's: nothing is being waited for, and the owner is the same.
    fn is_idle_in(&self, scenario: u16, event: &ProbeEvent) -> bool {
        !self.waiting && self.record.scenario == scenario && self.record.pasid == event.pasid
    }

    /// Starts over: what counts from now on are the stages of the new round.
    fn next_round(&mut self, at: u64) {
        let times = &mut self.record.times;
        *times = StageTimes { miss: times.miss, round: at, end: at, ..Default::default() };
        self.waiting = false;
    }

    /// Takes over what was seen of its group.
    fn adopt(&mut self, waiting: &Waiting) {
        self.waiting = false;
        let times = &mut self.record.times;
        (times.queued, times.interrupt, times.response) =
            (waiting.queued, waiting.interrupt, waiting.response);
    }
}

fn key_of(event: &ProbeEvent) -> Key {
    (event.qpn, event.iova.0 >> 12, event.write)
}
