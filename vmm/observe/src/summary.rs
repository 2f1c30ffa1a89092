//! What a run came to, as `summary.json` holds it. Every figure is either the guest's own count, read from its
//! control channel, or the device's, taken from the probes; nothing is derived twice.

use serde::{Deserialize, Serialize};

use crate::trace::{Observed, Percentiles, Split};
use refault_os::speed::Speed;

/// One run of the demo: the whole of `summary.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// refault's version.
    pub version: String,
    /// When the run began, UTC, as `2026-01-31T12:34:56Z`.
    pub started: String,
    /// Pass only if every scenario passed and the guest's log is clean; slow if some were slow, and nothing failed.
    pub result: Outcome,
    /// Why the run as a whole failed, if not through a scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Wall-clock seconds from start to the guest's end.
    pub seconds: f64,
    /// Wall-clock seconds until the guest program's first line.
    pub boot_seconds: f64,
    /// What the run was made with.
    pub setup: Setup,
    /// The scenarios in the order they ran.
    pub scenarios: Vec<ScenarioSummary>,
    /// Lines of the guest's log that no healthy run has.
    pub guest_log: Vec<String>,
    /// What the recorder saw, kept and lost.
    #[serde(default)]
    pub observed: Observed,
}

/// What a run was made with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The command line that made the run, as one would type it.
    #[serde(default)]
    pub command: String,
    /// What ran the guest: `refault`, `qemu` or `nested`; of a model, its name.
    pub host: String,
    /// Guest vCPUs.
    pub cpus: u32,
    /// Guest kernel release.
    pub kernel: String,
    /// Size of the file that is written into, in bytes.
    pub file_bytes: u64,
    /// Multiplier of every scenario's goals: as asked for, or as the guest's speed allows.
    pub scale: f64,
    /// How fast the guest is.
    #[serde(default)]
    pub guest_speed: Speed,
    /// Queue pairs that write at the same time.
    pub queue_pairs: u32,
    /// Preset or file that the devices were slowed down to, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<String>,
}

/// Passed or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything held.
    Pass,
    /// Everything held, but the machine was too slow for it to prove something.
    Slow,
    /// Something did not, or it was never finished.
    #[default]
    Fail,
}

/// One scenario in one mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScenarioSummary {
    /// `steady`, `reflink-cow`, `exchange`, `punch`, `truncate`, `fsync`, `kill` or `pinned`.
    pub name: String,
    /// How the device finds the memory: `pasid` (the process' page table, through the IOMMU), `odp` (its own table, by
    /// way of its driver) or `pinned`.
    pub mode: String,
    /// Size of the mappings: `4k` or `2m`.
    pub mapping: String,
    /// Passed or not.
    pub result: Outcome,
    /// Why it failed, how far a slow one came, or what a passing one has to say (`pinned`: the errno the kernel refuses with).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Accesses of the device that missed and were resolved by the guest's kernel.
    pub faults: u64,
    /// Page requests, or page fault events, sent; more than `faults` where one access had to ask again.
    pub page_requests: u64,
    /// Blocks of 4 KiB whose place on the medium changed, by the file's extent maps.
    pub blocks_moved: u64,
    /// Bytes read back through the filesystem and found as acknowledged.
    pub bytes_verified: u64,
    /// Bytes found otherwise: lost, torn, misplaced, or in somebody else's block.
    pub bytes_wrong: u64,
    /// Acknowledged RDMA WRITEs.
    pub writes: u64,
    /// Their payload in bytes.
    pub bytes_written: u64,
    /// What the filesystem did meanwhile: copies, exchanges, punches, truncations, syncs, kills.
    pub operations: u64,
    /// Wall-clock seconds, as the guest measured them.
    pub seconds: f64,
    /// From the miss in the device TLB to the copy, in nanoseconds.
    pub fault_ns: Percentiles,
    /// Where that time went.
    pub split: Split,
}

impl ScenarioSummary {
    /// Mode and mappings in one, as records and reports name them.
    pub fn label(&self) -> String {
        mode_label(&self.mode, &self.mapping)
    }
}

/// Mode and mappings in one, as records and reports name them.
pub fn mode_label(mode: &str, mapping: &str) -> String {
    format!("{mode} {mapping}")
}
