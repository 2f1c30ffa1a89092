//! The folder of a run: named by its start time, below `target/refault`. The link `latest` points to the newest finished
//! one; an aborted run leaves it unchanged.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// The link to the newest finished run.
pub const LATEST: &str = "latest";
/// Prefix of the name of an unfinished run's folder; the process id follows.
const UNFINISHED: &str = ".unfinished-";

/// The folder of an unfinished run. Removed on drop unless [`RunFolder::finish`] was called.
#[derive(Debug)]
pub struct RunFolder {
    base: PathBuf,
    path: PathBuf,
    name: String,
    finished: bool,
}

impl RunFolder {
    /// Creates a folder below `base` for a run that starts at `start`. Removes unfinished folders of dead processes.
    ///
    /// # Errors
    /// A folder cannot be created.
    pub fn create(base: &Path, start: SystemTime) -> Result<Self> {
        fs::create_dir_all(base).with_context(|| format!("cannot create {}", base.display()))?;
        let base = base.canonicalize()?;
        remove_abandoned(&base);
        let path = base.join(format!("{UNFINISHED}{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { base, path, name: timestamp(start).replace(':', "-"), finished: false })
    }

    /// The path of the unfinished folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its final name, points `latest` to it, and returns its path.
    ///
    /// # Errors
    /// The filesystem refuses; then `latest` is unchanged.
    pub fn finish(mut self) -> Result<PathBuf> {
        let mut target = self.base.join(&self.name);
        for number in 2.. {
            match fs::rename(&self.path, &target) {
                Ok(()) => break,
                // Two runs in one second.
                Err(error) if number < 100 && occupied(&error) => {
                    target = self.base.join(format!("{}-{number}", self.name));
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot name {}", target.display()));
                }
            }
        }
        self.finished = true;
        let link = self.base.join(format!("{UNFINISHED}{}", std::process::id()));
        let _ = fs::remove_file(&link);
        let name = target.file_name().unwrap_or_default();
        symlink(name, &link)
            .and_then(|()| fs::rename(&link, self.base.join(LATEST)))
            .with_context(|| format!("cannot point {LATEST} in {} to the run", self.base.display()))?;
        Ok(target)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if !self.finished {
            // A failure is harmless: the next run tries again.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn occupied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

fn remove_abandoned(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(UNFINISHED)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
}

/// Formats a time in UTC, as `2026-01-31T12:34:56Z`.
pub fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        assert_eq!(timestamp(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(at(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(at(1_767_225_599)), "2025-12-31T23:59:59Z");
        assert_eq!(timestamp(at(4_107_542_400)), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn latest_points_to_the_newest_finished_run() {
        let base = tempfile::tempdir().unwrap();
        for expected in ["1970-01-01T00-00-00Z", "1970-01-01T00-00-00Z-2"] {
            let folder = RunFolder::create(base.path(), at(0)).unwrap();
            fs::write(folder.path().join("summary.json"), expected).unwrap();
            assert!(folder.finish().unwrap().ends_with(expected));
            let through = fs::read_to_string(base.path().join(LATEST).join("summary.json")).unwrap();
            assert_eq!(through, expected);
        }
    }

    #[test]
    fn an_aborted_run_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        drop(RunFolder::create(base.path(), at(0)).unwrap());
        // The folder of a killed process: no process has this id.
        fs::create_dir(base.path().join(".unfinished-4294967295")).unwrap();
        drop(RunFolder::create(base.path(), at(0)).unwrap());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
