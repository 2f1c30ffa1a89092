//! Finished points on disk, one line each, appended as they finish. Whatever stops the sweep, complete lines stay.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use refault_lab::sweep::SweepPlan;

use super::SweepError;

/// The file in the sweep's folder.
pub const POINTS: &str = "points.log";
/// First word of the file, with the version of its format.
const MAGIC: &str = "refault-sweep-1";

/// Finished points. The file is locked while this lives.
#[derive(Debug)]
pub(crate) struct Store {
    file: File,
    path: PathBuf,
    /// Bytes of complete lines; an interrupted write may have left more.
    length: u64,
    rows: BTreeMap<usize, String>,
}

impl Store {
    /// Opens the points of a sweep in its folder; both are created if missing. A half-written line is removed.
    ///
    /// # Errors
    /// The folder belongs to another sweep, another process runs the sweep, or the file cannot be opened.
    pub(crate) fn open(folder: &Path, plan: &SweepPlan) -> Result<Self, SweepError> {
        let path = folder.join(POINTS);
        let failed = |reason| SweepError::Open { path: path.clone(), reason };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SweepError::Busy { folder: folder.to_owned() }),
            Err(TryLockError::Error(reason)) => return Err(failed(reason)),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let mut store = Self { file, path, length: 0, rows: BTreeMap::new() };
        store.resume(&text, folder, plan)?;
        Ok(store)
    }

    /// Rows of the finished points, by number.
    pub(crate) fn rows(&self) -> &BTreeMap<usize, String> {
        &self.rows
    }

    /// Appends finished points and syncs them to disk. If that fails, none of them is kept, and all earlier ones are.
    pub(crate) fn append(&mut self, rows: Vec<(usize, String)>) -> Result<(), SweepError> {
        let lines: String = rows.iter().map(|(point, row)| line(*point, row)).collect();
        self.write(lines.as_bytes())?;
        self.rows.extend(rows);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SweepError> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(reason) => {
                // If this fails too, the next start removes the rest.
                let _ = self.cut();
                Err(SweepError::Append { path: self.path.clone(), kept: self.rows.len(), reason })
            }
        }
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(|_| ())
    }

    fn resume(&mut self, text: &[u8], folder: &Path, plan: &SweepPlan) -> Result<(), SweepError> {
        let header = header(plan);
        let mut lines = text.split_inclusive(|&byte| byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let torn = !first.ends_with(b"\n") && header.as_bytes().starts_with(first);
        if torn {
            self.cut().map_err(|reason| SweepError::Open { path: self.path.clone(), reason })?;
            return self.write(header.as_bytes());
        }
        if first != header.as_bytes() {
            let found = String::from_utf8_lossy(first);
            let name = found.strip_prefix(MAGIC).and_then(|rest| rest.trim().splitn(3, ' ').nth(2));
            let other =
                name.map_or_else(|| "something else".into(), |name| format!("another sweep, {name:?},"));
            return Err(SweepError::Foreign { folder: folder.to_owned(), other });
        }
        self.length = first.len() as u64;
        for line in lines {
            // The lines after a damaged one came from the same interrupted write.
            let Some((point, row)) = parse(line).filter(|(point, _)| *point < plan.len()) else { break };
            self.rows.insert(point, row);
            self.length += line.len() as u64;
        }
        self.cut().map_err(|reason| SweepError::Open { path: self.path.clone(), reason })
    }
}

/// The first line, which identifies the sweep.
fn header(plan: &SweepPlan) -> String {
    format!("{MAGIC} {} {} {}\n", plan.identity(), plan.len(), plan.name())
}

/// A point's line: its number, its row, a checksum of both.
fn line(point: usize, row: &str) -> String {
    let text = format!("{point}\t{row}");
    let check = check(&text);
    format!("{text}\t{check}\n")
}

fn parse(line: &[u8]) -> Option<(usize, String)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (text, found) = line.rsplit_once('\t')?;
    let (point, row) = text.split_once('\t')?;
    (check(text) == found).then_some((point.parse().ok()?, row.to_owned()))
}

/// Enough of a digest to detect a line that a crash left incomplete.
fn check(text: &str) -> String {
    Sha256::digest(text).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
