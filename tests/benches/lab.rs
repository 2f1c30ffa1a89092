//! Faults that the lab simulates per second of CPU time, each with a full record.
//!
//! CPU time as the kernel accounts it does not depend on the load of the machine.

use std::fs;
use std::process::ExitCode;

use refault_lab::engine::run;
use refault_lab::scenario::{Delay, Device, Load, Pattern, Scenario, Timing, defaults};

/// Faults of a run.
const FAULTS: u64 = 500_000;
/// Runs, of which the best counts: other load only slows a run down.
const ROUNDS: u64 = 5;
/// The promised number of faults per second.
const TARGET: f64 = 500_000.0;

/// Name, queue pairs and pages per message of each case; zero pages stand for 64 bytes of one.
const CASES: [(&str, u32, u32); 3] = [
    ("messages of 64 bytes, one queue pair", 1, 0),
    ("messages of 64 bytes, 64 queue pairs", 64, 0),
    ("messages of 16 pages, one queue pair", 1, 16),
];

fn main() -> ExitCode {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let faults = if quick { FAULTS / 10 } else { FAULTS };
    println!("best of {ROUNDS} runs of {faults} faults each");
    let mut missed = false;
    for (name, queue_pairs, pages) in CASES {
        let best = (1..=ROUNDS).map(|seed| rate(&cold(seed, queue_pairs, pages, faults), faults));
        let best = best.fold(0.0, f64::max);
        let verdict = if best >= TARGET { "" } else { ": MISSED" };
        missed |= best < TARGET;
        println!("{name}: {best:.0} faults a second, target >= {TARGET:.0}{verdict}");
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn rate(scenario: &Scenario, faults: u64) -> f64 {
    let start = run_ns();
    let outcome = run(scenario).expect("the experiment ends");
    let took = run_ns() - start;
    assert_eq!(outcome.records.faults.len() as u64, faults, "a record for each");
    faults as f64 / (took as f64 / 1e9)
}

/// Nanoseconds that this thread has run.
fn run_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel with scheduler statistics");
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    first.expect("schedstat begins with the time run")
}

/// A scenario in which each request writes to absent pages.
fn cold(seed: u64, queue_pairs: u32, pages: u32, faults: u64) -> Scenario {
    let mut timing = Timing::instant(10_000);
    timing.minor = Delay::Exponential { mean: 1000.0 };
    timing.interrupt = Delay::Constant(2000);
    timing.wake = Delay::Constant(3000);
    Scenario {
        seed,
        load: Load {
            pattern: Pattern::Strided { stride_bytes: 4096 * u64::from(pages.max(1)) },
            message_bytes: if pages == 0 { 64 } else { 4096 * pages },
            region_bytes: 1 << 20,
            queue_pairs,
            cold_share: 1.0,
            ..defaults().load.clone()
        },
        device: Device { fault_window: pages.max(1), ..defaults().device },
        timing,
        requests: faults / u64::from(pages.max(1)),
        ..defaults().clone()
    }
}
