//! What a run leaves behind for people: a page, a table of faults, a timeline.
//!
//! `faults.csv` and `summary.json` are the records; `report.html` is made from them alone, so that it can be
//! made again at any time, and comes out the same. `trace.json` is written with them.

mod csv;
mod lanes;
mod latency;
mod markup;
mod notes;
mod overview;
mod page;
mod path_picture;
mod quantities;
mod requests_csv;
mod scenarios;
mod svg;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;
mod timeline;
mod trace_json;
mod units;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use refault_iommu::Statistics;
use refault_nic::NicStats;
use serde::Serialize;
use thiserror::Error;

use crate::demo::summary::RunSummary;
use crate::trace::{Observed, Records};

pub use csv::{COLUMNS, CsvError};
pub use requests_csv::REQUEST_COLUMNS;

/// Names of the files in a run's folder.
pub mod names {
    /// One line per fault.
    pub const FAULTS: &str = "faults.csv";
    /// One line per watched request.
    pub const REQUESTS: &str = "requests.csv";
    /// The timeline, for Perfetto.
    pub const TRACE: &str = "trace.json";
    /// The page.
    pub const REPORT: &str = "report.html";
    /// Counters of NIC and IOMMU, of a run without scenarios.
    pub const COUNTERS: &str = "counters.json";
    /// The scenarios' figures, for programs.
    pub const SUMMARY: &str = "summary.json";
    /// What the guest's kernel said.
    pub const SERIAL: &str = "serial.log";
    /// What the program in the guest said.
    pub const OUTPUT: &str = "output.log";
}

/// Why a report could not be made.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A file of the run is missing or cannot be read.
    #[error("cannot read {}; give the folder of a run, such as target/refault/latest", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The records of faults are damaged.
    #[error("{} is damaged or another version's; make the run again", path.display())]
    Faults {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: CsvError,
    },
    /// The summary is damaged, or another version's.
    #[error("{} is damaged or another version's; make the run again", path.display())]
    Summary {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: serde_json::Error,
    },
}

/// Writes all files of a run but its `serial.log` into its folder, and gives the page's path.
pub fn write(folder: &Path, records: &Records, summary: &RunSummary) -> Result<PathBuf, ReportError> {
    save(folder, names::SUMMARY, |out| {
        serde_json::to_writer_pretty(&mut *out, summary)?;
        writeln!(out)
    })?;
    save(folder, names::FAULTS, |out| {
        csv::write(out, records.faults.iter(), |scenario| {
            let span = records.scenarios.get(usize::from(scenario));
            span.map_or(("", ""), |span| (span.name.as_str(), span.mode.as_str()))
        })
    })?;
    save(folder, names::REQUESTS, |out| requests_csv::write(out, records))?;
    save(folder, names::TRACE, |out| trace_json::write(out, records))?;
    regenerate(folder)
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
}

/// Writes faults, trace and counters of a run that has no scenarios into its folder.
pub fn write_trace(folder: &Path, records: &Records, counters: &Counters) -> Result<(), ReportError> {
    save(folder, names::FAULTS, |out| csv::write(out, records.faults.iter(), |_| ("", "")))?;
    save(folder, names::REQUESTS, |out| requests_csv::write(out, records))?;
    save(folder, names::TRACE, |out| trace_json::write(out, records))?;
    save(folder, names::COUNTERS, |out| {
        serde_json::to_writer_pretty(&mut *out, counters)?;
        writeln!(out)
    })?;
    Ok(())
}

/// Makes a run's page again from its records, and gives its path.
pub fn regenerate(folder: &Path) -> Result<PathBuf, ReportError> {
    let path = folder.join(names::SUMMARY);
    let text = std::fs::read(&path).map_err(|source| ReportError::Read { path: path.clone(), source })?;
    let summary = serde_json::from_slice(&text).map_err(|source| ReportError::Summary { path, source })?;
    let path = folder.join(names::FAULTS);
    let file = File::open(&path).map_err(|source| ReportError::Read { path: path.clone(), source })?;
    let table = csv::read(BufReader::new(file)).map_err(|source| ReportError::Faults { path, source })?;
    let page = page::render(&summary, &table);
    save(folder, names::REPORT, |out| out.write_all(page.as_bytes()))
}

/// Writes a file and only then gives it its name: an interrupted report leaves the one before.
fn save(
    folder: &Path,
    name: &str,
    content: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<PathBuf, ReportError> {
    let path = folder.join(name);
    let attempt = || {
        let mut file = tempfile::Builder::new().permissions(readable()).tempfile_in(folder)?;
        let mut out = BufWriter::new(file.as_file_mut());
        content(&mut out)?;
        out.flush()?;
        drop(out);
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().map_err(|source| ReportError::Write { path: path.clone(), source })?;
    Ok(path)
}

/// What a file has that anybody may read; the caller's mask narrows it.
fn readable() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o644)
}
