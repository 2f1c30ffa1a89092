//! The page of a demo.

use super::latency::{Groups, panels, stages};
use super::scenarios::{label, verdict};
use super::{notes, page, sampled, scenarios, section, tiles, time_label};
use crate::report::charts::{path_picture, timeline};
use crate::report::digest::{Digest, Group};
use crate::report::experiment::TimeBase;
use crate::report::markup::Text;
use crate::report::units::{bytes, count, duration, plural};
use crate::summary::{RunResult, RunSummary, ScenarioSummary};

/// Renders the page.
pub(in crate::report) fn render(summary: &RunSummary, digest: &Digest) -> String {
    let ran = summary.scenarios.iter().map(|scenario| (scenario.name.clone(), scenario.label()));
    let groups = Groups::of(digest, ran);
    let title = match summary.result {
        RunResult::Pass => "refault run: pass",
        RunResult::Slow => "refault run: slow",
        RunResult::Fail => "refault run: fail",
    };
    let command = if summary.setup.command.is_empty() { "cargo demo" } else { &summary.setup.command };
    let made_of = "<code>faults.csv</code>, <code>invalidations.csv</code>, <code>requests.csv</code> and <code>summary.json</code>";
    let sections = [
        section("run", "What was run", &notes::setup(summary)),
        section("path", "The path of one DMA", &path(digest)),
        section("scenarios", "Scenarios", &scenarios::table(summary)),
        section("stages", "The mean fault, segment by segment", &stages(&groups)),
        section("latency", "Where a fault's time goes", &panels(&groups)),
        section("time", "The run over time", &over_time(digest)),
        sampled::requests(&digest.requests),
        section(
            "invalidations",
            "Invalidations",
            &notes::invalidations(&summary.observed, &digest.invalidations),
        ),
        section("log", "The guest's log", &notes::guest_log(&summary.guest_log)),
        section("losses", "Losses and anomalies", &notes::losses(&summary.observed)),
        section("again", "How to reproduce this", &notes::reproduce(command, made_of)),
        section("files", "Files of this run", &notes::files(&FILES)),
    ];
    page(title, &(head(summary, &groups.all) + &sections.concat()))
}

/// Files beside the page, in addition to those of every run.
const FILES: [(&str, &str); 3] = [
    ("summary.json", "the table of scenarios, for programs"),
    ("serial.log", "the guest kernel's log"),
    ("output.log", "the output of the program in the guest"),
];

/// The clock of a demo's times.
pub(in crate::report) fn time_base(summary: &RunSummary) -> TimeBase {
    match summary.setup.host.as_str() {
        "qemu" | "nested" => TimeBase::Emulated,
        _ => TimeBase::Real,
    }
}

/// Result, a one-sentence summary, and key figures.
fn head(summary: &RunSummary, all: &Group) -> String {
    let sum = |field: fn(&ScenarioSummary) -> u64| -> u64 { summary.scenarios.iter().map(field).sum() };
    let (wrong, moved) = (sum(|s| s.bytes_wrong), sum(|s| s.blocks_moved));
    let (faults, written) = (sum(|s| s.faults), sum(|s| s.bytes_written));
    let passed = summary.scenarios.iter().filter(|s| s.result == RunResult::Pass).count();
    let time = |share| if all.faults() == 0 { "–".into() } else { duration(all.total.at(share)) };
    let reason = match &summary.reason {
        Some(reason) => format!("<p class=\"fail\">✗ {}</p>\n", Text(reason)),
        None => String::new(),
    };
    let figures = [
        (format!("{passed} of {}", summary.scenarios.len()), "scenarios passed"),
        (count(wrong), "bytes wrong"),
        (bytes(sum(|s| s.bytes_verified)), "verified by reading back"),
        (count(moved), "blocks moved under DMA"),
        (count(faults), "faults resolved"),
        (time(0.5), "median fault"),
        (time(0.99), "99th percentile"),
    ];
    format!(
        "<header>\n<h1>refault run {}</h1>\n<p class=\"lead\">An unmodified Linux guest (kernel {}) wrote {} by RDMA into a DAX file on XFS, while the filesystem moved {} of the file. Nothing was pinned: when a page was gone, the NIC took a fault and retried, {}.</p>\n{}{reason}{}</header>\n",
        verdict(summary.result),
        Text(&summary.setup.kernel),
        bytes(written),
        plural(moved, "block", "blocks"),
        plural(faults, "time", "times"),
        time_label(time_base(summary)),
        tiles(&figures),
    )
}

/// The path of a page request. Faults of on-demand regions are not included: they do not involve the IOMMU.
fn path(digest: &Digest) -> String {
    let by_request = digest.by_request();
    let other = match digest.has_others() {
        true => {
            "<p>Rows and charts marked odp took the other path: the NIC's own table had a hole, an event notified its driver, and the driver filled the table and resumed the request. There the IOMMU's share is that of the event queue and the command lane.</p>\n"
        }
        false => "",
    };
    format!(
        "<p>A process has mapped a file on XFS with DAX, registered its whole address space without pinning it, and posts an RDMA WRITE into the file. Steps 7 to 15 happen when the page is missing; the numbers beside them were measured in this run. When the page is present, step 15 follows step 7.</p>\n{}",
        path_picture::picture(&by_request, false) + other
    )
}

/// The charts over time.
pub(super) fn over_time(digest: &Digest) -> String {
    let names: Vec<String> = digest.labels.iter().map(|(name, mode)| label(name, mode)).collect();
    match timeline::chart(digest, &names) {
        none if none.is_empty() => "<p>No fault was recorded.</p>\n".into(),
        chart => chart,
    }
}
