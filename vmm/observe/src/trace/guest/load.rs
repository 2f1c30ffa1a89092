//! Reads the files that the guest saves, without trusting their contents.

use std::fs;
use std::io;
use std::path::Path;

use super::event::GuestEvent;
use super::format::Formats;
use super::ring;

/// Most lines of `trouble` that are kept.
const TROUBLE_MAX: usize = 16;

/// The guest kernel's trace of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestTrace {
    pub(super) events: Vec<GuestEvent>,
    /// Events lost, by the kernel's own count.
    pub(super) lost: u64,
    pub(super) readings: Vec<Reading>,
    pub(super) trouble: Vec<String>,
}

/// A reading of the device's clock between two readings of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) before: u64,
    pub(super) device: u64,
    pub(super) after: u64,
}

impl GuestTrace {
    /// Reads the files in `folder`, skipping damaged entries and missing files.
    ///
    /// # Errors
    /// An existing file cannot be read.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let text = |name: &str| -> io::Result<String> {
            let bytes = read(&folder.join(name))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let formats = Formats::parse(&text("formats")?);
        let mut trace = Self {
            readings: text("clocks")?.lines().filter_map(reading).collect(),
            trouble: text("trouble")?.lines().take(TROUBLE_MAX).map(printable).collect(),
            ..Self::default()
        };
        for entry in sorted(folder)? {
            let extension = entry.extension().and_then(|extension| extension.to_str());
            match extension {
                Some("raw") => trace.take_events(&read(&entry)?, &formats),
                Some("stats") => {
                    trace.lost = trace.lost.saturating_add(lost(&String::from_utf8_lossy(&read(&entry)?)));
                }
                _ => {}
            }
        }
        Ok(trace)
    }

    fn take_events(&mut self, bytes: &[u8], formats: &Formats) {
        // Losses recorded in the pages are also part of the kernel's counts.
        ring::read(bytes, |at, data| {
            let event = formats.of(data).and_then(|format| GuestEvent::decode(format, at, data));
            self.events.extend(event);
        });
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

fn sorted(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut all =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    all.sort();
    Ok(all)
}

fn reading(line: &str) -> Option<Reading> {
    let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
    let (before, device, after) = (numbers.next()??, numbers.next()??, numbers.next()??);
    (before <= after).then_some(Reading { before, device, after })
}

/// Sums the losses in `per_cpu/cpu*/stats`: dropped and overwritten events.
fn lost(stats: &str) -> u64 {
    const KINDS: [&str; 3] = ["overrun: ", "commit overrun: ", "dropped events: "];
    let count =
        |line: &str| KINDS.iter().find_map(|kind| line.strip_prefix(kind)?.trim().parse::<u64>().ok());
    stats.lines().filter_map(count).fold(0, u64::saturating_add)
}

fn printable(line: &str) -> String {
    line.chars().filter(|character| !character.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lost_is_added_up() {
        let stats = "entries: 5\noverrun: 1\ncommit overrun: 2\nbytes: 100\nnow ts:  3.5\ndropped events: 40\nread events: 7\n";
        assert_eq!(lost(stats), 43);
        assert_eq!(lost("overrun: many\n"), 0);
        assert_eq!(lost(&format!("overrun: {}\ndropped events: 1\n", u64::MAX)), u64::MAX);
    }

    #[test]
    fn a_reading_is_three_numbers_in_order() {
        assert_eq!(reading("1 20 3"), Some(Reading { before: 1, device: 20, after: 3 }));
        for line in ["", "1 2", "3 2 1", "a b c", "-1 2 3"] {
            assert_eq!(reading(line), None, "{line:?}");
        }
    }

    #[test]
    fn an_empty_folder_has_no_events() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(GuestTrace::load(folder.path()).expect("readable"), GuestTrace::default());
    }

    #[test]
    fn any_bytes_are_no_events() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["formats", "clocks", "trouble", "cpu0.raw", "cpu0.stats"] {
            fs::write(folder.path().join(name), [0xa5; 5000]).expect("written");
        }
        let trace = GuestTrace::load(folder.path()).expect("readable");
        assert_eq!((trace.events.len(), trace.lost, trace.readings.len()), (0, 0, 0));
    }
}
