//! The table of a sweep: one row per point, the axes first, then the figures. As CSV, and as Arrow IPC with the feature
//! `arrow`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use refault_lab::figures::FIGURES;
use refault_lab::sweep::SweepPlan;
use refault_observe::save::save_atomically;

use super::SweepError;

/// The table, for spreadsheets.
pub const CSV: &str = "table.csv";

/// A sweep's rows, complete and in the order of the points.
pub(crate) struct TableFiles<'a> {
    pub(super) plan: &'a SweepPlan,
    pub(super) rows: Vec<&'a str>,
}

impl<'a> TableFiles<'a> {
    /// The table of all points.
    pub(crate) fn new(plan: &'a SweepPlan, rows: impl Iterator<Item = &'a String>) -> Self {
        Self { plan, rows: rows.map(String::as_str).collect() }
    }

    /// Writes the files, and returns the CSV's path.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf, SweepError> {
        #[cfg(feature = "arrow")]
        save(folder, super::ARROW, |out| self.arrow(out).map_err(io::Error::other))?;
        save(folder, CSV, |out| self.csv(out))
    }

    fn csv(&self, out: &mut impl Write) -> io::Result<()> {
        let varying = self.plan.columns().into_iter().map(quoted);
        let figures = FIGURES.iter().map(|(name, ..)| (*name).to_owned());
        let names: Vec<_> = ["point".to_owned()].into_iter().chain(varying).chain(figures).collect();
        writeln!(out, "{}", names.join(","))?;
        for (point, row) in self.rows.iter().enumerate() {
            let values: Vec<_> = self.plan.values(point).iter().map(|value| quoted(value)).collect();
            writeln!(out, "{point},{},{row}", values.join(","))?;
        }
        Ok(())
    }
}

/// A cell of CSV, quoted as in RFC 4180.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Saves a file of the table: an earlier one stays if this fails.
pub(crate) fn save(
    folder: &Path,
    name: &str,
    content: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<PathBuf, SweepError> {
    let path = folder.join(name);
    let saved = save_atomically(&path, |out| {
        content(out)?;
        out.flush()?;
        // A table that has its name is complete, also after a crash.
        out.get_ref().sync_data()
    });
    saved.map_err(|reason| SweepError::Table { path: path.clone(), reason })?;
    Ok(path)
}
