//! Reads `faults.csv` line by line: a run may have more faults than fit into memory.

use std::io::{self, BufRead};

use refault_bus::{AddressSpace, Iova, Pasid, PrgIndex};
use thiserror::Error;

use super::faults::COLUMNS;
use crate::trace::{FaultOutcome, FaultRecord, StageTimes};

/// A CSV file of a run could not be read.
#[derive(Debug, Error)]
pub enum CsvError {
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The header lacks a column.
    #[error("line 1 has no column {0:?}: not a file of this version of refault")]
    Header(&'static str),
    /// A field is invalid.
    #[error("line {line}, column {column:?}: {value:?} is not {expected}")]
    Field {
        /// Line in the file, counted from 1.
        line: usize,
        /// Name of the column.
        column: &'static str,
        /// The field's text.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// Names and modes of scenarios, numbered in the order of their first occurrence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::report) struct Labels {
    pub(in crate::report) all: Vec<(String, String)>,
    last: usize,
}

impl Labels {
    /// The number of a scenario.
    pub(in crate::report) fn number(&mut self, name: &str, mode: &str) -> usize {
        let same = |known: &(String, String)| known.0 == name && known.1 == mode;
        // Faults of a scenario are usually adjacent.
        if !self.all.get(self.last).is_some_and(same) {
            self.last = self.all.iter().position(same).unwrap_or_else(|| {
                self.all.push((name.to_owned(), mode.to_owned()));
                self.all.len() - 1
            });
        }
        self.last
    }
}

/// Reads a file by [`write`](super::faults::write), with columns in any order, and passes each fault to `sink`. A fault's
/// `scenario` is an index into the returned labels.
pub(in crate::report) fn read(
    mut input: impl BufRead,
    mut sink: impl FnMut(&FaultRecord),
) -> Result<Labels, CsvError> {
    let mut text = Vec::new();
    input.read_until(b'\n', &mut text)?;
    let columns = Columns::find(&String::from_utf8_lossy(&text))?;
    let mut labels = Labels::default();
    for line in 2.. {
        text.clear();
        if input.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let row = Row::cut(line, &columns, text.trim_ascii_end());
        if !row.text.is_empty() {
            sink(&row.fault(&mut labels)?);
        }
    }
    Ok(labels)
}

/// Number of [`COLUMNS`] that are read back, from the first.
const READ: usize = 21;

/// Most fields of a line that are looked at.
const MAX_FIELDS: usize = 64;

/// Columns that earlier versions did not write: they read as empty.
const OPTIONAL: [&str; 4] = ["key", "taken_ns", "handling_ns", "handled_ns"];

/// Position in a line of each of the first [`READ`] columns.
struct Columns([usize; READ]);

impl Columns {
    fn find(header: &str) -> Result<Self, CsvError> {
        let names: Vec<&str> = header.trim_end().split(',').take(MAX_FIELDS).collect();
        let mut places = [usize::MAX; READ];
        for (place, &(name, _)) in places.iter_mut().zip(&COLUMNS) {
            match names.iter().position(|&found| found == name) {
                Some(found) => *place = found,
                None if OPTIONAL.contains(&name) => {}
                None => return Err(CsvError::Header(name)),
            }
        }
        Ok(Self(places))
    }
}

/// A line, split into fields.
struct Row<'a> {
    line: usize,
    columns: &'a Columns,
    text: &'a [u8],
    /// Byte offset of each field's end.
    ends: [u32; MAX_FIELDS],
    fields: usize,
}

impl<'a> Row<'a> {
    fn cut(line: usize, columns: &'a Columns, text: &'a [u8]) -> Self {
        let mut row = Self { line, columns, text, ends: [0; MAX_FIELDS], fields: 0 };
        let commas = text.iter().enumerate().filter(|&(_, &byte)| byte == b',').map(|(at, _)| at);
        for (end, at) in row.ends.iter_mut().zip(commas.chain([text.len()])) {
            *end = u32::try_from(at).unwrap_or(u32::MAX);
            row.fields += 1;
        }
        row
    }

    fn fault(&self, labels: &mut Labels) -> Result<FaultRecord, CsvError> {
        let outcome = FaultOutcome::ALL.into_iter().find(|known| known.name().as_bytes() == self.bytes(9));
        Ok(FaultRecord {
            scenario: self.scenario(labels)?,
            qpn: self.small(2)?,
            space: self.space()?,
            iova: Iova(self.number(5)?),
            write: self.number(6)? != 0,
            group: self.optional(7)?.map(PrgIndex::truncated),
            requests: self.small(8)?,
            outcome: outcome.ok_or_else(|| self.wrong(9, "an outcome"))?,
            times: StageTimes {
                miss: self.number(10)?,
                round: self.number(11)?,
                page_request: self.optional(12)?,
                queued: self.optional(13)?,
                interrupt: self.optional(14)?,
                taken: self.optional(15)?,
                handling: self.optional(16)?,
                handled: self.optional(17)?,
                response: self.optional(18)?,
                matched: self.optional(19)?,
                end: self.number(20)?,
            },
        })
    }

    fn space(&self) -> Result<AddressSpace, CsvError> {
        if let Some(id) = self.optional(3)? {
            let pasid = u32::try_from(id).ok().and_then(Pasid::new);
            return pasid.map(AddressSpace::Process).ok_or_else(|| self.wrong(3, "a PASID"));
        }
        if self.bytes(4).is_empty() {
            return Ok(AddressSpace::Function);
        }
        self.small(4).map(AddressSpace::Region)
    }

    fn scenario(&self, labels: &mut Labels) -> Result<u16, CsvError> {
        let name = str::from_utf8(self.bytes(0)).map_err(|_| self.wrong(0, "text"))?;
        let mode = str::from_utf8(self.bytes(1)).map_err(|_| self.wrong(1, "text"))?;
        u16::try_from(labels.number(name, mode)).map_err(|_| self.wrong(0, "one of 65536 scenarios"))
    }

    /// A missing field reads as an empty one.
    fn bytes(&self, column: usize) -> &'a [u8] {
        let place = self.columns.0[column];
        if place >= self.fields {
            return &[];
        }
        let from = if place == 0 { 0 } else { self.ends[place - 1] as usize + 1 };
        self.text[from..self.ends[place] as usize].trim_ascii()
    }

    fn optional(&self, column: usize) -> Result<Option<u64>, CsvError> {
        if self.bytes(column).is_empty() { Ok(None) } else { self.number(column).map(Some) }
    }

    fn number(&self, column: usize) -> Result<u64, CsvError> {
        let bytes = self.bytes(column);
        let parsed = match bytes.strip_prefix(b"0x") {
            Some(digits) => parse(digits, 16),
            None => parse(bytes, 10),
        };
        parsed.ok_or_else(|| self.wrong(column, "a number"))
    }

    fn small(&self, column: usize) -> Result<u32, CsvError> {
        u32::try_from(self.number(column)?).map_err(|_| self.wrong(column, "a number of 32 bits"))
    }

    fn wrong(&self, column: usize, expected: &'static str) -> CsvError {
        CsvError::Field {
            line: self.line,
            column: COLUMNS[column].0,
            value: String::from_utf8_lossy(self.bytes(column)).into_owned(),
            expected,
        }
    }
}

fn parse(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        let digit = char::from(digit).to_digit(radix)?;
        number.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::super::faults::write;
    use super::*;
    use crate::report::synthetic::{Shape, Synthetic};

    fn text_of(synthetic: &Synthetic) -> Vec<u8> {
        let records = synthetic.records();
        let mut text = Vec::new();
        let label = |index: u16| {
            let span = &records.scenarios[usize::from(index)];
            (span.name.as_str(), span.mode.as_str())
        };
        write(&mut text, records.faults.iter(), label).unwrap();
        text
    }

    fn all(text: &[u8]) -> Result<(Labels, Vec<FaultRecord>), CsvError> {
        let mut faults = Vec::new();
        read(text, |fault| faults.push(*fault)).map(|labels| (labels, faults))
    }

    #[test]
    fn what_is_written_is_read_back() {
        for shape in Shape::ALL {
            let synthetic = Synthetic::new(shape, 300);
            let records = synthetic.records();
            let (labels, faults) = all(&text_of(&synthetic)).unwrap();
            assert_eq!(faults.len(), records.faults.len());
            for (back, fault) in faults.iter().zip(records.faults.iter()) {
                let span = &records.scenarios[usize::from(fault.scenario)];
                let label = &labels.all[usize::from(back.scenario)];
                assert_eq!((&label.0, &label.1), (&span.name, &span.mode));
                assert_eq!(FaultRecord { scenario: fault.scenario, ..*back }, fault);
            }
        }
    }

    #[test]
    fn every_line_has_all_columns() {
        let text = String::from_utf8(text_of(&Synthetic::new(Shape::Mixed, 50))).unwrap();
        assert!(text.lines().all(|line| line.split(',').count() == COLUMNS.len()));
    }

    #[test]
    fn columns_may_be_reordered_and_optional_ones_missing() {
        let text = String::from_utf8(text_of(&Synthetic::new(Shape::Uniform, 20))).unwrap();
        let optional: Vec<_> = COLUMNS.iter().map(|(name, _)| OPTIONAL.contains(name)).collect();
        let older: String = text
            .lines()
            .map(|line| {
                let fields = line.split(',').zip(&optional).filter(|(_, optional)| !**optional);
                let mut fields: Vec<&str> = fields.map(|(field, _)| field).collect();
                fields.reverse();
                fields.join(",") + "\n"
            })
            .collect();
        assert_eq!(all(older.as_bytes()).unwrap().1, all(text.as_bytes()).unwrap().1);
    }

    #[test]
    fn a_damaged_file_is_rejected_with_line_and_column() {
        let text = String::from_utf8(text_of(&Synthetic::new(Shape::Mixed, 3))).unwrap();
        let error = |text: String| all(text.as_bytes()).unwrap_err().to_string();
        assert!(error("a,b,c\n1,2,3\n".into()).contains("no column \"scenario\""));
        assert!(error(text.replace("copied", "lost")).contains("is not an outcome"));
        assert!(error(text.replacen("0x", "0xg", 1)).contains("line 2, column \"qpn\""));
        assert!(error(text.lines().next().unwrap().to_owned() + "\nsteady\n").contains("not a number"));
        assert!(all(&[]).is_err());
        assert_eq!(
            (parse(b"18446744073709551615", 10), parse(b"18446744073709551616", 10)),
            (Some(u64::MAX), None)
        );
    }
}
