//! `refault run --scenario`: a scenario of the lab in a real guest, as far as possible.
//!
//! The load is the guest's program `refault-load`, with the same requests in the same order as in the model
//! (`refault_lab::engine::requests`). Records, counters and the program's own figures make one
//! [`ExperimentOutcome`], as an experiment on the virtual clock has them.

mod limits;
mod results;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::Spec;
use super::options::parse::{Add, Out};
use refault_lab::engine::requests::{LoadRequest, requests};
use refault_lab::outcome::ExperimentOutcome;
use refault_lab::scenario::{Arrival, ChurnOperation, Scenario, TranslationMode};
use refault_observe::report::DeviceCounters;
use refault_observe::trace::Records;
use refault_os::scratch::Scratch;

pub(super) use limits::limits;

/// Paths of requests and results in the guest.
const REQUESTS: &str = "/refault-requests";
const RESULTS: &str = "/refault-results";
/// Lines of the guest's program on the control channel. It goes on when they are sent back.
pub(super) const BEGIN: &str = "load-begin";
pub(super) const END: &str = "load-end";
/// Bits of a request's flags: see `guest-driver/workload/load/load.h`.
const WRITE: u32 = 1;
const COLD: u32 = 2;
/// Maximum number of requests: the guest stores a latency of each.
const MOST_REQUESTS: u64 = 1 << 22;

/// A scenario for the real guest, with its files.
#[derive(Debug)]
pub(super) struct GuestExperiment {
    pub(super) scenario: Scenario,
    folder: Scratch,
}

impl GuestExperiment {
    /// Checks that a guest with `memory` bytes can run the scenario.
    ///
    /// # Errors
    /// The guest is too small, the scenario too long, or there is no folder for the files.
    pub(super) fn new(scenario: Scenario, memory: u64) -> Result<Self> {
        let load = &scenario.load;
        ensure!(
            load.region_bytes <= memory / 2,
            "scenario {}: a target of {} bytes needs a guest with twice as much memory: --memory",
            scenario.name,
            load.region_bytes
        );
        ensure!(
            scenario.requests <= MOST_REQUESTS,
            "scenario {}: {} requests are more than {MOST_REQUESTS}, the most that a guest can run",
            scenario.name,
            scenario.requests
        );
        let folder = Scratch::new().context("cannot make a temporary folder")?;
        Ok(Self { scenario, folder })
    }

    /// Adds the program and the requests to the guest.
    ///
    /// # Errors
    /// The requests cannot be written.
    pub(super) fn prepare(&self, spec: &mut Spec) -> Result<()> {
        let path = self.folder.path().join("requests");
        self.write_requests(&path).with_context(|| format!("cannot write {}", path.display()))?;
        spec.add.push(Add { host: path, guest: REQUESTS.into() });
        let room = results::bytes(self.scenario.requests);
        spec.out_size = if spec.out.is_empty() { 0 } else { spec.out_size } + room;
        spec.out.push(Out { guest: RESULTS.into(), host: self.results() });
        spec.environment.push(("REFAULT_ODP_MODE".into(), self.scenario.device.mode.name().into()));
        spec.command = self.command().into_iter().map(Into::into).collect();
        Ok(())
    }

    /// Bytes that its files may take.
    pub(super) fn bytes(&self) -> u64 {
        results::bytes(self.scenario.requests) + size_of::<[u8; 16]>() as u64 * self.scenario.requests
    }

    /// The results.
    ///
    /// # Errors
    /// The guest left no results, or they are damaged.
    pub(super) fn outcome(&self, records: Records, counters: DeviceCounters) -> Result<ExperimentOutcome> {
        let load = results::read(&self.results()).context("the guest's load left no results")?;
        let handlers = results::handlers(&records);
        Ok(ExperimentOutcome { records, counters, load, handlers })
    }

    fn results(&self) -> PathBuf {
        self.folder.path().join("results")
    }

    fn write_requests(&self, path: &std::path::Path) -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        requests(&self.scenario).try_for_each(|request| out.write_all(&encode(&request)))?;
        out.flush()
    }

    fn command(&self) -> Vec<String> {
        let load = &self.scenario.load;
        let mut command: Vec<String> = vec!["refault-load".into()];
        let mut add = |name: &str, value: String| command.extend([format!("--{name}"), value]);
        add("requests", REQUESTS.into());
        add("results", RESULTS.into());
        add("control", "/dev/refault-control".into());
        add("message-bytes", load.message_bytes.to_string());
        add("region-bytes", load.region_bytes.to_string());
        add("queue-pairs", load.queue_pairs.to_string());
        add("depth", load.depth.to_string());
        add("seed", self.scenario.seed.to_string());
        if let Some(churn) = self.scenario.churn {
            add("churn", operation(churn.operation).into());
            add("churn-per-second", churn.per_second.to_string());
            add("churn-pages", churn.pages.to_string());
        }
        let flags = [
            ("--odp", self.scenario.device.mode == TranslationMode::Odp),
            ("--open", matches!(load.arrival, Arrival::Poisson { .. })),
            ("--warm", load.warm),
            ("--large-pages", load.large_pages),
        ];
        command.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_string()));
        command
    }
}

fn operation(operation: ChurnOperation) -> &'static str {
    match operation {
        ChurnOperation::Evict => "evict",
        ChurnOperation::Move => "move",
        ChurnOperation::WriteProtect => "write-protect",
    }
}

/// Encodes a `struct load_request`.
fn encode(request: &LoadRequest) -> [u8; 16] {
    let flags = if request.write { WRITE } else { 0 } | if request.cold { COLD } else { 0 };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&request.gap_ns.to_le_bytes());
    bytes[8..12].copy_from_slice(&u32::try_from(request.message).unwrap_or(u32::MAX).to_le_bytes());
    bytes[12..].copy_from_slice(&flags.to_le_bytes());
    bytes
}
