//! The table of scenarios, and what each of them does.

use crate::report::markup::{Table, Text};
use crate::report::units::{bytes, bytes_per_second, count, duration, seconds};
use crate::summary::{Outcome, RunSummary, ScenarioSummary};

/// What the filesystem does in a scenario while the NIC writes.
const ABOUT: [(&str, &str); 8] = [
    ("steady", "nothing moves: the baseline"),
    (
        "reflink-cow",
        "reflink copies are taken again and again, so every write goes to a new block; each copy must keep the bytes of its moment",
    ),
    ("exchange", "extents are exchanged with a freshly written twin"),
    ("punch", "ranges are punched and refilled; a second file takes the freed blocks and must never change"),
    (
        "truncate",
        "the tail is cut off under the DMA: requests beyond it must fail, and nobody else may notice",
    ),
    (
        "fsync",
        "an fsync loop: each write-protects the pages, so the filesystem hears of every page that is written again",
    ),
    ("kill", "the process is killed with faults in flight; everything it had must come back"),
    ("pinned", "plain registration: refused for the DAX file by the kernel, works for anonymous memory"),
];

/// The table.
pub(super) fn table(summary: &RunSummary) -> String {
    let mut table = Table::new(&[
        ("scenario", ""),
        (
            "mode",
            "who translates: the IOMMU (pasid), the NIC's own table (odp), or nobody, for the pages are to be pinned; and the size of the mappings in the process' page table",
        ),
        ("result", ""),
        ("writes", "RDMA WRITEs that were acknowledged"),
        ("written", "their payload, and the rate at which it was written"),
        ("faults", "accesses that missed and were resolved by the guest's kernel"),
        (
            "asked for",
            "page requests, or page fault events: more than faults where a page was gone again when the device looked",
        ),
        ("blocks moved", "4 KiB blocks whose place on the medium changed, by the file's extent maps"),
        ("verified", "bytes read back through the filesystem and found as acknowledged"),
        ("wrong", "bytes found otherwise"),
        ("median", "fault latency from miss to copy"),
        ("99\u{a0}%", "fault latency: 99 of 100 are no longer"),
        ("longest", "longest fault"),
    ]);
    for (index, scenario) in summary.scenarios.iter().enumerate() {
        let again = summary.scenarios[..index].iter().any(|before| before.name == scenario.name);
        table.row(&name(scenario, again), &cells(scenario));
    }
    table.finish("numbers scenarios")
}

/// Pass, slow or fail, by word, sign and colour.
pub(super) fn verdict(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "<span class=\"pass\">✓ pass</span>",
        Outcome::Slow => "<span class=\"slow\">… slow</span>",
        Outcome::Fail => "<span class=\"fail\">✗ fail</span>",
    }
}

/// Name and mode, as tabs, charts and tables say it.
pub(super) fn label(name: &str, mode: &str) -> String {
    match (name, mode) {
        ("", _) => "outside of scenarios".into(),
        (name, "") => name.into(),
        (name, mode) => format!("{name} · {mode}"),
    }
}

/// Name and reason; what the scenario does only where it stands for the first time.
fn name(scenario: &ScenarioSummary, again: bool) -> String {
    let about = ABOUT.iter().find(|(name, _)| *name == scenario.name && !again);
    let about = about.map_or(String::new(), |(_, about)| format!("<small>{about}</small>"));
    let reason = match (scenario.reason.as_str(), scenario.result) {
        ("", _) => String::new(),
        (reason, Outcome::Pass | Outcome::Slow) => {
            format!("<small class=\"remark\">{}</small>", Text(reason))
        }
        (reason, Outcome::Fail) => format!("<small class=\"fail\">{}</small>", Text(reason)),
    };
    format!("{}{about}{reason}", Text(&scenario.name))
}

fn cells(scenario: &ScenarioSummary) -> Vec<String> {
    let wrong = match scenario.bytes_wrong {
        0 => "0".into(),
        wrong => format!("<span class=\"fail\">{}</span>", bytes(wrong)),
    };
    let mut written = bytes(scenario.bytes_written);
    if scenario.seconds > 0.0 {
        let rate = bytes_per_second(scenario.bytes_written, scenario.seconds);
        written += &format!("<small>{rate} in {}</small>", seconds(scenario.seconds));
    }
    let time = |ns| if scenario.faults == 0 { "–".into() } else { duration(ns) };
    vec![
        Text(&scenario.label()).to_string(),
        verdict(scenario.result).into(),
        count(scenario.writes),
        written,
        count(scenario.faults),
        count(scenario.page_requests),
        count(scenario.blocks_moved),
        bytes(scenario.bytes_verified),
        wrong,
        time(scenario.fault_ns.p50),
        time(scenario.fault_ns.p99),
        time(scenario.fault_ns.max),
    ]
}
