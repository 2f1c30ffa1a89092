//! The table of a sweep: axes, points and figures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::pages::sweep;
use super::{ReportError, names, save};

/// The axes of a sweep, and the figures of each finished point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SweepTable {
    /// Name of the sweep.
    pub name: String,
    /// Names and formatted values of what is the same at all points.
    pub about: Vec<(String, String)>,
    /// The varied keys, each with more than one value.
    pub axes: Vec<Axis>,
    /// Names of the figures. The suffix is the unit: `_ns` (nanoseconds), `_bytes`, `_per_s`, `_share` and `_utilisation`
    /// (0 to 1); others are plain numbers.
    pub figures: Vec<String>,
    /// The finished points, in any order.
    pub rows: Vec<SweepRow>,
}

/// A varied key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// Name of the key, such as `guest.handlers`.
    pub name: String,
    /// Its formatted values, in the order of the axis.
    pub values: Vec<String>,
}

/// One point of a sweep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SweepRow {
    /// For each axis, the index of its value.
    pub point: Vec<usize>,
    /// For each figure, its value; `None` if there is none.
    pub figures: Vec<Option<f64>>,
}

/// The axis whose values are repetitions of the same experiment.
const SEED: &str = "seed";

/// Figures that a page shows.
const CHOSEN: [&str; 6] = [
    "latency_p50_ns",
    "latency_p99_ns",
    "fault_p50_ns",
    "fault_p99_ns",
    "requests_per_s",
    "handler_utilisation",
];

impl SweepTable {
    /// Reads the table of a sweep in tidy form. The columns named by `axes` are axes, the others are figures, except for
    /// `point`, the index of a row. Values of an axis keep the order of their occurrence; numbers are sorted.
    ///
    /// # Errors
    /// A line does not match the header, or the column of an axis is missing.
    pub fn from_csv(name: &str, text: &str, axes: &[&str]) -> Result<Self, String> {
        let mut lines = text.lines();
        let header = fields(lines.next().unwrap_or_default());
        let place = |axis: &&str| {
            let found = header.iter().position(|column| column == *axis);
            found.ok_or_else(|| format!("line 1 has no column {axis:?}"))
        };
        let places = axes.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let is_figure = |column: &usize| !places.contains(column) && header[*column] != "point";
        let figures: Vec<usize> = (0..header.len()).filter(is_figure).collect();
        let mut table = Self {
            name: name.to_owned(),
            axes: axes.iter().map(|axis| Axis { name: (*axis).to_owned(), values: Vec::new() }).collect(),
            figures: figures.iter().map(|&column| header[column].clone()).collect(),
            ..Self::default()
        };
        for (text, line) in lines.zip(2..).filter(|(text, _)| !text.is_empty()) {
            let fields = fields(text);
            if fields.len() != header.len() {
                return Err(format!("line {line} has {} fields, the header {}", fields.len(), header.len()));
            }
            let point = table.axes.iter_mut().zip(&places).map(|(axis, &column)| axis.index(&fields[column]));
            let point = point.collect();
            let figures = figures.iter().map(|&column| fields[column].trim().parse().ok()).collect();
            table.rows.push(SweepRow { point, figures });
        }
        table.sort_axes();
        Ok(table)
    }

    /// Indices of the figures to show: latencies, throughput and utilisation, or else the first four.
    pub(super) fn chosen(&self) -> Vec<usize> {
        let known = |name: &&str| self.figures.iter().position(|figure| figure == name);
        let chosen: Vec<usize> = CHOSEN.iter().filter_map(known).collect();
        if chosen.is_empty() { (0..self.figures.len().min(4)).collect() } else { chosen }
    }

    /// The value of a figure at a point, if that is finished.
    pub(super) fn value(&self, point: &[usize], figure: usize) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.point == point)?;
        row.figures.get(figure).copied().flatten().filter(|value| value.is_finite())
    }

    /// The table with all seeds of a point averaged, over those that are finished; and the number of seeds, if varied.
    pub(super) fn over_seeds(&self) -> (Self, Option<usize>) {
        let Some(place) = self.axes.iter().position(|axis| axis.name == SEED) else {
            return (self.clone(), None);
        };
        let mut table = self.clone();
        let seeds = table.axes.remove(place).values.len();
        let mut sums: BTreeMap<Vec<usize>, Vec<(f64, u32)>> = BTreeMap::new();
        for row in &self.rows {
            let mut point = row.point.clone();
            point.remove(place);
            let sums = sums.entry(point).or_insert_with(|| vec![(0.0, 0); self.figures.len()]);
            for (sum, value) in sums.iter_mut().zip(&row.figures) {
                if let Some(value) = value.filter(|value| value.is_finite()) {
                    *sum = (sum.0 + value, sum.1 + 1);
                }
            }
        }
        let mean = |(sum, count): (f64, u32)| (count > 0).then(|| sum / f64::from(count));
        let row = |(point, sums): (Vec<usize>, Vec<_>)| SweepRow {
            point,
            figures: sums.into_iter().map(mean).collect(),
        };
        table.rows = sums.into_iter().map(row).collect();
        (table, Some(seeds))
    }

    /// Sorts numeric values.
    fn sort_axes(&mut self) {
        for (axis, place) in self.axes.iter_mut().zip(0..) {
            let numbers: Option<Vec<f64>> = axis.values.iter().map(|value| value.parse().ok()).collect();
            let Some(numbers) = numbers else { continue };
            let mut order: Vec<usize> = (0..numbers.len()).collect();
            order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
            axis.values = order.iter().map(|&old| axis.values[old].clone()).collect();
            for row in &mut self.rows {
                let old = row.point[place];
                row.point[place] = order.iter().position(|&at| at == old).unwrap_or(old);
            }
        }
    }
}

impl Axis {
    /// The index of a value; a new one is added.
    fn index(&mut self, value: &str) -> usize {
        self.values.iter().position(|known| known == value).unwrap_or_else(|| {
            self.values.push(value.to_owned());
            self.values.len() - 1
        })
    }
}

/// Splits a line into fields; quoted fields may contain commas, and doubled quotes.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.trim_end().chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

/// Writes the page of a sweep into its folder, and returns its path.
///
/// # Errors
/// The page cannot be written.
pub fn write_sweep(folder: &Path, table: &SweepTable) -> Result<PathBuf, ReportError> {
    let page = sweep::render(table);
    save(folder, names::REPORT, |out| std::io::Write::write_all(out, page.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIDY: &str = "point,guest.handlers,device.mode,faults,fault_p999_ns,fault_p50_ns,fault_p99_ns\n\
        0,10,odp,7,9,5.5,8\n1,2,\"odp\",7,9,4,8\n2,10,pasid,7,9,,8\n";

    #[test]
    fn a_tidy_table_is_read_with_sorted_axes() {
        let table = SweepTable::from_csv("s", TIDY, &["guest.handlers", "device.mode"]).unwrap();
        assert_eq!(table.axes[0].values, ["2", "10"]);
        assert_eq!(table.axes[1].values, ["odp", "pasid"]);
        assert_eq!(table.figures, ["faults", "fault_p999_ns", "fault_p50_ns", "fault_p99_ns"]);
        assert_eq!(table.chosen(), [2, 3]);
        assert_eq!((table.value(&[1, 0], 2), table.value(&[0, 0], 2)), (Some(5.5), Some(4.0)));
        assert_eq!((table.value(&[1, 1], 2), table.value(&[0, 1], 2)), (None, None));
    }

    #[test]
    fn seeds_are_averaged() {
        let text = "credits,seed,p50\n1,1,10\n1,2,20\n1,3,60\n8,1,4\n8,2,\n";
        let (table, seeds) = SweepTable::from_csv("s", text, &["credits", "seed"]).unwrap().over_seeds();
        assert_eq!((table.axes.len(), seeds), (1, Some(3)));
        assert_eq!((table.value(&[0], 0), table.value(&[1], 0)), (Some(30.0), Some(4.0)));
        assert_eq!(table.over_seeds(), (table.clone(), None));
    }

    #[test]
    fn quoted_fields_contain_commas_and_quotes() {
        assert_eq!(fields("a,\"b, \"\"c\"\"\",,"), ["a", "b, \"c\"", "", ""]);
    }

    #[test]
    fn a_malformed_table_is_rejected() {
        let error = |text, axes: &[&str]| SweepTable::from_csv("s", text, axes).unwrap_err();
        assert_eq!(error(TIDY, &["credits"]), "line 1 has no column \"credits\"");
        assert_eq!(error("a,b\n1,2\n1\n", &["a"]), "line 3 has 1 fields, the header 2");
    }
}
