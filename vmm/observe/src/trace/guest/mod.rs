//! The guest's part of faults, from the trace of its kernel.
//!
//! In the guest, init traces the handling of page requests and of the driver's page faults, and saves the events, with
//! paired readings of both clocks, in a folder (`vmm/guest/src/image/init/trace.c`). Here the events become episodes, one for
//! each request; the clocks are aligned; and each recorded fault gets the stages of its request.

mod align;
mod episode;
mod event;
mod format;
mod load;
mod merge;
mod ring;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use load::GuestTrace;

use crate::trace::percentiles::Percentiles;

/// Path, in the guest, of the folder with the files for [`GuestTrace::load`].
pub const FOLDER: &str = "/refault-stages";

/// How the guest's part of faults was split: what was matched and lost, and how well the clocks agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStages {
    /// Kept faults that sent a request of their own.
    pub faults: u64,
    /// Those of them that were matched with the guest's events.
    pub split: u64,
    /// Why none could be matched.
    pub not_split: Option<String>,
    /// Guest events that were read.
    pub events: u64,
    /// Events that the guest kernel dropped, by its own count.
    pub events_lost: u64,
    /// Requests in the guest's events.
    pub requests: u64,
    /// Those that match no kept fault: of earlier rounds, of prefetched pages, or of faults without a record.
    pub requests_unmatched: u64,
    /// What the guest could not trace.
    pub trouble: Vec<String>,
    /// The relation of its clock to the recorder's.
    pub clocks: Option<Clocks>,
    /// The segments of the guest's part.
    pub segments: Vec<GuestSegment>,
}

/// The relation of the guest's clock to the recorder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// How far the recorder's clock is ahead in the middle of the run, in nanoseconds.
    pub offset_ns: i64,
    /// How much faster it runs, in parts per billion.
    pub drift_ppb: i64,
    /// Worst-case error of a guest time converted to the recorder's clock, in nanoseconds.
    pub uncertainty_ns: u64,
    /// Paired readings of both clocks, by the guest's driver.
    pub readings: u64,
    /// The range of offsets that the readings allow, in nanoseconds.
    pub by_readings: (i64, i64),
    /// The range of offsets that the faults allow, in nanoseconds: no entry is taken before it was sent, and no response is
    /// read before it was written.
    pub by_causality: (i64, i64),
}

/// One segment of the guest's part, over all matched faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSegment {
    /// One of [`SEGMENTS`](super::SEGMENTS).
    pub name: String,
    /// Faults that have the segment.
    pub faults: u64,
    /// Its duration in nanoseconds.
    pub ns: Percentiles,
    /// Whether its ends are on different clocks, so that their uncertainty affects it.
    pub crosses_clocks: bool,
    /// Faults in which it was shorter than that uncertainty.
    pub below_uncertainty: u64,
}

impl GuestStages {
    /// A one-line summary.
    pub fn line(&self) -> String {
        let trouble = self.trouble.iter().map(|line| format!("; {line}")).collect::<String>();
        if let Some(why) = &self.not_split {
            return format!("the guest's part of the faults is not split: {why}{trouble}");
        }
        let of = |segment: &GuestSegment| {
            let doubt = match 2 * segment.below_uncertainty > segment.faults {
                true => " (less than the clocks' uncertainty)",
                false => "",
            };
            format!("{} {:.1} us{doubt}", segment.name, segment.ns.p50 as f64 / 1e3)
        };
        let segments: Vec<_> = self.segments.iter().map(of).collect();
        let clocks = self
            .clocks
            .map(|clocks| format!("; the clocks agree within {:.1} us", clocks.uncertainty_ns as f64 / 1e3));
        let lost = match self.events_lost {
            0 => String::new(),
            lost => format!("; {lost} events of the guest were lost"),
        };
        format!(
            "the guest reported its part of {} of {} faults, medians: {}{}{lost}",
            self.split,
            self.faults,
            segments.join(", "),
            clocks.unwrap_or_default()
        )
    }
}
