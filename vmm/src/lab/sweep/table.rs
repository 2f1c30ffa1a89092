//! The tidy table of a sweep: one row a point, what varies first, then the figures. As CSV and as Arrow IPC.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};

use super::{Plan, SweepError};
use crate::lab::figures::{FIGURES, Figure, Figures, Kind};

/// The table, for spreadsheets.
pub const CSV: &str = "table.csv";
/// The same table with types, for programs.
pub const ARROW: &str = "table.arrow";

/// The figures of a point as the table has them. Numbers are written such that they read back as they were: whatever
/// the way through disk, the table is the same.
pub(crate) fn row(figures: &Figures) -> String {
    let cells = figures.values().iter().map(|figure| match figure {
        Figure::Whole(value) => value.to_string(),
        Figure::Real(value) => value.to_string(),
    });
    cells.collect::<Vec<_>>().join(",")
}

/// A sweep's rows, complete and in order.
pub(crate) struct Table<'a> {
    plan: &'a Plan,
    rows: Vec<&'a str>,
}

impl<'a> Table<'a> {
    /// The table of all points.
    pub(crate) fn new(plan: &'a Plan, rows: impl Iterator<Item = &'a String>) -> Self {
        Self { plan, rows: rows.map(String::as_str).collect() }
    }

    /// Writes both files, and gives the CSV's path.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf, SweepError> {
        save(folder, ARROW, |out| self.arrow(out).map_err(io::Error::other))?;
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

    fn arrow(&self, out: &mut impl Write) -> Result<(), ArrowError> {
        let mut columns = vec![(Field::new("point", DataType::UInt64, false), self.points())];
        columns.extend(self.varying());
        columns.extend(self.figures());
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let schema = Arc::new(Schema::new(fields));
        let mut writer = FileWriter::try_new(out, &schema)?;
        writer.write(&RecordBatch::try_new(schema, arrays)?)?;
        writer.finish()
    }

    fn points(&self) -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(0..self.rows.len() as u64))
    }

    /// Columns of what varies: numbers if all of them are, else text.
    fn varying(&self) -> Vec<(Field, ArrayRef)> {
        let rows: Vec<_> = (0..self.rows.len()).map(|point| self.plan.values(point)).collect();
        let names = self.plan.columns();
        let columns = names.iter().enumerate().map(|(column, name)| {
            let cells: Vec<&str> = rows.iter().map(|row| row[column].as_str()).collect();
            let (kind, array) = typed(&cells);
            (Field::new(*name, kind, false), array)
        });
        columns.collect()
    }

    fn figures(&self) -> Vec<(Field, ArrayRef)> {
        let rows: Vec<Vec<&str>> = self.rows.iter().map(|row| row.split(',').collect()).collect();
        let columns = FIGURES.iter().enumerate().map(|(column, (name, kind, meaning))| {
            let cells = rows.iter().map(|row| row.get(column).copied().unwrap_or_default());
            let (data, array): (_, ArrayRef) = match kind {
                Kind::Whole => {
                    let numbers = cells.map(|cell| cell.parse::<u64>().unwrap_or_default());
                    (DataType::UInt64, Arc::new(UInt64Array::from_iter_values(numbers)))
                }
                Kind::Real => {
                    let numbers = cells.map(|cell| cell.parse::<f64>().unwrap_or_default());
                    (DataType::Float64, Arc::new(Float64Array::from_iter_values(numbers)))
                }
            };
            let metadata = HashMap::from([("meaning".to_owned(), (*meaning).to_owned())]);
            (Field::new(*name, data, false).with_metadata(metadata), array)
        });
        columns.collect()
    }
}

fn typed(cells: &[&str]) -> (DataType, ArrayRef) {
    if let Ok(numbers) = cells.iter().map(|cell| cell.parse()).collect::<Result<Vec<i64>, _>>() {
        return (DataType::Int64, Arc::new(Int64Array::from(numbers)));
    }
    if let Ok(numbers) = cells.iter().map(|cell| cell.parse()).collect::<Result<Vec<f64>, _>>() {
        return (DataType::Float64, Arc::new(Float64Array::from(numbers)));
    }
    (DataType::Utf8, Arc::new(StringArray::from(cells.to_vec())))
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
