//! Records of faults, requests and invalidations, assembled from probe events.
//!
//! [`Recorder`] is the probe of a running machine. It provides counts and percentiles by scenario while the machine runs
//! ([`Recorder::scenario_summary`]), and all records at the end ([`Recorder::records`]), from which
//! [`report`](crate::report) writes a run's folder.

mod anomaly;
mod assemble;
mod collect;
mod durations;
pub mod guest;
mod invalidations;
mod percentiles;
mod record;
mod recorder;
mod request;
mod stats;
mod store;

#[cfg(test)]
mod tests;

pub(crate) use durations::Durations;

pub use collect::{Observed, Records, ScenarioSpan};
pub use invalidations::Invalidation;
pub use percentiles::{Percentiles, Split};
pub use record::{Component, FaultOutcome, FaultRecord, FaultSplit, SEGMENTS, Segment, StageTimes};
pub use recorder::Recorder;
pub(crate) use request::RequestTimes;
pub use request::{REQUEST_STEPS, RequestRecord};
pub use stats::FaultSummary;
pub use store::FaultStore;
