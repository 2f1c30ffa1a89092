//! Reports of many faults: time and memory of writing a run's files, and of making its page again from them.
//!
//! `cargo bench -p refault-tests --bench report` reports 10 million faults; `-- --quick` a tenth of them, `-- NUMBER` that
//! many.
//! Each half runs in a process of its own, so that its peak of memory is its own. The CPU time
//! of its one thread counts, which a busy machine or a slow disk does not change. The elapsed time is printed beside it.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use refault_bus::{AddressSpace, Iova, Pasid, PrgIndex};
use refault_iommu::Statistics;
use refault_nic::NicStats;
use refault_observe::report::{self, DeviceCounters, ExperimentReport, TimeBase, names};
use refault_observe::trace::{
    FaultOutcome, FaultRecord, FaultStore, Observed, Records, ScenarioSpan, StageTimes,
};

/// What a report of [`FAULTS`] faults may take.
const MOST_TIME: Duration = Duration::from_secs(30);
const MOST_MEMORY: u64 = 1 << 30;
const FAULTS: usize = 10_000_000;

fn main() -> ExitCode {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let faults = if quick { FAULTS / 10 } else { FAULTS };
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match &arguments[..] {
        [half, folder, faults] => part(half, Path::new(folder), faults.parse().unwrap_or(FAULTS)),
        // Words select comparisons by name, and there are none here.
        [word] => word.parse().map_or(ExitCode::SUCCESS, both),
        _ => both(faults),
    }
}

/// Both halves, one after the other.
fn both(faults: usize) -> ExitCode {
    let folder = tempfile::tempdir().expect("a folder for the run");
    let program = std::env::current_exe().expect("this program");
    println!(
        "a report of {faults} faults; target for {FAULTS}: at most {MOST_TIME:?} and 1 GiB for each half"
    );
    let mut kept = true;
    for half in ["write", "again"] {
        let mut command = Command::new(&program);
        command.arg(half).arg(folder.path()).arg(faults.to_string());
        kept &= command.status().expect("this program runs").success();
    }
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).map_or(0, |file| file.len());
    println!(
        "    faults.csv {} MB, report.html {} kB",
        size(names::FAULTS) / 1_000_000,
        size(names::REPORT) / 1000
    );
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn part(half: &str, folder: &Path, faults: usize) -> ExitCode {
    let (what, start) = match half {
        "write" => {
            let records = records(faults);
            let counters = DeviceCounters {
                nic: NicStats::default(),
                iommu: Statistics::default(),
                observed: records.observed.clone(),
                timing: None,
            };
            let experiment = ExperimentReport {
                title: "many faults".into(),
                time: TimeBase::Virtual,
                ..ExperimentReport::default()
            };
            let start = (Instant::now(), run_time());
            report::write_experiment(folder, &records, &counters, &experiment).expect("the run's files");
            ("faults.csv, trace.json and page written, from records in memory", start)
        }
        _ => {
            let start = (Instant::now(), run_time());
            report::regenerate(folder).expect("the page");
            ("page made again from faults.csv", start)
        }
    };
    let (passed, took) = (start.0.elapsed(), run_time() - start.1);
    let memory = peak_memory();
    let met = faults > FAULTS || took <= MOST_TIME && memory <= MOST_MEMORY;
    let verdict = if met { "" } else { ": MISSED" };
    println!("    {what}: ran {took:.1?} ({passed:.1?} passed), peak {} MiB{verdict}", memory >> 20);
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// CPU time of this thread.
fn run_time() -> Duration {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel with scheduler statistics");
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(first.expect("schedstat begins with the time run"))
}

/// Peak memory of this process, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says what a process has");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok());
    kib.map_or(0, |kib: u64| kib << 10)
}

/// Faults whose stages spread over three decades, on 64 queue pairs.
fn records(faults: usize) -> Records {
    let mut store = FaultStore::new(faults);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |range: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % range
    };
    for number in 0..faults as u64 {
        let mut at = number * 900 + next(500);
        let miss = at;
        let mut stage = |mean: u64| {
            let tail = if next(100) == 0 { 1 + next(30) } else { 1 };
            at += (mean / 2 + next(mean)) * tail;
            Some(at)
        };
        let times = StageTimes {
            miss,
            round: miss,
            page_request: stage(300),
            queued: stage(500),
            interrupt: stage(900),
            taken: stage(3_000),
            handling: stage(2_000),
            handled: stage(12_000),
            response: stage(1_500),
            matched: stage(700),
            end: stage(900).unwrap_or(miss),
        };
        store.push(&FaultRecord {
            scenario: 0,
            qpn: 0x4000 + (number % 64) as u32,
            space: AddressSpace::Process(Pasid::truncated(1)),
            iova: Iova(0x7f12_3456_7000 + (next(1 << 20) << 12)),
            write: number % 2 == 0,
            group: Some(PrgIndex::truncated(number % 512)),
            requests: 1,
            outcome: FaultOutcome::Copied,
            times,
        });
    }
    let observed = Observed { faults_kept: faults as u64, ..Observed::default() };
    Records {
        scenarios: vec![ScenarioSpan::default()],
        faults: store,
        invalidations: Vec::new(),
        requests: Vec::new(),
        observed,
    }
}
