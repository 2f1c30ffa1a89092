//! Counts of events that do not fit the expected order, for the reader of the report to judge.

use std::collections::BTreeMap;

/// The ways in which an event may not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Anomaly {
    MissTwice,
    TooManyOpen,
    NoGroup,
    GroupTwice,
    RequestWithoutMiss,
    RequestTwice,
    ResponseWithoutRequest,
    ResponseForeign,
    MatchedWithoutRequest,
    EndWithoutMiss,
    InvalidatedWithoutStart,
}

const NAMES: [&str; 11] = [
    "miss on a page whose fault is still open",
    "more faults open than the recorder tracks",
    "page request without a group",
    "group used again before its response was matched",
    "page request without a miss",
    "second page request while the first was unanswered",
    "response to no open group",
    "response with another address space than its group's",
    "match of no open group",
    "end of a fault that never began",
    "completion of an invalidation that never began",
];

/// A count of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Anomalies([u64; NAMES.len()]);

impl Anomalies {
    pub(super) fn count(&mut self, anomaly: Anomaly) {
        self.0[anomaly as usize] += 1;
    }

    /// The counts that are not zero, by description.
    pub(super) fn named(&self) -> BTreeMap<String, u64> {
        let counts = NAMES.iter().zip(self.0).filter(|&(_, count)| count > 0);
        counts.map(|(name, count)| (name.to_string(), count)).collect()
    }
}
