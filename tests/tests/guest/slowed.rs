//! A real guest whose devices are slowed down: the records show it, and nothing else breaks.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use refault_observe::summary::{RunResult, RunSummary};

use crate::support::{Refault, assert_clean};

/// 4 ms for a page request, 3 ms for a response, 1 ms for an interrupt.
const TIMING: &str = r#"
[timing]
bytes_per_us = 10000
page_request = "2500 us"
queue_write = "1500 us"
interrupt = "1 ms"
response_message = "2 ms"
device_wake = "1 ms"
minor = "1 s"
"#;

/// The lines of a table, by the names of their columns.
fn table(path: &Path) -> Vec<HashMap<String, String>> {
    let text = fs::read_to_string(path).expect("a table");
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let names: Vec<String> = lines.next().expect("a header").collect();
    lines.map(|line| names.iter().cloned().zip(line).collect()).collect()
}

/// The median of the time between two columns, over the lines that have both.
fn median(lines: &[&HashMap<String, String>], from: &str, to: &str) -> u64 {
    let at = |line: &HashMap<String, String>, column: &str| line[column].parse::<u64>().ok();
    let times = lines.iter().filter_map(|line| Some(at(line, to)?.saturating_sub(at(line, from)?)));
    let mut times: Vec<u64> = times.collect();
    times.sort_unstable();
    assert!(times.len() >= 20, "{} times from {from} to {to}", times.len());
    times[times.len() / 2]
}

#[test]
fn stages_take_as_long_as_the_timing_says_and_no_byte_is_lost() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let timing = folder.path().join("slow.toml");
    fs::write(&timing, TIMING).expect("written");
    let (timing, out) = (timing.display().to_string(), folder.path().display().to_string());
    let fixed = ["demo", "--scenario", "reflink-cow", "--mapping", "4k", "--scale", "0.05", "--seconds", "1"];
    let modes = ["--mode", "pasid", "--mode", "odp"];
    let more = ["--sample", "16", "--timing", &timing, "--out", &out];
    let said = Refault::new(fixed.iter().chain(&modes).chain(&more)).run();
    assert_eq!(said.status, 0, "{said:#?}");
    for named in ["slowed down: page_request, queue_write", "not: minor (the guest's own time)"] {
        assert!(said.stderr.contains(named), "{said:#?}");
    }
    let latest = folder.path().join("latest");
    let summary = fs::read_to_string(latest.join("summary.json")).expect("a summary");
    let summary: RunSummary = serde_json::from_str(&summary).expect("of the known form");
    assert_eq!((summary.result, summary.setup.timing), (RunResult::Pass, Some(timing)));
    assert_clean(&fs::read_to_string(latest.join("serial.log")).expect("a log"), &said);

    let faults = table(&latest.join("faults.csv"));
    let of_mode = |mode: &str| -> Vec<_> {
        faults.iter().filter(|line| line["mode"].starts_with(mode) && line["outcome"] == "copied").collect()
    };
    let (pasid, odp) = (of_mode("pasid"), of_mode("odp"));
    assert!(median(&pasid, "page_request_ns", "queued_ns") >= 4_000_000);
    assert!(median(&pasid, "interrupt_ns", "response_ns") >= 1_000_000);
    assert!(median(&pasid, "response_ns", "matched_ns") >= 3_000_000);
    // Page fault events of the NIC cross none of these seams but the interrupt's.
    assert!(median(&odp, "page_request_ns", "queued_ns") < 4_000_000);
    assert!(median(&odp, "interrupt_ns", "response_ns") >= 1_000_000);

    let requests = table(&latest.join("requests.csv"));
    assert!(requests.iter().any(|line| line["status"] == "0" && line["operation"] == "write"));
    let faulted = requests.iter().filter(|line| line["faults"] != "0" && !line["matched_ns"].is_empty());
    assert!(faulted.count() > 0, "no sampled request had a fault");
}
