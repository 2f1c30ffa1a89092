//! The demo's scenarios at small size, in all modes, with one and with two vCPUs.

use std::fs;

use refault_vmm::demo::summary::{Outcome, RunSummary};

use crate::support::{Refault, assert_clean, script};

const SCENARIOS: [&str; 8] =
    ["steady", "reflink-cow", "exchange", "punch", "truncate", "fsync", "kill", "pinned"];

const MODES: [&str; 3] = ["pasid", "odp", "pinned"];

fn small_demo(cpus: &str, mapping: &str, more: &[&str]) -> RunSummary {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().display().to_string();
    let fixed =
        ["demo", "--cpus", cpus, "--mapping", mapping, "--scale", "0.1", "--seconds", "1", "--out", &out];
    let said = Refault::new(fixed.iter().chain(more)).run();
    assert_eq!(said.status, 0, "{said:#?}");
    let latest = folder.path().join("latest");
    let summary = fs::read_to_string(latest.join("summary.json")).expect("a summary");
    let summary: RunSummary = serde_json::from_str(&summary).expect("of the known form");
    assert_eq!(summary.result, Outcome::Pass, "{summary:#?}");
    let ran: Vec<_> = summary.scenarios.iter().map(|ran| (&*ran.name, &*ran.mode)).collect();
    let in_modes = |name: &'static str| MODES.map(|mode| (name, mode));
    let planned: Vec<_> = SCENARIOS.into_iter().flat_map(in_modes).collect();
    let planned: Vec<_> =
        planned.into_iter().filter(|(name, mode)| *name != "pinned" || *mode == "pinned").collect();
    assert_eq!(ran, planned);
    for scenario in &summary.scenarios {
        assert_eq!((scenario.result, scenario.bytes_wrong), (Outcome::Pass, 0), "{scenario:#?}");
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
    assert_clean(&fs::read_to_string(latest.join("serial.log")).expect("a log"), &said);
    for file in ["report.html", "faults.csv", "trace.json"] {
        assert!(latest.join(file).is_file(), "no {file}");
    }
    summary
}

#[test]
fn every_scenario_passes_with_one_cpu() {
    small_demo("1", "2m", &[]);
}

#[test]
fn every_scenario_passes_with_two_cpus_and_the_guest_tells_its_part() {
    let summary = small_demo("2", "4k", &["--guest-stages"]);
    let told = summary.observed.guest.expect("the guest was asked");
    assert!(told.split > 0, "{told:#?}");
}

/// The checks must be able to fail: one bit is flipped behind the program's back, or a write is left out.
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
        broken --scenario truncate --sabotage heir"#;
    let (said, _) = script(2, &[], text);
    assert_eq!(said.status, 0, "{said:#?}");
}
