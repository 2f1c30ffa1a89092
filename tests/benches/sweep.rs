//! How long a sweep takes: points of 10,000 faults each, with their rows kept on disk and the table written.
//!
//! The CPU time of all threads counts, which does not depend on the load of the machine. Points share nothing, so two
//! cores take half of it.

use std::fs;
use std::process::ExitCode;
use std::thread::available_parallelism;

use refault_lab::shipped::no_files;
use refault_lab::sweep::SweepPlan;
use refault_vmm::lab::sweep::run;

/// Points of the promised sweep, and faults of each.
const PROMISED: f64 = 1000.0;
const FAULTS: usize = 10_000;
/// Promised seconds on two cores.
const TARGET: f64 = 60.0;
/// Unit of a process' CPU time in /proc, whatever the kernel's clock rate.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> ExitCode {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let points = if quick { 20 } else { 200 };
    let text = format!(
        "scenario.requests = {FAULTS}\nscenario.preset = \"example\"\nscenario.load.cold_share = 1.0\n\
         scenario.load.queue_pairs = 8\nscenario.load.region = \"4 MiB\"\n\
         [[axis]]\nkey = \"seed\"\nfrom = 1\nto = {points}\nstep = 1\n"
    );
    let plan = SweepPlan::parse("bench.toml", &text, &no_files).expect("a sweep");
    let folder = tempfile::tempdir().expect("a folder");
    let jobs = available_parallelism().map_or(1, usize::from);
    let start = process_seconds();
    let done = run(&plan, folder.path(), jobs, |_| {}).expect("every point ends");
    let took = process_seconds() - start;
    assert_eq!((done.points, done.resumed), (points, 0));
    let seconds = took / points as f64 * PROMISED / 2.0;
    let missed = seconds > TARGET;
    let verdict = if missed { ": MISSED" } else { "" };
    println!(
        "{points} points of {FAULTS} faults: {:.1} ms of a processor each; {PROMISED} points on two cores: \
         {seconds:.1} s, target <= {TARGET} s{verdict}",
        took / points as f64 * 1000.0
    );
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Seconds that this process' threads have run, in the kernel and out of it.
fn process_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").expect("a process");
    let (_, fields) = text.rsplit_once(')').expect("its name is in brackets");
    // utime and stime are fields 14 and 15; the first two stand before the bracket's end.
    let ticks: f64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
}
