//! Errors of reports.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::files::faults_read::CsvError;

/// A report could not be made.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A file of the run is missing or cannot be read.
    #[error("cannot read {}; give the folder of a run, such as target/refault/latest", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A CSV file is damaged, or of another version.
    #[error("{} is damaged or of another version; repeat the run", path.display())]
    Faults {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: CsvError,
    },
    /// A JSON file is damaged, or of another version.
    #[error("{} is damaged or of another version; repeat the run", path.display())]
    Summary {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// More runs than distinguishable colours.
    #[error("{0} runs are too many for one page: {max} can be distinguished; compare fewer at a time", max = super::MAX_RUNS)]
    TooMany(usize),
}
