//! `faults.csv`: one line per fault, and back.
//!
//! Ids are in hex with `0x`, times in nanoseconds. Columns `miss_ns` to `end_ns` are times since the
//! recorder's start, empty where a stage was not seen; `device_ns` to `again_ns` are durations, derived from
//! them for the convenience of spreadsheets, and are not read back.

use std::io::{self, BufRead, Write};

use refault_bus::{AddressSpace, Iova, Pasid, PrgIndex};
use thiserror::Error;

use crate::trace::{FaultOutcome, FaultRecord, StageTimes};

/// The columns, with what each holds.
pub const COLUMNS: [(&str, &str); 26] = [
    ("scenario", "the scenario in which the fault began; empty outside of any"),
    ("mode", "its mode"),
    ("qpn", "number of the queue pair whose access missed"),
    ("pasid", "address space of a process; empty for others"),
    ("key", "address space of an on-demand region; empty for others"),
    ("iova", "the page, as the process, or the request, addresses it"),
    ("write", "1 for a write, 0 for a read"),
    ("group", "page request group index of the last round; of a region, the slot of the page fault's token"),
    (
        "requests",
        "page requests, or page fault events, sent: more than 1 if the page was gone again when the device looked",
    ),
    ("outcome", "copied, failed, coalesced (waited on another queue pair's request) or abandoned"),
    ("miss_ns", "the device TLB and the IOMMU missed: the fault begins"),
    ("round_ns", "the last round began; equal to miss_ns if requests is 1"),
    ("page_request_ns", "the page request, or the page fault, left the device"),
    ("queued_ns", "its entry was in the page request queue, or in the event queue"),
    ("interrupt_ns", "the interrupt was sent; empty if one was pending already"),
    (
        "taken_ns",
        "the guest's thread took the entry; this and the next two are empty if the guest did not say",
    ),
    ("handling_ns", "a handler of the guest began with the fault"),
    ("handled_ns", "the page was in the table"),
    ("response_ns", "the guest's page group response, or its resume command, was read"),
    ("matched_ns", "the device matched the answer and gave its credit back"),
    ("end_ns", "copied, failed or abandoned"),
    ("device_ns", "time the device had the fault: round to page request, matched to end"),
    ("iommu_ns", "time the IOMMU had it: page request to queue entry and interrupt, response to matched"),
    ("guest_ns", "time the guest had it: interrupt (or queue entry) to response"),
    ("again_ns", "time in earlier rounds: miss to round"),
    ("total_ns", "miss to end: the sum of the four"),
];

/// Faults as the file holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FaultTable {
    /// Names and modes of the scenarios, in the order of their first fault.
    pub(super) scenarios: Vec<(String, String)>,
    /// The faults; `scenario` is an index into [`Self::scenarios`].
    pub(super) faults: Vec<FaultRecord>,
}

/// Why a `faults.csv` could not be read.
#[derive(Debug, Error)]
pub enum CsvError {
    /// The file could not be read at all.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The first line does not name a column.
    #[error("line 1 has no column {0:?}: not a faults.csv of this refault")]
    Header(&'static str),
    /// A line does not hold what its columns say.
    #[error("line {line}, column {column:?}: {value:?} is not {wanted}")]
    Field {
        /// Line in the file, from 1.
        line: usize,
        /// Name of the column.
        column: &'static str,
        /// What is there.
        value: String,
        /// What should be.
        wanted: &'static str,
    },
}

/// Writes the header and a line for each fault. `label` gives a scenario's name and mode; of these, commas,
/// quotes and line ends become underscores.
pub(super) fn write<'a>(
    out: &mut impl Write,
    faults: impl Iterator<Item = FaultRecord>,
    label: impl Fn(u16) -> (&'a str, &'a str),
) -> io::Result<()> {
    let names: Vec<_> = COLUMNS.iter().map(|&(name, _)| name).collect();
    writeln!(out, "{}", names.join(","))?;
    for fault in faults {
        let (name, mode) = label(fault.scenario);
        write_fault(out, &plain(name), &plain(mode), &fault)?;
    }
    Ok(())
}

fn write_fault(out: &mut impl Write, name: &str, mode: &str, fault: &FaultRecord) -> io::Result<()> {
    let pasid = fault.space.pasid().map(|pasid| u64::from(pasid.get()));
    let key = fault.space.key().map(u64::from);
    let group = fault.group.map(|group| u64::from(group.get()));
    write!(out, "{name},{mode},{:#x},{},{},{:#x},", fault.qpn, Hex(pasid), Hex(key), fault.iova.0)?;
    write!(out, "{},{},{},", u8::from(fault.write), Hex(group), fault.requests)?;
    let times = &fault.times;
    write!(out, "{},{},{},", fault.outcome.name(), times.miss, times.round)?;
    let device = [times.page_request, times.queued, times.interrupt];
    let guest = [times.taken, times.handling, times.handled, times.response];
    for stage in device.iter().chain(&guest).chain([&times.matched]) {
        match stage {
            Some(at) => write!(out, "{at},")?,
            None => write!(out, ",")?,
        }
    }
    let split = times.split();
    let (device, iommu, guest, again) = (split.device, split.iommu, split.guest, split.again);
    writeln!(out, "{},{device},{iommu},{guest},{again},{}", times.end, times.total())
}

/// Reads what [`write()`] wrote, whatever the order of its columns.
pub(super) fn read(input: impl BufRead) -> Result<FaultTable, CsvError> {
    let mut lines = input.lines();
    let header = lines.next().transpose()?.unwrap_or_default();
    let columns = Columns::find(&header)?;
    let mut table = FaultTable::default();
    for (text, line) in lines.zip(2..) {
        let text = text?;
        if !text.is_empty() {
            let fields: Vec<&str> = text.split(',').collect();
            let row = Row { line, columns: &columns, fields: &fields };
            let fault = row.fault(&mut table.scenarios)?;
            table.faults.push(fault);
        }
    }
    Ok(table)
}

/// How many of [`COLUMNS`] are read back.
const READ: usize = 21;

/// Where in a line each of the first [`READ`] columns stands.
struct Columns([usize; READ]);

impl Columns {
    fn find(header: &str) -> Result<Self, CsvError> {
        let names: Vec<&str> = header.trim_end().split(',').collect();
        let mut places = [0; READ];
        for (place, &(name, _)) in places.iter_mut().zip(&COLUMNS) {
            *place = names.iter().position(|&found| found == name).ok_or(CsvError::Header(name))?;
        }
        Ok(Self(places))
    }
}

/// One line, cut into fields.
struct Row<'a> {
    line: usize,
    columns: &'a Columns,
    fields: &'a [&'a str],
}

impl<'a> Row<'a> {
    fn fault(&self, scenarios: &mut Vec<(String, String)>) -> Result<FaultRecord, CsvError> {
        Ok(FaultRecord {
            scenario: self.scenario(scenarios)?,
            qpn: self.small(2)?,
            space: self.space()?,
            iova: Iova(self.number(5)?),
            write: self.number(6)? != 0,
            group: self.optional(7)?.map(PrgIndex::truncated),
            requests: self.small(8)?,
            outcome: FaultOutcome::from_name(self.text(9)).ok_or_else(|| self.wrong(9, "an outcome"))?,
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
        if self.text(4).is_empty() {
            return Ok(AddressSpace::Function);
        }
        self.small(4).map(AddressSpace::Region)
    }

    fn scenario(&self, scenarios: &mut Vec<(String, String)>) -> Result<u16, CsvError> {
        let (name, mode) = (self.text(0), self.text(1));
        // Lines of one scenario stand together, so look from the end.
        let known = scenarios.iter().rposition(|(n, m)| n == name && m == mode);
        let index = known.unwrap_or_else(|| {
            scenarios.push((name.to_owned(), mode.to_owned()));
            scenarios.len() - 1
        });
        u16::try_from(index).map_err(|_| self.wrong(0, "one of 65536 scenarios"))
    }

    /// A missing field reads as an empty one.
    fn text(&self, column: usize) -> &'a str {
        self.fields.get(self.columns.0[column]).map_or("", |field| field.trim())
    }

    fn optional(&self, column: usize) -> Result<Option<u64>, CsvError> {
        if self.text(column).is_empty() { Ok(None) } else { self.number(column).map(Some) }
    }

    fn number(&self, column: usize) -> Result<u64, CsvError> {
        let text = self.text(column);
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        parsed.map_err(|_| self.wrong(column, "a number"))
    }

    fn small(&self, column: usize) -> Result<u32, CsvError> {
        u32::try_from(self.number(column)?).map_err(|_| self.wrong(column, "a number of 32 bits"))
    }

    fn wrong(&self, column: usize, wanted: &'static str) -> CsvError {
        CsvError::Field {
            line: self.line,
            column: COLUMNS[column].0,
            value: self.text(column).to_owned(),
            wanted,
        }
    }
}

/// A hexadecimal number, or nothing.
struct Hex(Option<u64>);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |number| write!(f, "{number:#x}"))
    }
}

/// A name that breaks no line of the file.
pub(super) fn plain(name: &str) -> String {
    name.replace([',', '"', '\n', '\r'], "_")
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn what_is_written_is_read_back() {
        for shape in Shape::ALL {
            let synthetic = Synthetic::new(shape, 300);
            let records = synthetic.records();
            let text = text_of(&synthetic);
            let table = read(text.as_slice()).unwrap();
            assert_eq!(table.faults.len(), records.faults.len());
            for (back, fault) in table.faults.iter().zip(records.faults.iter()) {
                let span = &records.scenarios[usize::from(fault.scenario)];
                let label = &table.scenarios[usize::from(back.scenario)];
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
    fn a_file_that_is_something_else_is_named_as_such() {
        let text = String::from_utf8(text_of(&Synthetic::new(Shape::Mixed, 3))).unwrap();
        let error = |text: String| read(text.as_bytes()).unwrap_err().to_string();
        assert!(error("a,b,c\n1,2,3\n".into()).contains("no column \"scenario\""));
        assert!(error(text.replace("copied", "lost")).contains("is not an outcome"));
        assert!(error(text.replacen("0x", "0xg", 1)).contains("line 2, column \"qpn\""));
        assert!(error(text.lines().next().unwrap().to_owned() + "\nsteady\n").contains("not a number"));
        assert!(read(&[][..]).is_err());
    }
}
