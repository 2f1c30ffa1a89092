//! A scenario of the lab in the real guest: its counts equal those of the model.

use std::path::Path;

use refault_lab::counts::Counts;
use refault_lab::engine;
use refault_lab::scenario::Scenario;

use crate::support::{Refault, assert_clean};

/// Keys of both: one queue pair, one request at a time, a page each.
const COMMON: &str = "requests = 300\nseed = 11\npreset = \"example\"\n";

/// The counts of a scenario on the virtual clock, and in a real guest.
fn both(name: &str, load: &str) -> (Counts, Counts) {
    let text = format!("name = \"{name}\"\n{COMMON}\n{load}");
    let model = in_model(&Scenario::from_toml(name, &text).expect("a scenario"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join(format!("{name}.toml"));
    std::fs::write(&file, text).expect("written");
    (model, in_guest(folder.path(), &file))
}

/// In the model, evictions before a request take no time and leave no record, but the NIC counts their invalidations.
/// Those of the setup are subtracted: a run without evictions has only these.
fn in_model(scenario: &Scenario) -> Counts {
    let run = |scenario: &Scenario| engine::run(scenario).expect("the model runs");
    let mut unevicted = scenario.clone();
    unevicted.load.cold_share = 0.0;
    let (outcome, still) = (run(scenario), run(&unevicted));
    let invalidations = outcome.counters.nic.invalidations - still.counters.nic.invalidations;
    Counts { invalidations, ..Counts::of(&outcome.records) }
}

fn in_guest(folder: &Path, file: &Path) -> Counts {
    let (log, trace) = (folder.join("serial.log"), folder.join("trace"));
    let fixed = ["run", "--cpus", "2", "--timeout", "3000", "--serial-log"].map(Path::new);
    let paths = [&log, Path::new("--trace"), &trace, Path::new("--scenario"), file];
    let said = Refault::new(fixed.into_iter().chain(paths)).run();
    assert_clean(&std::fs::read_to_string(&log).unwrap_or_default(), &said);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("300 requests, ") && said.stdout.contains(" 0 wrong"), "{said:#?}");
    for name in ["faults.csv", "counters.json", "scenario.toml", "figures.json", "report.html"] {
        assert!(trace.join(name).exists(), "no {name}: {said:#?}");
    }
    let counts = std::fs::read(trace.join("counts.json")).expect("the run leaves its counts");
    serde_json::from_slice(&counts).expect("JSON")
}

#[test]
fn a_cold_sequence_counts_the_same_in_the_model_and_in_the_guest() {
    let (model, guest) = both("sequence", "[load]\nmessage = \"4 KiB\"\nregion = \"1200 KiB\"\n");
    assert_eq!(guest, model);
    assert_eq!(guest, Counts { faults: 300, page_requests: 300, responses: 300, invalidations: 0 });
}

#[test]
fn pages_evicted_before_their_request_count_the_same_in_the_model_and_in_the_guest() {
    let load = "[load]\npattern = \"random\"\nmessage = \"4 KiB\"\nregion = \"256 KiB\"\nwarm = true\ncold_share = 0.5\n";
    let (model, guest) = both("taken-away", load);
    assert_eq!(guest, model);
    assert!((100..200).contains(&guest.faults) && guest.invalidations == guest.faults, "{guest:?}");
}
