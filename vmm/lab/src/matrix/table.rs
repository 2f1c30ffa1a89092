//! The table as text and as CSV.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::cell::{Cell, duration};
use super::operation::FileOperation;
use super::row::PolicyRow;

/// Columns of the CSV file.
const COLUMNS: [&str; 25] = [
    "policy",
    "operation",
    "verdict",
    "setup",
    "registration",
    "outcome",
    "waited_ns",
    "signals",
    "killed",
    "before_ok",
    "before_failed",
    "during_ok",
    "during_failed",
    "after_ok",
    "after_failed",
    "causes",
    "again",
    "faults",
    "lost_bytes",
    "landed_bytes",
    "leaked_bytes",
    "stale_bytes",
    "unnoticed_pages",
    "lost_in_crash_bytes",
    "broken",
];

const NAME_WIDTH: usize = 21;
const CELL_WIDTH: usize = 10;

/// The words of the grid and their meanings.
pub(super) const LEGEND: [(&str, &str); 13] = [
    (
        "ok",
        "the operation proceeds at once; every byte is where it belongs (DMA beyond the end of the file fails)",
    ),
    ("5 ms", "the same, after a wait of that length; DMA continues afterwards"),
    ("E...", "the operation fails with that error; DMA continues"),
    ("no DMA", "registration is refused"),
    ("revoked, rev 45 s", "the region is revoked (after the wait): the device gets errors"),
    ("killed, kill 45 s", "the program is killed (after the wait)"),
    ("FOREVER", "the operation never ends"),
    ("stale", "the device reads data that is no longer in the file"),
    ("LOST@CRASH", "data that was written and flushed is missing after a crash"),
    ("LOST", "written data is not in the file"),
    ("LEAK", "the device reads another file"),
    ("CORRUPT", "the device writes another file"),
    ("BROKEN", "refault itself misbehaved: a bug"),
];

/// The grid: a row for each policy, a column for each operation.
pub fn grid(cells: &[Cell]) -> String {
    let rows: Vec<PolicyRow> =
        PolicyRow::ALL.into_iter().filter(|row| cells.iter().any(|cell| cell.row == *row)).collect();
    let has = |operation: &FileOperation| cells.iter().any(|cell| cell.operation == *operation);
    let columns: Vec<FileOperation> = FileOperation::ALL.into_iter().filter(has).collect();
    let mut out = format!("{:NAME_WIDTH$}", "policy");
    for column in &columns {
        let _ = write!(out, " {:<CELL_WIDTH$}", column.name());
    }
    for row in rows {
        let _ = write!(out, "\n{:NAME_WIDTH$}", row.name());
        for column in &columns {
            let cell = cells.iter().find(|cell| cell.row == row && cell.operation == *column);
            let _ = write!(out, " {:<CELL_WIDTH$}", cell.map(word).unwrap_or_default());
        }
    }
    let lines = out.lines().map(str::trim_end);
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// The word for a cell in the grid.
pub fn word(cell: &Cell) -> String {
    if cell.broken.is_empty() { cell.label() } else { "BROKEN".to_owned() }
}

/// The legend of the grid.
pub fn legend() -> String {
    let mut out = String::new();
    for (word, meaning) in LEGEND {
        let _ = writeln!(out, "  {word:<18} {meaning}");
    }
    out
}

/// A line with all details of a cell.
pub fn line(cell: &Cell) -> String {
    let mut out = format!("{} / {}: {}", cell.row.name(), cell.operation.name(), word(cell));
    if !cell.setup.is_done() {
        let _ = write!(out, "; setup {}", cell.setup);
    }
    let _ = write!(out, "; registration {}; operation {}", cell.registration, cell.outcome);
    let _ = write!(out, " after {}", duration(cell.waited_ns));
    for (name, requests) in [("before", &cell.before), ("in flight", &cell.during), ("after", &cell.after)] {
        if requests.succeeded + requests.failures() > 0 {
            let _ = write!(out, "; {name}: {requests}");
        }
    }
    if let Some(again) = cell.again {
        let _ = write!(out, "; registers again: {again}");
    }
    for (count, what) in [
        (u64::from(cell.signals), "signals"),
        (cell.faults, "faults"),
        (cell.lost, "bytes lost"),
        (cell.landed, "bytes landed in other files"),
        (cell.leaked, "bytes of other files read"),
        (cell.stale, "stale bytes read"),
        (cell.unnoticed, "pages written without notice"),
        (cell.lost_in_crash, "bytes lost in a crash"),
    ] {
        if count > 0 {
            let _ = write!(out, "; {count} {what}");
        }
    }
    for problem in &cell.broken {
        let _ = write!(out, "; BROKEN: {problem}");
    }
    out
}

/// Writes all cells as comma-separated values.
///
/// # Errors
/// `out` cannot be written.
pub fn csv(cells: &[Cell], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", COLUMNS.join(","))?;
    for cell in cells {
        let mut causes = cell.during.failed.clone();
        cell.after.failed.iter().for_each(|(&cause, count)| *causes.entry(cause).or_default() += count);
        let causes: Vec<_> =
            causes.iter().map(|(&cause, count)| format!("{count} {}", super::cause_name(cause))).collect();
        let fields = [
            cell.row.name().to_owned(),
            cell.operation.name().to_owned(),
            word(cell),
            cell.setup.to_string(),
            cell.registration.to_string(),
            cell.outcome.to_string(),
            cell.waited_ns.to_string(),
            cell.signals.to_string(),
            u8::from(cell.killed).to_string(),
            cell.before.succeeded.to_string(),
            cell.before.failures().to_string(),
            cell.during.succeeded.to_string(),
            cell.during.failures().to_string(),
            cell.after.succeeded.to_string(),
            cell.after.failures().to_string(),
            causes.join("; "),
            cell.again.map(|again| again.to_string()).unwrap_or_default(),
            cell.faults.to_string(),
            cell.lost.to_string(),
            cell.landed.to_string(),
            cell.leaked.to_string(),
            cell.stale.to_string(),
            cell.unnoticed.to_string(),
            cell.lost_in_crash.to_string(),
            cell.broken.join("; "),
        ];
        writeln!(out, "{}", fields.map(|field| quoted(&field)).join(","))?;
    }
    Ok(())
}

/// Quotes a field if necessary (RFC 4180).
fn quoted(field: &str) -> String {
    match field.contains([',', '"', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}
