//! The report of a run: CSV files of faults, requests and invalidations, a timeline, and a page.
//!
//! `faults.csv`, `invalidations.csv` and `requests.csv`, with `summary.json` for a demo or `experiment.json` and
//! `counters.json` for other runs, are the records. `report.html` is a pure function of them, so it can be made again at any
//! time. `trace.json` is written along with them. Faults are read one by one: the memory for a page does not depend on their
//! number.

mod charts;
mod digest;
mod error;
mod experiment;
mod files;
mod load;
mod markup;
mod pages;
mod sweep;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;
pub mod units;
pub mod verdicts;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use refault_iommu::Statistics;
use refault_nic::NicStats;
use serde::Serialize;

use crate::save::save_atomically;
use crate::summary::RunSummary;
use crate::trace::{Observed, Records};
use files::{faults, invalidations, requests, timeline};

pub use error::ReportError;
pub use experiment::{ExperimentReport, FactGroup, HandlerFigures, Published, RequestFigures, TimeBase};
pub use files::faults::COLUMNS;
pub use files::faults_read::CsvError;
pub use files::requests::REQUEST_COLUMNS;
pub use sweep::{Axis, SweepRow, SweepTable, write_sweep};

/// Names of the files in a run's folder.
pub mod names {
    /// One line per fault.
    pub const FAULTS: &str = "faults.csv";
    /// One line per sampled request.
    pub const REQUESTS: &str = "requests.csv";
    /// One line per invalidation.
    pub const INVALIDATIONS: &str = "invalidations.csv";
    /// The timeline, for Perfetto.
    pub const TRACE: &str = "trace.json";
    /// The page.
    pub const REPORT: &str = "report.html";
    /// Description and statistics of a run that is not a demo.
    pub const EXPERIMENT: &str = "experiment.json";
    /// Counters of NIC and IOMMU, for a run that is not a demo.
    pub const COUNTERS: &str = "counters.json";
    /// Figures of the demo's scenarios.
    pub const SUMMARY: &str = "summary.json";
    /// The guest kernel's log.
    pub const SERIAL: &str = "serial.log";
    /// The output of the program in the guest.
    pub const OUTPUT: &str = "output.log";
}

/// Most runs in a comparison: the number of distinguishable colours and dashes.
pub const MAX_RUNS: usize = 16;

/// Writes all files of a demo except `serial.log` and `output.log` into its folder, and returns the path of the page.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path, records: &Records, summary: &RunSummary) -> Result<PathBuf, ReportError> {
    save_json(folder, names::SUMMARY, summary)?;
    write_records(folder, records, pages::demo::time_base(summary))?;
    save_page(folder, &pages::demo::render(summary, &load::digest(records)))
}

/// All counters of a machine's devices.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceCounters {
    /// Counters of the NIC.
    pub nic: NicStats,
    /// Counters of the IOMMU.
    pub iommu: Statistics,
    /// Counts of what the recorder observed, kept and lost.
    pub observed: Observed,
    /// Preset or file of `--timing`, if the devices were slowed down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<String>,
}

/// Writes all files of a run that is not a demo into its folder, and returns the path of the page.
///
/// # Errors
/// A file cannot be written.
pub fn write_experiment(
    folder: &Path,
    records: &Records,
    counters: &DeviceCounters,
    experiment: &ExperimentReport,
) -> Result<PathBuf, ReportError> {
    save_json(folder, names::EXPERIMENT, experiment)?;
    save_json(folder, names::COUNTERS, counters)?;
    write_records(folder, records, experiment.time)?;
    let counters = serde_json::to_value(counters).unwrap_or_default();
    save_page(folder, &pages::experiment::render(experiment, &load::digest(records), &counters))
}

/// Writes faults, invalidations and timeline.
fn write_records(folder: &Path, records: &Records, time: TimeBase) -> Result<(), ReportError> {
    save(folder, names::FAULTS, |out| {
        faults::write(out, records.faults.iter(), |scenario| {
            let span = records.scenarios.get(usize::from(scenario));
            span.map_or(("", ""), |span| (span.name.as_str(), span.mode.as_str()))
        })
    })?;
    save(folder, names::INVALIDATIONS, |out| invalidations::write(out, &records.invalidations))?;
    save(folder, names::REQUESTS, |out| requests::write(out, records))?;
    save(folder, names::TRACE, |out| timeline::write(out, records, time))?;
    Ok(())
}

/// Makes a run's page again from its records, and returns its path.
///
/// # Errors
/// A file of the run is missing or damaged, or the page cannot be written.
pub fn regenerate(folder: &Path) -> Result<PathBuf, ReportError> {
    save_page(folder, &load::Run::of(folder)?.page())
}

/// Writes a page that compares several runs with the first one, and returns its path.
///
/// # Errors
/// A file of a run is missing or damaged, there are more than [`MAX_RUNS`], or the page cannot be written.
pub fn compare(runs: &[PathBuf], out: &Path) -> Result<PathBuf, ReportError> {
    if runs.len() > MAX_RUNS {
        return Err(ReportError::TooMany(runs.len()));
    }
    let compared = load::compared(runs)?;
    save_as(out, |file| file.write_all(pages::comparison::render(&compared).as_bytes()))
}

fn save_page(folder: &Path, page: &str) -> Result<PathBuf, ReportError> {
    save(folder, names::REPORT, |out| out.write_all(page.as_bytes()))
}

fn save_json(folder: &Path, name: &str, value: &impl Serialize) -> Result<PathBuf, ReportError> {
    save(folder, name, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}

fn save(
    folder: &Path,
    name: &str,
    content: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<PathBuf, ReportError> {
    save_as(&folder.join(name), content)
}

/// [`save_atomically`], with the path as the result and in the error.
fn save_as(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<PathBuf, ReportError> {
    save_atomically(path, content).map_err(|source| ReportError::Write { path: path.to_owned(), source })?;
    Ok(path.to_owned())
}
