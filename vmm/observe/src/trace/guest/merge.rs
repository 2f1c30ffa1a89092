//! Merges the guest's stages into the recorded faults.

use super::align::{ClockLine, ClockLines, Known};
use super::episode::{Episode, episodes};
use super::event::FaultKey;
use super::load::{GuestTrace, Reading};
use super::{Clocks, GuestSegment, GuestStages};
use crate::numbers::whole;
use crate::trace::durations::Durations;
use crate::trace::{FaultRecord, Records, SEGMENTS};

/// Bound on the difference of the clocks' offsets, in nanoseconds.
const FAR: f64 = 1e9;

/// A fault's request, as recorded and as the guest traced it.
#[derive(Clone, Copy, Debug)]
struct Pair {
    requested: u64,
    /// When the response was read; `None` if the device timed out first.
    answered: Option<u64>,
    episode: Episode,
}

impl GuestTrace {
    /// Adds the guest's stages to each fault, in the recorder's time, which starts at `origin` on the device's clock.
    pub fn merge(self, origin: u64, records: &mut Records) -> GuestStages {
        let mut stages = GuestStages {
            faults: records.faults.iter().filter(|fault| request(fault).is_some()).count() as u64,
            events: self.events.len() as u64,
            events_lost: self.lost,
            trouble: self.trouble,
            ..GuestStages::default()
        };
        let readings: Vec<_> = self.readings.iter().filter_map(|reading| since(reading, origin)).collect();
        let episodes = episodes(self.events);
        stages.requests = episodes.len() as u64;
        match Merge::new(&readings, episodes, records) {
            Ok(merge) => merge.apply(&mut stages, records),
            Err(why) => stages.not_split = Some(why),
        }
        stages
    }
}

/// A reading in the recorder's time.
fn since(reading: &Reading, origin: u64) -> Option<Reading> {
    Some(Reading { device: reading.device.checked_sub(origin)?, ..*reading })
}

/// The matched requests and faults, and the clocks' relation.
struct Merge {
    line: ClockLine,
    clocks: Clocks,
    /// In the order of the faults; `None` for faults without guest events.
    pairs: Vec<Option<Pair>>,
}

impl Merge {
    fn new(readings: &[Reading], episodes: Vec<Episode>, records: &Records) -> Result<Self, String> {
        let Some(first) = readings.first() else {
            return Err("its driver did not relate its clock to the NIC's".into());
        };
        if episodes.is_empty() {
            return Err("it reported no request".into());
        }
        let span = span(readings, &episodes);
        let any = || ClockLines::near(span, (first.before, first.device), FAR);
        let by_readings = any().with(readings.iter().flat_map(Reading::known));
        let coarse = by_readings.center().ok_or("readings of the clocks contradict each other")?;
        let slack = whole(by_readings.uncertainty().unwrap_or(FAR)) + 1;
        let mut matcher = Matcher { taken: vec![false; episodes.len()], episodes, line: coarse, slack };
        let pairs: Vec<_> = records.faults.iter().map(|fault| matcher.pair(&fault)).collect();
        let known = || pairs.iter().flatten().flat_map(Pair::known);
        let by_causality = any().with(known());
        let both = by_readings.clone().with(known());
        let (Some(line), Some(uncertainty)) = (both.center(), both.uncertainty()) else {
            return Err("the readings of the clocks and the causal order contradict each other".into());
        };
        let clocks = Clocks {
            offset_ns: line.offset_ns(),
            drift_ppb: line.drift_ppb(),
            uncertainty_ns: whole(uncertainty.ceil()),
            readings: readings.len() as u64,
            by_readings: by_readings.offsets_ns().unwrap_or_default(),
            by_causality: by_causality.offsets_ns().unwrap_or_default(),
        };
        Ok(Self { line, clocks, pairs })
    }

    fn apply(&self, stages: &mut GuestStages, records: &mut Records) {
        let mut pairs = self.pairs.iter();
        records.faults.update(|fault| {
            if let Some(Some(pair)) = pairs.next() {
                pair.fill(fault, self.line);
            }
        });
        stages.split = self.pairs.iter().flatten().count() as u64;
        stages.requests_unmatched = stages.requests - stages.split;
        stages.clocks = Some(self.clocks);
        stages.segments = segments(records, self.clocks.uncertainty_ns);
    }
}

impl Reading {
    fn known(&self) -> [Known; 2] {
        [Known::AtLeast(self.after, self.device), Known::AtMost(self.before, self.device)]
    }
}

impl Pair {
    fn known(&self) -> impl Iterator<Item = Known> + use<> {
        let sent = Known::AtLeast(self.episode.first(), self.requested);
        let last = self.episode.last();
        [sent].into_iter().chain(self.answered.map(|answered| Known::AtMost(last, answered)))
    }

    fn fill(&self, fault: &mut FaultRecord, line: ClockLine) {
        // Rounding alone could violate this order.
        let until = self.answered.unwrap_or(fault.times.end).max(self.requested);
        let time = |at: Option<u64>| at.map(|at| line.recorder(at).clamp(self.requested, until));
        fault.times.taken = time(self.episode.taken);
        fault.times.handling = time(self.episode.handling);
        fault.times.handled = time(self.episode.handled);
    }
}

/// Key and time of the request that a fault sent in its last round.
fn request(fault: &FaultRecord) -> Option<(FaultKey, u64)> {
    Some(((fault.space, fault.group?), fault.times.page_request?))
}

/// The span of guest time from the first to the last reading or event.
fn span(readings: &[Reading], episodes: &[Episode]) -> (u64, u64) {
    let read = readings.iter().map(|reading| (reading.before, reading.after));
    let traced = episodes.iter().map(|episode| (episode.first(), episode.last()));
    read.chain(traced).fold((u64::MAX, 0), |(from, to), (first, last)| (from.min(first), to.max(last)))
}

/// Finds each fault's episode: the one with its key and page between the request and its response. A key is not reused in
/// that time, so there is at most one.
struct Matcher {
    episodes: Vec<Episode>,
    taken: Vec<bool>,
    line: ClockLine,
    /// Worst-case error of the line, in nanoseconds.
    slack: u64,
}

impl Matcher {
    fn pair(&mut self, fault: &FaultRecord) -> Option<Pair> {
        let ((space, group), requested) = request(fault)?;
        let answered = fault.times.response;
        let until = answered.unwrap_or(fault.times.end).saturating_add(self.slack);
        let before = |episode: &Episode| {
            let at = self.line.recorder(episode.first()).saturating_add(self.slack);
            (episode.fault.0, episode.fault.1, at) < (space, group, requested)
        };
        let start = self.episodes.partition_point(before);
        let fits = |episode: &Episode| episode.page.is_none_or(|page| page == fault.iova.0 & !0xfff);
        let index = (start..self.episodes.len())
            .take_while(|&index| {
                let episode = &self.episodes[index];
                episode.fault == (space, group) && self.line.recorder(episode.first()) <= until
            })
            .find(|&index| !self.taken[index] && fits(&self.episodes[index]))?;
        self.taken[index] = true;
        Some(Pair { requested, answered, episode: self.episodes[index] })
    }
}

/// Statistics of the guest's segments.
fn segments(records: &Records, uncertainty: u64) -> Vec<GuestSegment> {
    let [.., wakes, waits, maps, responds, _, _] = SEGMENTS;
    let of = |name: &'static str| {
        let mut lengths = Durations::new();
        let mut below = 0;
        let split = records.faults.iter().filter(|fault| fault.times.taken.is_some());
        for segment in split.flat_map(|fault| fault.times.segments()).filter(|segment| segment.name == name) {
            let ns = segment.to - segment.from;
            lengths.record(ns);
            below += u64::from(ns < uncertainty);
        }
        let crosses_clocks = name == wakes || name == responds;
        let below_uncertainty = if crosses_clocks { below } else { 0 };
        let (faults, ns) = (lengths.count(), lengths.percentiles());
        GuestSegment { name: name.into(), faults, ns, crosses_clocks, below_uncertainty }
    };
    [wakes, waits, maps, responds].map(of).into_iter().filter(|segment| segment.faults > 0).collect()
}
