//! The table of a sweep as Arrow IPC, with typed columns.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};

use super::table::TableFiles;
use refault_lab::figures::{FIGURES, FigureKind};

/// Name of the file.
pub const ARROW: &str = "table.arrow";

impl TableFiles<'_> {
    pub(super) fn arrow(&self, out: &mut impl Write) -> Result<(), ArrowError> {
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

    /// The axes' columns: integers or floats if all values are, else text.
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
                FigureKind::Whole => {
                    let numbers = cells.map(|cell| cell.parse::<u64>().unwrap_or_default());
                    (DataType::UInt64, Arc::new(UInt64Array::from_iter_values(numbers)))
                }
                FigureKind::Real => {
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
