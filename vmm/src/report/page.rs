//! `report.html`: one page, whole in itself, a pure function of a run's faults and summary.

use super::csv::FaultTable;
use super::latency::{Axes, panel};
use super::markup::Text;
use super::quantities::{Sample, quantile};
use super::scenarios::{label, verdict};
use super::units::{bytes, count, duration, plural};
use super::{notes, overview, path_picture, scenarios, timeline};
use crate::demo::summary::{Outcome, RunSummary};

const SKELETON: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/page.js");

/// The page.
pub(super) fn render(summary: &RunSummary, table: &FaultTable) -> String {
    let all = Sample::of(table.faults.iter());
    let samples = by_scenario(summary, table);
    let names: Vec<String> = table.scenarios.iter().map(|(name, mode)| label(name, mode)).collect();
    let title = match summary.result {
        Outcome::Pass => "refault run: pass",
        Outcome::Fail => "refault run: fail",
    };
    let sections = [
        section("run", "What was run", &notes::setup(summary)),
        section("path", "The path of one DMA", &path(table)),
        section("scenarios", "Scenarios", &scenarios::table(summary)),
        section("latency", "Where a fault's time goes", &latency(&all, &samples)),
        section("time", "The run over time", &over_time(table, &names)),
        section("invalidations", "Invalidations", &notes::invalidations(&summary.observed)),
        section("log", "The guest's log", &notes::guest_log(&summary.guest_log)),
        section("losses", "Losses and anomalies", &notes::losses(&summary.observed)),
        section("again", "How to reproduce this", &notes::reproduce(summary)),
        section("files", "Files of this run", &notes::files()),
    ];
    let body = head(summary, &all) + &sections.concat();
    fill(SKELETON, &[("title", title), ("style", STYLE), ("body", &body), ("script", SCRIPT)])
}

/// The faults of each scenario, in the order of the summary; then those of none.
fn by_scenario(summary: &RunSummary, table: &FaultTable) -> Vec<(String, Sample)> {
    let mut order: Vec<(String, String)> = Vec::new();
    let ran = summary.scenarios.iter().map(|scenario| (scenario.name.clone(), scenario.label()));
    for key in ran.chain(table.scenarios.iter().cloned()) {
        if !order.contains(&key) {
            order.push(key);
        }
    }
    order
        .into_iter()
        .map(|(name, mode)| {
            let index = table.scenarios.iter().position(|(n, m)| (n, m) == (&name, &mode));
            let own = table.faults.iter().filter(|fault| Some(usize::from(fault.scenario)) == index);
            (label(&name, &mode), Sample::of(own))
        })
        .collect()
}

/// Verdict, one sentence, and the figures that matter most.
fn head(summary: &RunSummary, all: &Sample) -> String {
    let sum = |field: fn(&crate::demo::summary::ScenarioSummary) -> u64| -> u64 {
        summary.scenarios.iter().map(field).sum()
    };
    let (wrong, moved) = (sum(|s| s.bytes_wrong), sum(|s| s.blocks_moved));
    let (faults, written) = (sum(|s| s.faults), sum(|s| s.bytes_written));
    let passed = summary.scenarios.iter().filter(|s| s.result == Outcome::Pass).count();
    let totals = all.sorted(0);
    let time = |share| if totals.is_empty() { "–".into() } else { duration(quantile(&totals, share)) };
    let reason = match &summary.reason {
        Some(reason) => format!("<p class=\"fail\">✗ {}</p>\n", Text(reason)),
        None => String::new(),
    };
    let tiles = [
        (format!("{passed} of {}", summary.scenarios.len()), "scenarios passed"),
        (count(wrong), "bytes wrong"),
        (bytes(sum(|s| s.bytes_verified)), "verified by reading back"),
        (count(moved), "blocks moved under DMA"),
        (count(faults), "faults resolved"),
        (time(0.5), "median fault"),
        (time(0.99), "99th percentile"),
    ];
    let tiles: String =
        tiles.iter().map(|(value, name)| format!("<li><b>{value}</b><span>{name}</span></li>\n")).collect();
    format!(
        "<header>\n<h1>refault run {}</h1>\n<p class=\"lead\">An unmodified Linux guest (kernel {}) wrote {} by RDMA into a DAX file on XFS, while the filesystem moved {} of the file. Nothing was pinned: where a page was gone, the NIC took a fault and tried again, {}.</p>\n{reason}<ul class=\"tiles\">\n{tiles}</ul>\n</header>\n",
        verdict(summary.result),
        Text(&summary.setup.kernel),
        bytes(written),
        plural(moved, "block", "blocks"),
        plural(faults, "time", "times"),
    )
}

/// Of the faults that took this way: those of on-demand regions never meet the IOMMU.
fn path(table: &FaultTable) -> String {
    let by_request = Sample::of(table.faults.iter().filter(|fault| fault.space.pasid().is_some()));
    let odp = table.faults.iter().any(|fault| fault.space.key().is_some());
    let other = match odp {
        true => {
            "<p>Rows and charts marked odp took the other way: the NIC's own table had a hole, an event told its driver, the driver filled the table and resumed the request. There the IOMMU's share is that of event queue and command lane.</p>\n"
        }
        false => "",
    };
    format!(
        "<p>A process has mapped a file on XFS with DAX, registered its whole address space without pinning it, and posts an RDMA WRITE into the file. Steps 5 to 13 happen when the page is not there; the numbers beside them are what this run measured. When the page is there, step 5 is followed by step 13.</p>\n{}",
        path_picture::picture(&by_request) + other
    )
}

/// Tabs made of radio buttons: they work without a script.
fn latency(all: &Sample, samples: &[(String, Sample)]) -> String {
    let axes = Axes::of(all);
    let mut tabs = vec![("all scenarios", all)];
    tabs.extend(samples.iter().map(|(name, sample)| (name.as_str(), sample)));
    let (mut inputs, mut chips, mut panels, mut rules) = <(String, String, String, String)>::default();
    for (index, (name, sample)) in tabs.into_iter().enumerate() {
        let checked = if index == 0 { " checked" } else { "" };
        let faults = sample.faults.len() as u64;
        let class = if faults == 0 { " class=\"empty\"" } else { "" };
        inputs += &format!("<input type=\"radio\" name=\"pick\" id=\"pick-{index}\"{checked}>\n");
        chips += &format!(
            "<label for=\"pick-{index}\"{class}>{} <small>{}</small></label>\n",
            Text(name),
            count(faults)
        );
        panels +=
            &format!("<div class=\"panel\" id=\"panel-{index}\">\n{}</div>\n", panel(name, sample, &axes));
        rules += &format!(
            "#pick-{index}:checked~.panels>#panel-{index}{{display:block}}#pick-{index}:checked~.chips>[for=pick-{index}]{{background:var(--ink);color:var(--paper);border-color:var(--ink)}}#pick-{index}:focus-visible~.chips>[for=pick-{index}]{{outline:2px solid var(--device);outline-offset:2px}}\n"
        );
    }
    format!(
        "<p><b>Device</b>: from the miss to the page request, and from the matched response to the end of the copy; pages of a long request are asked for ahead, and wait for their turn. <b>IOMMU</b>: from the page request to its queue entry and interrupt, and from the response descriptor to the match. <b>Guest</b>: from the interrupt to the response; that is the kernel and the filesystem, and the time until a CPU of the guest runs them.</p>\n{}<style>\n{rules}</style>\n<div class=\"picker\">\n{inputs}<div class=\"chips\">\n{chips}</div>\n<div class=\"panels\">\n{panels}</div>\n</div>\n",
        overview::chart(samples)
    )
}

fn over_time(table: &FaultTable, names: &[String]) -> String {
    match timeline::chart(&table.faults, names) {
        none if none.is_empty() => "<p>No fault was recorded.</p>\n".into(),
        chart => chart,
    }
}

fn section(id: &str, title: &str, content: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{content}</section>\n")
}

/// Puts values into `{{name}}` places, once: values may hold such places without harm.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out += before;
        let Some((name, tail)) = after.split_once("}}") else { break };
        out += values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
        rest = tail;
    }
    out + rest
}
