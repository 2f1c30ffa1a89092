//! Sweeps: an experiment for each point of a grid, in parallel, kept point by point.
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
use self::table::Table;
use refault_lab::sweep::{SweepPlan, row};

/// Why a sweep did not come to its end. What was finished is kept in all cases.
#[derive(Debug, Error)]
pub enum SweepError {
    /// The folder is another sweep's.
    #[error("{} belongs to {other} or to another version of this one; give another folder with --out, or remove it", folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        other: String,
    },
    /// Another process has it.
    #[error("another process works on the sweep in {}; wait for it, or give another folder with --out", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// The points cannot be opened.
    #[error("cannot open {}: {reason}; give a folder that can be written with --out", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: io::Error,
    },
    /// A finished point cannot be kept.
    #[error(
        "cannot append to {}: {reason}; {kept} finished points are kept: make room, and give the same command again",
        path.display()
    )]
    Append {
        /// The file.
        path: PathBuf,
        /// Points that are kept.
        kept: usize,
        /// What went wrong.
        reason: io::Error,
    },
    /// The table cannot be written.
    #[error(
        "cannot write {}: {reason}; all points are kept: make room, and give the same command again",
        path.display()
    )]
    Table {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: io::Error,
    },
    /// An experiment failed.
    #[error("point {point} ({values}) failed: {reason}; {kept} finished points are kept")]
    Point {
        /// Its number.
        point: usize,
        /// What varies, as it is there.
        values: String,
        /// Why.
        reason: String,
        /// Points that are kept.
        kept: usize,
    },
}

/// What a sweep came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Points in the table.
    pub points: usize,
    /// Of these, points that an earlier run had finished.
    pub resumed: usize,
    /// The table.
    pub table: PathBuf,
}

/// Runs all points that are not in `folder` yet, `jobs` at a time, and writes the table. `progress` hears how many are
/// done.
///
/// # Errors
/// A point fails, or cannot be kept: then nothing that was finished is lost, and the same call goes on from there.
pub fn run(
    plan: &SweepPlan,
    folder: &Path,
    jobs: usize,
    progress: impl FnMut(usize),
) -> Result<Done, SweepError> {
    run_with(plan, folder, jobs, progress, &|point| row(plan, point))
}

/// A point's figures as a row, or why there are none.
type Row = Result<String, String>;

fn run_with(
    plan: &SweepPlan,
    folder: &Path,
    jobs: usize,
    mut progress: impl FnMut(usize),
    work: &(impl Fn(usize) -> Row + Sync),
) -> Result<Done, SweepError> {
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
            scope.spawn(move || labour(todo, next, stop, work, &sender));
        }
        drop(sender);
        let kept = keep(results, plan, &mut store, &stop, &mut progress);
        stop.store(true, Ordering::Relaxed);
        kept
    })?;
    let table = Table::new(plan, store.rows().values()).write(folder)?;
    Ok(Done { points: store.rows().len(), resumed, table })
}

/// One thread: takes points until there are none.
fn labour(
    todo: &[usize],
    next: &AtomicUsize,
    stop: &AtomicBool,
    work: &(impl Fn(usize) -> Row + Sync),
    results: &Sender<(usize, Row)>,
) {
    while !stop.load(Ordering::Relaxed) {
        let Some(&point) = todo.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
        let row = catch_unwind(AssertUnwindSafe(|| work(point)));
        let row = row.unwrap_or_else(|_| Err("it panicked, which is a mistake of refault's".into()));
        if results.send((point, row)).is_err() {
            return;
        }
    }
}

/// Keeps results as they come. Those that wait together are appended together: a slow disk costs points nothing. After a
/// failure no new points begin, and those under way are kept still.
fn keep(
    results: Receiver<(usize, Row)>,
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
