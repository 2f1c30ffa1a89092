//! The demo's page: `report.html` of a run with scenarios.

use super::latency::{Groups, panels, stages};
use super::scenarios::{label, verdict};
use super::{notes, page, scenarios, section, tiles, time_label, watched};
use crate::report::charts::{path_picture, timeline};
use crate::report::digest::{Digest, Group};
use crate::report::experiment::TimeBase;
use crate::report::markup::Text;
use crate::report::units::{bytes, count, duration, plural};
use crate::summary::{Outcome, RunSummary, ScenarioSummary};

/// The page.
pub(in crate::report) fn render(summary: &RunSummary, digest: &Digest) -> String {
    let ran = summary.scenarios.iter().map(|scenario| (scenario.name.clone(), scenario.label()));
    let groups = Groups::of(digest, ran);
    let title = match summary.result {
        Outcome::Pass => "refault run: pass",
        Outcome::Slow => "refault run: slow",
        Outcome::Fail => "refault run: fail",
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
        watched::requests(&digest.requests),
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

/// What lies beside the page, but what every run leaves.
const FILES: [(&str, &str); 3] = [
    ("summary.json", "the table of scenarios, for programs"),
    ("serial.log", "what the guest's kernel said"),
    ("output.log", "what the program in the guest said"),
];

/// Whose time a demo's times are.
pub(in crate::report) fn time_base(summary: &RunSummary) -> TimeBase {
    match summary.setup.host.as_str() {
        "qemu" | "nested" => TimeBase::Emulated,
        _ => TimeBase::Real,
    }
}

/// Verdict, one sentence, and the figures that matter most.
fn head(summary: &RunSummary, all: &Group) -> String {
    let sum = |field: fn(&ScenarioSummary) -> u64| -> u64 { summary.scenarios.iter().map(field).sum() };
    let (wrong, moved) = (sum(|s| s.bytes_wrong), sum(|s| s.blocks_moved));
    let (faults, written) = (sum(|s| s.faults), sum(|s| s.bytes_written));
    let passed = summary.scenarios.iter().filter(|s| s.result == Outcome::Pass).count();
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
        "<header>\n<h1>refault run {}</h1>\n<p class=\"lead\">An unmodified Linux guest (kernel {}) wrote {} by RDMA into a DAX file on XFS, while the filesystem moved {} of the file. Nothing was pinned: where a page was gone, the NIC took a fault and tried again, {}.</p>\n{}{reason}{}</header>\n",
        verdict(summary.result),
        Text(&summary.setup.kernel),
        bytes(written),
        plural(moved, "block", "blocks"),
        plural(faults, "time", "times"),
        time_label(time_base(summary)),
        tiles(&figures),
    )
}

/// Of the faults that took this way: those of on-demand regions never meet the IOMMU.
fn path(digest: &Digest) -> String {
    let by_request = digest.by_request();
    let other = match digest.has_others() {
        true => {
            "<p>Rows and charts marked odp took the other way: the NIC's own table had a hole, an event told its driver, the driver filled the table and resumed the request. There the IOMMU's share is that of event queue and command lane.</p>\n"
        }
        false => "",
    };
    format!(
        "<p>A process has mapped a file on XFS with DAX, registered its whole address space without pinning it, and posts an RDMA WRITE into the file. Steps 5 to 13 happen when the page is not there; the numbers beside them are what this run measured. When the page is there, step 5 is followed by step 13.</p>\n{}",
        path_picture::picture(&by_request, false) + other
    )
}

/// The tracks over time.
pub(super) fn over_time(digest: &Digest) -> String {
    let names: Vec<String> = digest.labels.iter().map(|(name, mode)| label(name, mode)).collect();
    match timeline::chart(digest, &names) {
        none if none.is_empty() => "<p>No fault was recorded.</p>\n".into(),
        chart => chart,
    }
}
