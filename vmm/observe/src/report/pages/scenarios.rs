//! The table of scenarios, with a description of each.

use crate::report::markup::{HtmlTable, Text};
use crate::report::units::{bytes, bytes_per_second, count, duration, seconds};
use crate::summary::{RunResult, RunSummary, ScenarioSummary};

/// What the filesystem does during DMA in each scenario.
const ABOUT: [(&str, &str); 8] = [
    ("steady", "nothing moves: the baseline"),
    (
        "reflink-cow",
        "reflink copies are taken again and again, so every write goes to a new block; each copy must keep the bytes it had when it was made",
    ),
    ("exchange", "extents are exchanged with a freshly written twin"),
    ("punch", "ranges are punched and refilled; a second file takes the freed blocks and must never change"),
    (
        "truncate",
        "the tail is truncated under DMA: requests beyond it must fail, and no others may be affected",
    ),
    (
        "fsync",
        "an fsync loop: each write-protects the pages, so the filesystem is notified of every page that is written again; over a wire the writer makes each record durable by an RDMA FLUSH, too",
    ),
    ("kill", "the process is killed with faults in flight; everything it held must be released"),
    ("pinned", "plain registration: refused for the DAX file by the kernel, works for anonymous memory"),
];

/// The table.
pub(super) fn table(summary: &RunSummary) -> String {
    let mut table = HtmlTable::new(&[
        ("scenario", ""),
        (
            "mode",
            "what translates: the IOMMU (pasid), the NIC's own table (odp), or neither, because the pages would be pinned (pinned); remote and lossy are as pasid, and the writer is another NIC over a wire, lossy's with losses; and the size of the mappings in the process's page table",
        ),
        ("result", ""),
        ("writes", "acknowledged RDMA WRITEs"),
        ("written", "their payload, and the rate at which it was written"),
        ("faults", "accesses that missed and were resolved by the guest's kernel"),
        (
            "requested",
            "page requests, or page fault events: more than faults if pages were gone again when the device retried",
        ),
        ("blocks moved", "4 KiB blocks that moved on the medium, by the file's extent maps"),
        ("verified", "bytes read back through the filesystem and found correct"),
        ("wrong", "bytes found wrong"),
        ("median", "fault latency from miss to copy"),
        ("99\u{a0}%", "fault latency: 99 of 100 are at most this long"),
        ("longest", "longest fault"),
    ]);
    for (index, scenario) in summary.scenarios.iter().enumerate() {
        let again = summary.scenarios[..index].iter().any(|before| before.name == scenario.name);
        table.row(&name(scenario, again), &cells(scenario));
    }
    table.finish("numbers scenarios")
}

/// The result as a coloured word.
pub(super) fn verdict(outcome: RunResult) -> &'static str {
    match outcome {
        RunResult::Pass => "<span class=\"pass\">✓ pass</span>",
        RunResult::Slow => "<span class=\"slow\">… slow</span>",
        RunResult::Fail => "<span class=\"fail\">✗ fail</span>",
    }
}

/// Name and mode, for tabs, charts and tables.
pub(super) fn label(name: &str, mode: &str) -> String {
    match (name, mode) {
        ("", _) => "outside scenarios".into(),
        (name, "") => name.into(),
        (name, mode) => format!("{name} · {mode}"),
    }
}

/// Name and reason; the description only on first occurrence.
fn name(scenario: &ScenarioSummary, again: bool) -> String {
    let about = ABOUT.iter().find(|(name, _)| *name == scenario.name && !again);
    let about = about.map_or(String::new(), |(_, about)| format!("<small>{about}</small>"));
    let reason = match (scenario.reason.as_str(), scenario.result) {
        ("", _) => String::new(),
        (reason, RunResult::Pass | RunResult::Slow) => {
            format!("<small class=\"remark\">{}</small>", Text(reason))
        }
        (reason, RunResult::Fail) => format!("<small class=\"fail\">{}</small>", Text(reason)),
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
