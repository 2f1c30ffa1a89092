//! Stages of fault handling that the guest traces: both ways to fault, in one run.

use std::path::Path;

use serde_json::Value;

use crate::support::script;

/// Faults in each mode.
const FAULTS: u64 = 300;

/// Requests for `refault-load`: a write into each page, one after the other.
fn requests() -> Vec<u8> {
    const WRITE: u32 = 1;
    let one =
        |page: u64| [&0u64.to_le_bytes()[..], &(page as u32).to_le_bytes(), &WRITE.to_le_bytes()].concat();
    (0..FAULTS).flat_map(one).collect()
}

/// The lines of a run's `faults.csv`, by column.
fn faults(folder: &Path) -> Vec<std::collections::BTreeMap<String, String>> {
    let text = std::fs::read_to_string(folder.join("faults.csv")).expect("the run leaves its faults");
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().expect("a header").split(',').map(String::from).collect();
    lines.map(|line| names.iter().cloned().zip(line.split(',').map(String::from)).collect()).collect()
}

#[test]
fn the_guest_reports_its_part_of_the_faults() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (input, trace) = (folder.path().join("requests"), folder.path().join("trace"));
    std::fs::write(&input, requests()).expect("written");
    let add = format!("{}:/requests", input.display());
    let text = format!(
        "for mode in pasid odp; do
            REFAULT_ODP_MODE=$mode refault-load --requests /requests --results /tmp/results \
                --message-bytes 4096 --region-bytes {} --queue-pairs 2 --depth 4
        done
        test \"$(cat /sys/class/infiniband/*/device_clock | wc -w)\" = 3",
        4096 * FAULTS
    );
    let trace_text = trace.to_str().expect("UTF-8");
    let (said, _) = script(2, &["--trace", trace_text, "--add", &add], &text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert_eq!(
        said.stdout.matches(&format!("{FAULTS} requests, {FAULTS} checked, 0 wrong")).count(),
        2,
        "{said:#?}"
    );

    let counters = std::fs::read(trace.join("counters.json")).expect("the run leaves its counters");
    let counters: Value = serde_json::from_slice(&counters).expect("JSON");
    let guest = &counters["observed"]["guest"];
    assert_eq!(guest["not_split"], Value::Null, "{guest:#}");
    assert_eq!(guest["events_lost"], 0, "{guest:#}");
    assert_eq!(guest["trouble"], Value::Array(Vec::new()), "{guest:#}");
    let bounds = |by: &str| (guest["clocks"][by][0].as_i64(), guest["clocks"][by][1].as_i64());
    let (read, caused) = (bounds("by_readings"), bounds("by_causality"));
    assert!(
        read.0 <= caused.1 && caused.0 <= read.1,
        "the two ways to compare the clocks disagree: {guest:#}"
    );
    check_order(&faults(&trace));
}

/// At least nine of ten faults of each way have the guest's stages, and all stages are in the order of their causes.
fn check_order(faults: &[std::collections::BTreeMap<String, String>]) {
    for space in ["pasid", "key"] {
        let requested =
            faults.iter().filter(|fault| !fault[space].is_empty() && !fault["page_request_ns"].is_empty());
        let requested: Vec<_> = requested.collect();
        assert!(requested.len() as u64 >= FAULTS, "{} faults by {space}", requested.len());
        let path = ["page_request_ns", "taken_ns", "handling_ns", "handled_ns", "response_ns"];
        let whole = requested.iter().filter(|fault| {
            let times = path.map(|column| fault[column].parse::<u64>().ok());
            let seen: Vec<_> = times.into_iter().flatten().collect();
            assert!(seen.is_sorted(), "{fault:?}");
            seen.len() == path.len()
        });
        let whole = whole.count();
        assert!(
            10 * whole >= 9 * requested.len(),
            "{whole} of {} faults by {space} are split",
            requested.len()
        );
    }
}
