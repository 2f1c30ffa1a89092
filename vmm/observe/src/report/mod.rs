//! What a run leaves behind for people: a page, tables of faults and invalidations, a timeline.
//!
//! `faults.csv`, `invalidations.csv`, `requests.csv` and `summary.json` (of a demo) or `experiment.json` and `counters.json` (of others)
//! are the records; `report.html` is made from them alone, so that it can be made again at any time, and comes out the
//! same. `trace.json` is written with them. Faults are taken in one by one: a page costs the same memory, however many
//! there are.

mod bins;
mod charts;
mod csv;
mod csv_read;
mod digest;
mod error;
mod experiment;
mod invalidations;
mod lanes;
mod load;
mod markup;
mod pages;
mod requests_csv;
mod series;
mod sweep;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;
mod trace_json;
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

pub use csv::COLUMNS;
pub use csv_read::CsvError;
pub use error::ReportError;
pub use experiment::{Experiment, FactGroup, Handlers, Published, Requests, TimeBase};
pub use requests_csv::REQUEST_COLUMNS;
pub use sweep::{Axis, SweepRow, SweepTable, write_sweep};

/// Names of the files in a run's folder.
pub mod names {
    /// One line per fault.
    pub const FAULTS: &str = "faults.csv";
    /// One line per watched request.
    pub const REQUESTS: &str = "requests.csv";
    /// One line per invalidation.
    pub const INVALIDATIONS: &str = "invalidations.csv";
    /// The timeline, for Perfetto.
    pub const TRACE: &str = "trace.json";
    /// The page.
    pub const REPORT: &str = "report.html";
    /// What a run without scenarios was.
    pub const EXPERIMENT: &str = "experiment.json";
    /// Counters of NIC and IOMMU, of a run without scenarios.
    pub const COUNTERS: &str = "counters.json";
    /// The scenarios' figures, for programs.
    pub const SUMMARY: &str = "summary.json";
    /// What the guest's kernel said.
    pub const SERIAL: &str = "serial.log";
    /// What the program in the guest said.
    pub const OUTPUT: &str = "output.log";
}

/// Runs that one page can compare: their colours and dashes can still be told apart.
pub const MAX_RUNS: usize = 16;

/// Writes all files of a demo but its `serial.log` into its folder, and gives the page's path.
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
pub struct Counters {
    /// The NIC's.
    pub nic: NicStats,
    /// The IOMMU's.
    pub iommu: Statistics,
    /// What the recorder saw, kept and lost.
    pub observed: Observed,
    /// Preset or file that the devices were slowed down to, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<String>,
}

/// Writes all files of a run that is no demo into its folder, and gives the page's path.
///
/// # Errors
/// A file cannot be written.
pub fn write_experiment(
    folder: &Path,
    records: &Records,
    counters: &Counters,
    experiment: &Experiment,
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
        csv::write(out, records.faults.iter(), |scenario| {
            let span = records.scenarios.get(usize::from(scenario));
            span.map_or(("", ""), |span| (span.name.as_str(), span.mode.as_str()))
        })
    })?;
    save(folder, names::INVALIDATIONS, |out| invalidations::write(out, &records.invalidations))?;
    save(folder, names::REQUESTS, |out| requests_csv::write(out, records))?;
    save(folder, names::TRACE, |out| trace_json::write(out, records, time))?;
    Ok(())
}

/// Makes a run's page again from its records, and gives its path.
///
/// # Errors
/// A file of the run is missing or damaged, or the page cannot be written.
pub fn regenerate(folder: &Path) -> Result<PathBuf, ReportError> {
    save_page(folder, &load::Run::of(folder)?.page())
}

/// Writes one page with several runs side by side, the first of them what the others are compared with, and gives its
/// path.
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
