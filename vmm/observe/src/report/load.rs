//! Reads a run's files back.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::digest::Digest;
use super::experiment::{ExperimentReport, TimeBase};
use super::files::faults_read::{self, Labels};
use super::files::{faults, invalidations, requests};
use super::pages::comparison::Compared;
use super::pages::{demo, experiment};
use super::{ReportError, names};
use crate::summary::{RunResult, RunSummary};
use crate::trace::{FaultRecord, Observed, Records};

/// A run, read from its folder.
pub(super) struct Run {
    kind: Kind,
    digest: Digest,
}

/// The kind of a run, with its description.
enum Kind {
    Demo(Box<RunSummary>),
    Experiment(Box<ExperimentReport>, Value),
}

impl Run {
    /// Reads a folder.
    pub(super) fn of(folder: &Path) -> Result<Self, ReportError> {
        Ok(Self { kind: Kind::of(folder)?, digest: read_digest(folder)? })
    }

    /// Renders its page.
    pub(super) fn page(&self) -> String {
        match &self.kind {
            Kind::Demo(summary) => demo::render(summary, &self.digest),
            Kind::Experiment(about, counters) => experiment::render(about, &self.digest, counters),
        }
    }

    fn compared(self, name: String) -> Compared {
        let (title, time, observed) = match self.kind {
            Kind::Demo(summary) => {
                let result = match summary.result {
                    RunResult::Pass => "passed",
                    RunResult::Slow => "slow",
                    RunResult::Fail => "failed",
                };
                (format!("demo, {result}"), demo::time_base(&summary), summary.observed)
            }
            Kind::Experiment(about, _) => (about.title, about.time, about.observed),
        };
        let missing = (observed.faults_dropped, observed.events_lost);
        Compared { name, title, time, digest: self.digest, missing }
    }
}

impl Kind {
    fn of(folder: &Path) -> Result<Self, ReportError> {
        let has = |name: &str| folder.join(name).exists();
        if has(names::EXPERIMENT) {
            let counters =
                if has(names::COUNTERS) { json(&folder.join(names::COUNTERS))? } else { Value::Null };
            return Ok(Self::Experiment(Box::new(json(&folder.join(names::EXPERIMENT))?), counters));
        }
        if has(names::SUMMARY) || !has(names::COUNTERS) {
            return Ok(Self::Demo(Box::new(json(&folder.join(names::SUMMARY))?)));
        }
        // Earlier versions wrote nothing but counters.
        let counters: Value = json(&folder.join(names::COUNTERS))?;
        let observed = counters.get("observed").cloned().unwrap_or_default();
        let about = ExperimentReport {
            title: name_of(folder),
            time: TimeBase::Unknown,
            observed: serde_json::from_value::<Observed>(observed).unwrap_or_default(),
            ..ExperimentReport::default()
        };
        Ok(Self::Experiment(Box::new(about), counters))
    }
}

/// Reads runs for a comparison, with distinct names.
pub(super) fn compared(folders: &[PathBuf]) -> Result<Vec<Compared>, ReportError> {
    let mut names: Vec<String> = Vec::new();
    let mut runs = Vec::new();
    for folder in folders {
        let short = name_of(folder);
        let taken = names.iter().filter(|name| **name == short).count();
        names.push(short.clone());
        let name = if taken == 0 { short } else { format!("{short} ({})", taken + 1) };
        runs.push(Run::of(folder)?.compared(name));
    }
    Ok(runs)
}

/// Name of the folder, with links resolved.
fn name_of(folder: &Path) -> String {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    real.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, ReportError> {
    let text = std::fs::read(path).map_err(|source| ReportError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| ReportError::Summary { path: path.to_owned(), source })
}

fn read_digest(folder: &Path) -> Result<Digest, ReportError> {
    let mut digest = Digest::new();
    let path = folder.join(names::FAULTS);
    let labels = faults_read::read(open(&path)?, |fault| digest.fault(fault));
    let labels = labels.map_err(|source| ReportError::Faults { path, source })?;
    // Earlier versions did not write the other files.
    let path = folder.join(names::INVALIDATIONS);
    if path.exists() {
        let read = invalidations::read(open(&path)?, |one| digest.invalidation(one));
        read.map_err(|source| ReportError::Faults { path, source })?;
    }
    let path = folder.join(names::REQUESTS);
    if path.exists() {
        let read = requests::read(open(&path)?, |one| digest.request(one));
        read.map_err(|source| ReportError::Faults { path, source })?;
    }
    Ok(digest.finish(labels))
}

fn open(path: &Path) -> Result<BufReader<File>, ReportError> {
    let file: io::Result<File> = File::open(path);
    let file = file.map_err(|source| ReportError::Read { path: path.to_owned(), source })?;
    Ok(BufReader::with_capacity(1 << 18, file))
}

/// The digest that [`read_digest`] would return for the files of `records`.
pub(super) fn digest(records: &Records) -> Digest {
    let mut digest = Digest::new();
    let mut labels = Labels::default();
    for fault in records.faults.iter() {
        let span = records.scenarios.get(usize::from(fault.scenario));
        let (name, mode) = span.map_or(("", ""), |span| (span.name.as_str(), span.mode.as_str()));
        let number = labels.number(&faults::plain(name), &faults::plain(mode));
        let scenario = u16::try_from(number).unwrap_or(u16::MAX);
        digest.fault(&FaultRecord { scenario, ..fault });
    }
    records.invalidations.iter().for_each(|one| digest.invalidation(one));
    records.requests.iter().for_each(|one| digest.request(one));
    digest.finish(labels)
}
