//! Counts that are comparable between the virtual clock and a real guest.

use serde::{Deserialize, Serialize};

use refault_observe::trace::{FaultOutcome, FaultRecord, Invalidation, Records};

/// Page size in bytes.
const PAGE: u64 = 4096;

/// Events during an experiment's load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Faults that ended in a copy, coalesced ones included.
    pub faults: u64,
    /// Page requests, or page fault events, that were sent.
    pub page_requests: u64,
    /// Faults with a response.
    pub responses: u64,
    /// Invalidations of memory between the first and the last page that faulted.
    pub invalidations: u64,
}

impl Counts {
    /// Counts the first scenario of the records.
    pub fn of(records: &Records) -> Self {
        let Some(span) = records.scenarios.get(1) else { return Self::default() };
        let faults = || records.faults.iter().filter(|fault| fault.scenario == 1);
        let within = Pages::of(faults());
        let copied =
            |fault: &FaultRecord| matches!(fault.outcome, FaultOutcome::Copied | FaultOutcome::Coalesced);
        let meanwhile =
            |at: &&Invalidation| (span.begin..=span.end).contains(&at.start) && within.contain(at);
        Self {
            faults: faults().filter(copied).count() as u64,
            page_requests: faults().map(|fault| u64::from(fault.requests)).sum(),
            responses: faults().filter(|fault| fault.times.response.is_some()).count() as u64,
            invalidations: records.invalidations.iter().filter(meanwhile).count() as u64,
        }
    }

    /// Formats the counts in a line.
    pub fn line(&self) -> String {
        let Self { faults, page_requests, responses, invalidations } = self;
        format!(
            "{faults} faults, {page_requests} page requests, {responses} responses, {invalidations} invalidations"
        )
    }
}

/// The range from the first to the last faulting page.
#[derive(Clone, Copy, Debug)]
struct Pages {
    first: u64,
    end: u64,
}

impl Pages {
    fn of(faults: impl Iterator<Item = FaultRecord>) -> Self {
        faults.fold(Self { first: u64::MAX, end: 0 }, |Self { first, end }, fault| Self {
            first: first.min(fault.iova.0),
            end: end.max(fault.iova.0.saturating_add(PAGE)),
        })
    }

    /// Whether an invalidation's block lies inside. An invalidation of everything does not count.
    fn contain(&self, invalidation: &Invalidation) -> bool {
        let bytes = 1u64.checked_shl(invalidation.size_shift.into()).unwrap_or(u64::MAX);
        let at = invalidation.iova.0;
        self.first <= at && at.checked_add(bytes).is_some_and(|end| end <= self.end)
    }
}

#[cfg(test)]
mod tests {
    use refault_bus::{AddressSpace, Iova};

    use super::*;
    use refault_observe::trace::{FaultStore, Observed, ScenarioSpan, StageTimes};

    fn fault(scenario: u16, page: u64, outcome: FaultOutcome, requests: u32) -> FaultRecord {
        let response = (requests > 0).then_some(20);
        FaultRecord {
            scenario,
            qpn: 1,
            space: AddressSpace::Region(1),
            iova: Iova(page * PAGE),
            write: true,
            group: None,
            requests,
            outcome,
            times: StageTimes { miss: 10, round: 10, response, end: 30, ..StageTimes::default() },
        }
    }

    #[test]
    fn only_events_of_the_load_count() {
        let mut faults = FaultStore::new(10);
        faults.push(&fault(0, 1, FaultOutcome::Copied, 1));
        faults.push(&fault(1, 5, FaultOutcome::Copied, 2));
        faults.push(&fault(1, 9, FaultOutcome::Coalesced, 0));
        faults.push(&fault(1, 7, FaultOutcome::Failed, 1));
        let invalidation = |start, page: u64, size_shift| Invalidation {
            start,
            duration: 1,
            space: AddressSpace::Function,
            iova: Iova(page * PAGE),
            size_shift,
        };
        let records = Records {
            scenarios: vec![
                ScenarioSpan::default(),
                ScenarioSpan { begin: 5, end: 50, ..ScenarioSpan::default() },
            ],
            faults,
            invalidations: vec![
                invalidation(10, 5, 12),
                invalidation(50, 8, 13),
                invalidation(60, 5, 12),
                invalidation(10, 9, 13),
                invalidation(10, 1, 12),
                invalidation(10, 5, 64),
            ],
            requests: Vec::new(),
            observed: Observed::default(),
        };
        let counts = Counts::of(&records);
        assert_eq!(counts, Counts { faults: 2, page_requests: 3, responses: 2, invalidations: 2 });
        assert!(counts.line().starts_with("2 faults, 3 page requests"));
    }
}
