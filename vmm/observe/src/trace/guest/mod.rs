//! The guest's part of a fault, as its own kernel tells it.
//!
//! Init has the kernel trace its handling of page requests and of the driver's page faults, and leaves the events and
//! pairs of readings of both clocks in a folder (`vmm/guest/src/image/init/trace.c`). Here the events become what the guest did
//! about each request, the clocks are aligned, and each fault that was recorded gets the stages of its request.

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

/// The folder in the guest with the files for [`GuestTrace::load`].
pub const FOLDER: &str = "/refault-stages";

/// How the guest's part of the faults was split: what was matched, what was lost, how well the clocks agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStages {
    /// Faults kept one by one that sent a request of their own.
    pub faults: u64,
    /// Those of them that the guest told of.
    pub split: u64,
    /// Why none were, if none could be.
    pub not_split: Option<String>,
    /// Events of the guest that were read.
    pub events: u64,
    /// Events that its kernel had no room for, by its own count.
    pub events_lost: u64,
    /// Requests that the guest told of.
    pub requests: u64,
    /// Those that are no kept fault's: of earlier rounds, of pages asked for ahead, or of faults that were not kept.
    pub requests_unmatched: u64,
    /// What the guest could not trace.
    pub trouble: Vec<String>,
    /// How its clock was compared with the recorder's.
    pub clocks: Option<Clocks>,
    /// The segments of its part.
    pub segments: Vec<GuestSegment>,
}

/// The guest's clock and the recorder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// How far the recorder's is ahead in the middle of the run, in nanoseconds.
    pub offset_ns: i64,
    /// By how much it runs faster, in parts of 1,000,000,000.
    pub drift_ppb: i64,
    /// By how much a time of the guest may be wrong in the recorder's, at worst.
    pub uncertainty_ns: u64,
    /// Readings of both clocks side by side, by the guest's driver.
    pub readings: u64,
    /// Offsets that these alone leave possible.
    pub by_readings: (i64, i64),
    /// Offsets that are possible by the faults alone: nothing is taken before it was sent, and no answer is read before
    /// it was given.
    pub by_causality: (i64, i64),
}

/// One segment of the guest's part, over all faults that were split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSegment {
    /// Its name: one of [`SEGMENTS`](super::SEGMENTS).
    pub name: String,
    /// Faults that have it.
    pub faults: u64,
    /// How long it took.
    pub ns: Percentiles,
    /// One end is on the guest's clock and one on the recorder's, so that the clocks' uncertainty is in it.
    pub crosses_clocks: bool,
    /// How many of these were shorter than that uncertainty: their length says no more than so.
    pub below_uncertainty: u64,
}

impl GuestStages {
    /// In a line, for people.
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
            "the guest told its part of {} of {} faults, medians: {}{}{lost}",
            self.split,
            self.faults,
            segments.join(", "),
            clocks.unwrap_or_default()
        )
    }
}
