//! Sweeps: an experiment for each point of a grid, in parallel, saved point by point.
//!
//! Each point runs in one thread, and its row depends on its scenario alone; so the table is the same whatever the
//! number of threads, and however often the sweep was interrupted.

#[cfg(feature = "arrow")]
mod arrow;
mod store;
mod table;
#[cfg(all(test, feature = "arrow"))]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use thiserror::Error;

#[cfg(feature = "arrow")]
pub use self::arrow::ARROW;
pub use self::store::POINTS;
use self::store::Store;
pub use self::table::CSV;
use self::table::TableFiles;
use refault_lab::sweep::{SweepPlan, row};

/// Why a sweep was not completed. Finished points are kept in all cases.
#[derive(Debug, Error)]
pub enum SweepError {
    /// The folder belongs to another sweep.
    #[error("{} belongs to {other} or to another version of this one; give another folder with --out, or remove it", folder.display())]
    Foreign {
        /// The sweep's folder.
        folder: PathBuf,
        /// The sweep it belongs to.
        other: String,
    },
    /// Another process runs the sweep.
    #[error("another process runs the sweep in {}; wait for it, or give another folder with --out", folder.display())]
    Busy {
        /// The sweep's folder.
        folder: PathBuf,
    },
    /// The file of points cannot be opened.
    #[error("cannot open {}: {reason}; give a writable folder with --out", path.display())]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// A finished point cannot be saved.
    #[error(
        "cannot append to {}: {reason}; {kept} finished points are kept: make room, and give the same command again",
        path.display()
    )]
    Append {
        /// Path of the file.
        path: PathBuf,
        /// Points that are saved.
        kept: usize,
        /// The system's error.
        reason: io::Error,
    },
    /// The table cannot be written.
    #[error(
        "cannot write {}: {reason}; all points are kept: make room, and give the same command again",
        path.display()
    )]
    Table {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// An experiment failed.
    #[error("point {point} ({values}) failed: {reason}; {kept} finished points are kept")]
    Point {
        /// Its index in the plan.
        point: usize,
        /// Its values on the axes.
        values: String,
        /// The experiment's error.
        reason: String,
        /// Points that are saved.
        kept: usize,
    },
}

/// The result of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepResult {
    /// Points in the table.
    pub points: usize,
    /// Of these, points that an earlier run had finished.
    pub resumed: usize,
    /// Path of the table, as CSV.
    pub table: PathBuf,
}

/// Runs all points that are not in `folder` yet, `jobs` at a time, and writes the table. `progress` hears how many are
/// are finished.
///
/// # Errors
/// A point fails or cannot be saved. Finished points are kept, and the same call resumes after them.
pub fn run(
    plan: &SweepPlan,
    folder: &Path,
    jobs: usize,
    progress: impl FnMut(usize),
) -> Result<SweepResult, SweepError> {
    run_with(plan, folder, jobs, progress, &|point| row(plan, point))
}

/// A point's figures as a row of CSV, or why it failed.
type RowResult = Result<String, String>;

fn run_with(
    plan: &SweepPlan,
    folder: &Path,
    jobs: usize,
    mut progress: impl FnMut(usize),
    work: &(impl Fn(usize) -> RowResult + Sync),
) -> Result<SweepResult, SweepError> {
    let mut store = Store::open(folder, plan)?;
    let resumed = store.rows().len();
    let todo: Vec<usize> = (0..plan.len()).filter(|point| !store.rows().contains_key(point)).collect();
    progress(resumed);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (sender, results) = channel();
        for _ in 0..jobs.clamp(1, todo.len().max(1)) {
            let sender = sender.clone();
            let (todo, next, stop) = (&todo, &next, &stop);
            scope.spawn(move || run_points(todo, next, stop, work, &sender));
        }
        drop(sender);
        let kept = keep(results, plan, &mut store, &stop, &mut progress);
        stop.store(true, Ordering::Relaxed);
        kept
    })?;
    let table = TableFiles::new(plan, store.rows().values()).write(folder)?;
    Ok(SweepResult { points: store.rows().len(), resumed, table })
}

/// One thread: runs points until there are none left.
fn run_points(
    todo: &[usize],
    next: &AtomicUsize,
    stop: &AtomicBool,
    work: &(impl Fn(usize) -> RowResult + Sync),
    results: &Sender<(usize, RowResult)>,
) {
    while !stop.load(Ordering::Relaxed) {
        let Some(&point) = todo.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
        let row = catch_unwind(AssertUnwindSafe(|| work(point)));
        let row = row.unwrap_or_else(|_| Err("it panicked, which is a bug in refault".into()));
        if results.send((point, row)).is_err() {
            return;
        }
    }
}

/// Saves results as they arrive. Results that are waiting are appended in one write, so that a slow disk does not delay
/// the threads. After a failure no new points start, and those in flight are still saved.
fn keep(
    results: Receiver<(usize, RowResult)>,
    plan: &SweepPlan,
    store: &mut Store,
    stop: &AtomicBool,
    progress: &mut impl FnMut(usize),
) -> Result<(), SweepError> {
    let mut failed = None;
    while let Ok(first) = results.recv() {
        let mut rows = Vec::new();
        for (point, row) in [first].into_iter().chain(results.try_iter()) {
            match row {
                Ok(row) => rows.push((point, row)),
                Err(reason) => {
                    stop.store(true, Ordering::Relaxed);
                    failed = failed.or(Some((point, reason)));
                }
            }
        }
        store.append(rows)?;
        progress(store.rows().len());
    }
    match failed {
        Some((point, reason)) => {
            let values = plan.values(point).join(", ");
            Err(SweepError::Point { point, values, reason, kept: store.rows().len() })
        }
        None => Ok(()),
    }
}
