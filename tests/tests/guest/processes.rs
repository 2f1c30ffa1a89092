//! What a run's processes hold on the host.

use std::fs;
use std::path::Path;

/// Of a process and of those it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Open files, of all of them.
    pub(crate) files: usize,
    /// Threads of those that run our program. QEMU starts and ends threads as it likes.
    pub(crate) threads: usize,
    /// Memory of those in KiB, without files and what is shared. QEMU's also holds code that it translated.
    pub(crate) kib: i64,
}

/// What the process `pid` and its descendants hold.
pub(crate) fn held_by(pid: u32) -> Held {
    let mut held = Held::default();
    let mut pids = vec![pid];
    while let Some(pid) = pids.pop() {
        let process = Path::new("/proc").join(pid.to_string());
        held.files += fs::read_dir(process.join("fd")).map_or(0, Iterator::count);
        let tasks: Vec<_> = fs::read_dir(process.join("task")).into_iter().flatten().flatten().collect();
        let children = tasks.iter().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        pids.extend(
            children
                .flat_map(|text| text.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()),
        );
        if fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("refault")) {
            held.threads += tasks.len();
            let status = fs::read_to_string(process.join("status")).unwrap_or_default();
            held.kib += status.lines().find_map(|line| line.strip_prefix("RssAnon:")).map_or(0, kib);
        }
    }
    held
}

fn kib(field: &str) -> i64 {
    field.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}
