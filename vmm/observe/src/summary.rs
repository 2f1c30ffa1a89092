//! The result of a demo run: `summary.json`. Each figure is either a count of the guest, from its control channel, or of
//! the device, from the probes.

use serde::{Deserialize, Serialize};

use crate::trace::{Observed, Percentiles, Split};
use refault_os::speed::Speed;

/// One run of the demo: the contents of `summary.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Version of refault.
    pub version: String,
    /// Start of the run in UTC, as `2026-01-31T12:34:56Z`.
    pub started: String,
    /// Pass if every scenario passed and the guest's log is clean; slow if some were slow and none failed.
    pub result: RunResult,
    /// Why the run failed as a whole, other than through a scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Wall-clock seconds from the start to the end of the guest.
    pub seconds: f64,
    /// Wall-clock seconds until the guest program's first line.
    pub boot_seconds: f64,
    /// Configuration of the run.
    pub setup: RunSetup,
    /// The scenarios in the order they ran.
    pub scenarios: Vec<ScenarioSummary>,
    /// Lines of the guest's log that a healthy run does not have.
    pub guest_log: Vec<String>,
    /// Counters of the frames of each mode over a wire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkSummary>,
    /// What the recorder observed, kept and lost.
    #[serde(default)]
    pub observed: Observed,
}

/// The link of a mode, both directions and all scenarios together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSummary {
    /// The mode: `remote` or `lossy`.
    pub mode: String,
    /// What was to happen to frames, as `--wire` takes it; empty if nothing.
    pub impairments: String,
    /// Frames sent.
    pub sent: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Of these, overtaken by others on purpose.
    pub reordered: u64,
    /// Packets of reliable connections that were sent again.
    pub repeated: u64,
    /// Times that a NIC sent again because no answer came.
    pub timeouts: u64,
}

impl LinkSummary {
    /// The counts in a line.
    pub fn line(&self) -> String {
        let Self { mode, sent, lost, reordered, repeated, timeouts, .. } = self;
        let what =
            if self.impairments.is_empty() { String::new() } else { format!(" ({})", self.impairments) };
        format!(
            "link of mode {mode}{what}: {sent} frames sent, {lost} lost, {reordered} reordered; \
             {repeated} packets sent again, {timeouts} times after a timeout"
        )
    }
}

/// Configuration of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSetup {
    /// The command line of the run, quoted for a shell.
    #[serde(default)]
    pub command: String,
    /// The host: `refault`, `qemu` or `nested`; for a model, its name.
    pub host: String,
    /// Guest vCPUs.
    pub cpus: u32,
    /// Guest kernel release.
    pub kernel: String,
    /// Size of the file under DMA, in bytes.
    pub file_bytes: u64,
    /// Multiplier of every scenario's goals: as requested, or as the guest's speed allows.
    pub scale: f64,
    /// Speed of the guest.
    #[serde(default)]
    pub guest_speed: Speed,
    /// Queue pairs that write concurrently.
    pub queue_pairs: u32,
    /// Preset or file of `--timing`, if the devices were slowed down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<String>,
}

/// The result of a scenario or a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunResult {
    /// All checks held.
    Pass,
    /// All checks held, but the machine was too slow to reach the goals.
    Slow,
    /// A check failed, or the scenario did not finish.
    #[default]
    Fail,
}

/// One scenario in one mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScenarioSummary {
    /// `steady`, `reflink-cow`, `exchange`, `punch`, `truncate`, `fsync`, `kill` or `pinned`.
    pub name: String,
    /// How the device translates: `pasid` (the IOMMU, with the process's page table), `odp` (the NIC's own table) or
    /// `pinned`; or `remote` or `lossy`: as `pasid`, and the writer is on the other end of a wire.
    pub mode: String,
    /// Size of the mappings: `4k` or `2m`.
    pub mapping: String,
    /// The result.
    pub result: RunResult,
    /// Why it failed, how far a slow one came, or a remark (`pinned`: the errno with which the kernel refuses).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Accesses of the device that missed and were resolved by the guest's kernel.
    pub faults: u64,
    /// Page requests, or page fault events, sent; more than `faults` if pages were gone again when the device retried.
    pub page_requests: u64,
    /// Blocks of 4 KiB that moved on the medium, by the file's extent maps.
    pub blocks_moved: u64,
    /// Bytes read back through the filesystem and found correct.
    pub bytes_verified: u64,
    /// Bytes found wrong: lost, torn, misplaced, or in another file's block.
    pub bytes_wrong: u64,
    /// Acknowledged RDMA WRITEs.
    pub writes: u64,
    /// Their payload in bytes.
    pub bytes_written: u64,
    /// Operations during DMA: copies, exchanges, punches, truncations, syncs, kills.
    pub operations: u64,
    /// Wall-clock seconds, as the guest measured them.
    pub seconds: f64,
    /// From the miss in the device TLB to the copy, in nanoseconds.
    pub fault_ns: Percentiles,
    /// That time by component.
    pub split: Split,
}

impl ScenarioSummary {
    /// Mode and mapping size, as records and reports show them: `pasid 4k`.
    pub fn label(&self) -> String {
        mode_label(&self.mode, &self.mapping)
    }
}

/// Mode and mapping size, as records and reports show them: `pasid 4k`.
pub fn mode_label(mode: &str, mapping: &str) -> String {
    format!("{mode} {mapping}")
}
