//! Why a report could not be made.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::csv_read::CsvError;

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
    /// The records of faults, or of invalidations, are damaged.
    #[error("{} is damaged or another version's; make the run again", path.display())]
    Faults {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: CsvError,
    },
    /// A file of figures is damaged, or another version's.
    #[error("{} is damaged or another version's; make the run again", path.display())]
    Summary {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: serde_json::Error,
    },
    /// More runs than colours can tell apart.
    #[error("{0} runs in one page are more than the {max} that can be told apart; compare fewer at a time", max = super::MAX_RUNS)]
    TooMany(usize),
}
