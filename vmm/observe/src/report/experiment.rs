//! `experiment.json`: the description of a run, and statistics that `faults.csv` does not contain.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::trace::{Durations, Observed};

/// A run that is not a demo: a program in a guest, or an experiment of the lab.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExperimentReport {
    /// Version of refault.
    pub version: String,
    /// Title of the run.
    pub title: String,
    /// The command line that repeats the run, quoted for a shell; empty if there is none.
    #[serde(default)]
    pub command: String,
    /// The clock of all times.
    pub time: TimeBase,
    /// Configuration of the run.
    #[serde(default)]
    pub facts: Vec<FactGroup>,
    /// The program's statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestFigures>,
    /// Statistics of the guest's fault handlers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handlers: Option<HandlerFigures>,
    /// Published figures of the system that the timing is taken from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paper: Vec<Published>,
    /// Counts of what the recorder observed, kept and lost.
    #[serde(default)]
    pub observed: Observed,
}

/// The clock of a run's times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeBase {
    /// Wall time of a guest; whether on real or emulated CPUs was not recorded.
    #[default]
    Unknown,
    /// Wall time of a guest on this machine's KVM.
    Real,
    /// Wall time of a guest on emulated CPUs.
    Emulated,
    /// The virtual clock of the model.
    Virtual,
}

impl TimeBase {
    /// A short label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "wall time",
            Self::Real => "wall time of a real guest",
            Self::Emulated => "wall time of an emulated CPU",
            Self::Virtual => "virtual time of the model",
        }
    }

    /// What the clock means for the figures.
    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Unknown => "Whether the guest ran on real or on emulated CPUs was not recorded.",
            Self::Real => {
                "The guest ran on this machine's KVM. Its part is the time of its kernel; the parts of device and IOMMU are the times of this software, and say nothing about hardware."
            }
            Self::Emulated => {
                "The guest ran on KVM inside a machine that QEMU emulates. Compare these times with each other, not with hardware or with other machines."
            }
            Self::Virtual => {
                "No software was timed: the device's and the IOMMU's own code ran on a virtual clock, with a model of the guest, and every step took the time that the scenario's timing gives it."
            }
        }
    }

    /// A label for `trace.json`.
    pub(super) const fn clock(self) -> &'static str {
        match self {
            Self::Virtual => "virtual time of the model since the experiment's start",
            _ => "CLOCK_MONOTONIC since the recorder's start",
        }
    }
}

/// A group of facts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FactGroup {
    /// Heading of the group.
    pub title: String,
    /// Names and formatted values.
    pub facts: Vec<(String, String)>,
}

/// The program's statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFigures {
    /// Requests that succeeded.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Payload bytes of those that succeeded.
    pub bytes: u64,
    /// Nanoseconds from the first arrival to the last completion.
    pub duration_ns: u64,
    /// Recorded latencies in nanoseconds, ascending, each with its count.
    pub latency_ns: Vec<(u64, u64)>,
}

impl RequestFigures {
    /// Converts a histogram to the form of [`Self::latency_ns`].
    pub fn recorded(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
        let max = histogram.max();
        histogram
            .iter_recorded()
            .map(|step| (step.value_iterated_to().min(max), step.count_at_value()))
            .collect()
    }

    /// The distribution of latencies.
    pub(super) fn latency(&self) -> Durations {
        let mut durations = Durations::new();
        for &(ns, times) in &self.latency_ns {
            durations.record_many(ns, u32::try_from(times).unwrap_or(u32::MAX));
        }
        durations
    }
}

/// Statistics of the guest's fault handlers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerFigures {
    /// Number of handlers.
    pub handlers: u64,
    /// Handled faults.
    pub faults: u64,
    /// Pages that were mapped along with a faulting one.
    pub prefetched: u64,
    /// Mean nanoseconds from arrival at the handlers to the start of handling.
    pub mean_wait_ns: u64,
    /// Total time that handlers were busy, in nanoseconds.
    pub busy_ns: u64,
    /// Most faults that waited or were being handled at one time.
    pub most_outstanding: u64,
}

/// A published figure, and the same figure of this run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Description of the figure: `4 KiB message, cold: median`.
    pub what: String,
    /// The published value.
    pub published_ns: u64,
    /// The publication, and the certainty of the figure.
    pub source: String,
    /// The value of this run.
    pub measured_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_survive_the_file() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=5_000u64).for_each(|ns| histogram.record(ns * 731).unwrap());
        let requests =
            RequestFigures { latency_ns: RequestFigures::recorded(&histogram), ..RequestFigures::default() };
        let text = serde_json::to_string(&requests).unwrap();
        let latency = serde_json::from_str::<RequestFigures>(&text).unwrap().latency();
        assert_eq!(latency.count(), 5_000);
        assert_eq!(latency.max(), histogram.max());
        for quantile in [0.5, 0.99, 0.999] {
            assert_eq!(latency.at(quantile), histogram.value_at_quantile(quantile).min(latency.max()));
        }
    }
}
