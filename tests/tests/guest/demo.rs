//! The demo's scenarios at small size, in all modes, with one and with two vCPUs, on busy hosts.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use refault_observe::summary::{RunResult, RunSummary};

use crate::support::{Refault, Running, assert_clean, script};

const SCENARIOS: [&str; 8] =
    ["steady", "reflink-cow", "exchange", "punch", "truncate", "fsync", "kill", "pinned"];

const MODES: [&str; 3] = ["pasid", "odp", "pinned"];

/// Modes with the writer on the other end of a wire: all scenarios but `kill` and `pinned`, behind all others.
const OVER_WIRES: [&str; 2] = ["remote", "lossy"];

/// A budget larger than any machine needs: the result must not depend on the machine's speed.
const BUDGET: &str = "3600";

fn small_demo(cpus: &str, mapping: &str, more: &[&str], beside: impl FnOnce(&Running, &Path)) -> RunSummary {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().display().to_string();
    let how = ["--scale", "0.1", "--seconds", "1", "--budget", BUDGET, "--out", &out];
    let fixed = ["demo", "--cpus", cpus, "--mapping", mapping];
    let running = Refault::new(fixed.iter().chain(&how).chain(more)).start();
    beside(&running, folder.path());
    let said = running.end();
    assert_eq!(said.status, 0, "{said:#?}");
    let latest = folder.path().join("latest");
    let summary = fs::read_to_string(latest.join("summary.json")).expect("a summary");
    let summary: RunSummary = serde_json::from_str(&summary).expect("of the known form");
    assert_eq!(summary.result, RunResult::Pass, "{summary:#?}");
    let ran: Vec<_> = summary.scenarios.iter().map(|ran| (&*ran.name, &*ran.mode)).collect();
    let in_modes = |name: &'static str| MODES.map(|mode| (name, mode));
    let planned: Vec<_> = SCENARIOS.into_iter().flat_map(in_modes).collect();
    // The guest's stages are of one NIC.
    let has_wires = !more.contains(&"--guest-stages");
    let wired = if has_wires { &SCENARIOS[..6] } else { &[] };
    let over_wires = wired.iter().flat_map(|name| OVER_WIRES.map(|mode| (*name, mode)));
    let planned = planned.into_iter().filter(|(name, mode)| *name != "pinned" || *mode == "pinned");
    let planned: Vec<_> = planned.chain(over_wires).collect();
    assert_eq!(ran, planned);
    for scenario in &summary.scenarios {
        assert_eq!((scenario.result, scenario.bytes_wrong), (RunResult::Pass, 0), "{scenario:#?}");
        assert_eq!(scenario.mapping, mapping);
        if scenario.mode == "pinned" {
            assert!(scenario.reason.contains("EOPNOTSUPP"), "{scenario:#?}");
            continue;
        }
        let moves = matches!(&*scenario.name, "reflink-cow" | "exchange");
        assert!(!moves || scenario.blocks_moved > 0, "{scenario:#?}");
        let faults = moves || scenario.name == "fsync";
        assert!(!faults || scenario.faults > 0, "{scenario:#?}");
    }
    match &summary.links[..] {
        [] => assert!(!has_wires, "no links"),
        [remote, lossy] => {
            assert!(remote.sent > 0 && remote.lost == 0, "{remote:#?}");
            assert!(lossy.lost > 0 && lossy.reordered > 0 && lossy.repeated > 0, "{lossy:#?}");
        }
        links => panic!("two links: {links:#?}"),
    }
    assert_clean(&fs::read_to_string(latest.join("serial.log")).expect("a log"), &said);
    for file in ["report.html", "faults.csv", "trace.json"] {
        assert!(latest.join(file).is_file(), "no {file}");
    }
    summary
}

/// Threads that keep CPUs busy until they are dropped.
struct Busy {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    fn new(threads: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let spin = |over: Arc<AtomicBool>| move || while !over.load(Ordering::Relaxed) {};
        let threads = (0..threads).map(|_| std::thread::spawn(spin(over.clone()))).collect();
        Self { over, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("it spins and ends"));
    }
}

#[test]
fn every_scenario_passes_with_one_cpu_beside_four_busy_loops() {
    let mut busy = None;
    small_demo("1", "2m", &[], |_, _| busy = Some(Busy::new(4)));
}

/// Waits until the output of the guest's program contains `word`, for ten minutes at most.
fn await_word(runs: &Path, word: &str) {
    let said = || {
        let runs = fs::read_dir(runs).expect("a folder").flatten();
        runs.filter_map(|run| fs::read_to_string(run.path().join("output.log")).ok())
            .any(|text| text.contains(word))
    };
    let start = Instant::now();
    while !said() && start.elapsed() < Duration::from_secs(600) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// As on a host that suspends or swaps a machine: nothing runs for longer than the timeouts of guests and drivers.
#[test]
fn every_scenario_passes_with_two_cpus_that_are_stopped_for_a_while() {
    let stop = |running: &Running, runs: &Path| {
        await_word(runs, "truncate");
        running.stand_still(Duration::from_secs(20));
    };
    let summary = small_demo("2", "4k", &["--guest-stages"], stop);
    let stages = summary.observed.guest.expect("the guest traced its stages");
    // A thread that is stopped between a request and its stamp has the guest answer before it asks: then nothing is split,
    // and the summary says why.
    let contradicts = stages.not_split.as_ref().is_some_and(|why| why.contains("contradict each other"));
    assert!(stages.split > 0 || contradicts, "{stages:#?}");
}

/// The checks must be able to fail: one bit is flipped behind the program's back, or a write is omitted.
#[test]
fn one_wrong_bit_fails_the_scenario_that_looks_for_it() {
    let text = r#"
        broken() {
            status=0
            refault-demo --mode pasid --mapping 4k --scale 0.05 --seconds 0.5 "$@" >/tmp/said 2>&1 || status=$?
            test $status -ne 0 && grep -qE "FAIL.* [1-9][0-9]* bytes wrong" /tmp/said && return
            echo "not noticed: $*"
            cat /tmp/said
            exit 1
        }
        broken --scenario steady --sabotage flip
        broken --scenario steady --sabotage drop --engine cpu
        broken --scenario reflink-cow --sabotage copy
        broken --scenario exchange --sabotage copy
        broken --scenario truncate --sabotage successor"#;
    let (said, _) = script(2, &[], text);
    assert_eq!(said.status, 0, "{said:#?}");
}
