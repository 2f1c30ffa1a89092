//! The tidy table of a sweep: one row a point, what varies first, then the figures. As CSV, and as Arrow IPC where that
//! was compiled in (feature `arrow`).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use refault_lab::figures::FIGURES;
use refault_lab::sweep::SweepPlan;

use super::SweepError;

/// The table, for spreadsheets.
pub const CSV: &str = "table.csv";

/// A sweep's rows, complete and in order.
pub(crate) struct Table<'a> {
    pub(super) plan: &'a SweepPlan,
    pub(super) rows: Vec<&'a str>,
}

impl<'a> Table<'a> {
    /// The table of all points.
    pub(crate) fn new(plan: &'a SweepPlan, rows: impl Iterator<Item = &'a String>) -> Self {
        Self { plan, rows: rows.map(String::as_str).collect() }
    }

    /// Writes the files, and gives the CSV's path.
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

/// A cell as RFC 4180 has it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Writes a file and only then gives it its name: an earlier one stays if this fails.
pub(crate) fn save(
    folder: &Path,
    name: &str,
    content: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<PathBuf, SweepError> {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    let attempt = || {
        let readable = std::fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
        let mut out = BufWriter::new(file.as_file_mut());
        content(&mut out)?;
        out.flush()?;
        drop(out);
        file.as_file().sync_data()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().map_err(|reason| SweepError::Table { path: path.clone(), reason })?;
    Ok(path)
}
