//! `experiment.json`: what a run was, and what its program saw, as far as `faults.csv` does not say it.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::trace::{Durations, Observed};

/// A run that is no demo: a program in a guest, or an experiment of the lab.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// refault's version.
    pub version: String,
    /// What the run is called.
    pub title: String,
    /// The command line that makes it again, as one would type it; empty if there is none.
    #[serde(default)]
    pub command: String,
    /// Whose time the times are.
    pub time: TimeBase,
    /// What the run was made with.
    #[serde(default)]
    pub facts: Vec<FactGroup>,
    /// What the program saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
    /// What the guest's fault handlers saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handlers: Option<Handlers>,
    /// What was published of the system that the timing is taken from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paper: Vec<Published>,
    /// What the recorder saw, kept and lost.
    #[serde(default)]
    pub observed: Observed,
}

/// Whose time the times of a run are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeBase {
    /// Wall time, of a guest on one or the other: that was not kept.
    #[default]
    Unknown,
    /// Wall time of a guest that this machine's KVM ran.
    Real,
    /// Wall time of a guest on an emulated CPU.
    Emulated,
    /// The virtual clock of the model.
    Virtual,
}

impl TimeBase {
    /// In a few words, for a label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "wall time",
            Self::Real => "wall time of a real guest",
            Self::Emulated => "wall time of an emulated CPU",
            Self::Virtual => "virtual time of the model",
        }
    }

    /// What that means for the numbers.
    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Unknown => "Whether the guest ran on real or on emulated CPUs was not recorded.",
            Self::Real => {
                "The guest ran on this machine's KVM. Its part is what its kernel took; the parts of device and IOMMU are what this software took, and say nothing of any hardware."
            }
            Self::Emulated => {
                "The guest ran on KVM inside a machine that QEMU emulates. Compare these times with each other, not with hardware or with other machines."
            }
            Self::Virtual => {
                "No software was timed: the device's and the IOMMU's own code ran on a virtual clock, with a model of the guest, and every step took what the scenario's timing says."
            }
        }
    }

    /// The same for `trace.json`.
    pub(super) const fn clock(self) -> &'static str {
        match self {
            Self::Virtual => "virtual time of the model since the experiment's start",
            _ => "CLOCK_MONOTONIC since the recorder's start",
        }
    }
}

/// Facts that belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FactGroup {
    /// Their heading.
    pub title: String,
    /// Names and values, as people read them.
    pub facts: Vec<(String, String)>,
}

/// What the program saw of its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Requests that succeeded.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Payload bytes of those that succeeded.
    pub bytes: u64,
    /// From the first arrival to the last completion.
    pub duration_ns: u64,
    /// Latencies in nanoseconds that occurred, each with how often, ascending.
    pub latency_ns: Vec<(u64, u64)>,
}

impl Requests {
    /// A histogram as [`Self::latency_ns`] holds it.
    pub fn recorded(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
        let max = histogram.max();
        histogram
            .iter_recorded()
            .map(|step| (step.value_iterated_to().min(max), step.count_at_value()))
            .collect()
    }

    /// The latencies.
    pub(super) fn latency(&self) -> Durations {
        let mut durations = Durations::new();
        for &(ns, times) in &self.latency_ns {
            durations.note_many(ns, u32::try_from(times).unwrap_or(u32::MAX));
        }
        durations
    }
}

/// What the guest's fault handlers saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handlers {
    /// How many there are.
    pub handlers: u64,
    /// Faults handled.
    pub faults: u64,
    /// Pages mapped with them ahead of their use.
    pub prefetched: u64,
    /// Mean wait from arrival at the handlers to the begin of the handling.
    pub mean_wait_ns: u64,
    /// Sum of the time that handlers were busy.
    pub busy_ns: u64,
    /// Most faults that waited or were handled at one time.
    pub most_outstanding: u64,
}

/// A figure of a publication, and the same figure of this run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// What the figure is: `4 KiB message, cold: median`.
    pub what: String,
    /// What was published.
    pub published_ns: u64,
    /// Where, and how sure it is.
    pub source: String,
    /// What this run came to.
    pub measured_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_survive_the_file() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=5_000u64).for_each(|ns| histogram.record(ns * 731).unwrap());
        let requests = Requests { latency_ns: Requests::recorded(&histogram), ..Requests::default() };
        let text = serde_json::to_string(&requests).unwrap();
        let latency = serde_json::from_str::<Requests>(&text).unwrap().latency();
        assert_eq!(latency.count(), 5_000);
        assert_eq!(latency.max(), histogram.max());
        for quantile in [0.5, 0.99, 0.999] {
            assert_eq!(latency.at(quantile), histogram.value_at_quantile(quantile).min(latency.max()));
        }
    }
}
