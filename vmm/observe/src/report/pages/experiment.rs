//! The page of a run that is not a demo: a program in a guest, or an experiment of the lab.

use serde_json::Value;

use super::demo::over_time;
use super::latency::{Groups, panels, stages};
use super::{notes, page, sampled, section, tiles, time_label};
use crate::report::charts::cumulative::{self, Curve};
use crate::report::charts::path_picture;
use crate::report::digest::bins::LogBins;
use crate::report::digest::{Digest, PER_DECADE};
use crate::report::experiment::{ExperimentReport, Published, RequestFigures, TimeBase};
use crate::report::markup::{HtmlTable, Text};
use crate::report::units::{bytes_per_second, count, duration, percent, plural, short};
use crate::trace::Durations;

/// Renders the page. `counters` is the contents of `counters.json`.
pub(in crate::report) fn render(experiment: &ExperimentReport, digest: &Digest, counters: &Value) -> String {
    let groups = Groups::of(digest, std::iter::empty());
    let observed = &experiment.observed;
    let made_of = "<code>faults.csv</code>, <code>invalidations.csv</code>, <code>requests.csv</code>, <code>experiment.json</code> and <code>counters.json</code>";
    let mut sections = vec![section("run", "What was run", &setup(experiment))];
    if !experiment.paper.is_empty() {
        sections.push(section("paper", "Paper and model compared", &paper(&experiment.paper)));
    }
    if let Some(requests) = &experiment.requests {
        sections.push(section("requests", "The program's requests", &seen(requests)));
    }
    if groups.all.faults() > 0 && digest.by_request().faults() > 0 {
        sections.push(section("path", "The path of one DMA", &path(experiment, digest)));
    }
    let invalidations = notes::invalidations(observed, &digest.invalidations);
    sections.extend([
        section("stages", "The mean fault, segment by segment", &stages(&groups)),
        section("latency", "Where a fault's time goes", &panels(&groups)),
        section("time", "The run over time", &over_time(digest)),
        sampled::requests(&digest.requests),
        section("invalidations", "Invalidations", &invalidations),
        section("losses", "Losses and anomalies", &notes::losses(observed)),
        section("counters", "Counters", &all_counters(counters)),
        section("again", "How to reproduce this", &notes::reproduce(&experiment.command, made_of)),
        section("files", "Files of this run", &notes::files(&FILES)),
    ]);
    let title = format!("refault: {}", Text(&experiment.title));
    page(&title, &(head(experiment, &groups) + &sections.concat()))
}

/// Files beside the page, in addition to those of every run.
const FILES: [(&str, &str); 2] = [
    ("experiment.json", "the description of the run, and the program's statistics"),
    ("counters.json", "all counters of NIC and IOMMU, for programs"),
];

fn head(experiment: &ExperimentReport, groups: &Groups) -> String {
    let all = &groups.all;
    let mut figures = Vec::new();
    if let Some(requests) = &experiment.requests {
        let seconds = requests.duration_ns as f64 / 1e9;
        let latency = requests.latency();
        figures.push((count(requests.completed), "requests succeeded"));
        if requests.failed > 0 {
            figures.push((count(requests.failed), "requests failed"));
        }
        if seconds > 0.0 {
            figures.push((short(requests.completed as f64 / seconds), "requests per second"));
            figures.push((bytes_per_second(requests.bytes, seconds), "payload"));
        }
        figures.push((duration(latency.at(0.5)), "median request"));
        figures.push((duration(latency.at(0.99)), "99th percentile of requests"));
    }
    let time = |share| if all.faults() == 0 { "–".into() } else { duration(all.total.at(share)) };
    figures.push((count(all.faults()), "faults resolved"));
    figures.push((time(0.5), "median fault"));
    figures.push((time(0.99), "99th percentile of faults"));
    if let Some(share) = utilisation(experiment) {
        figures.push((share, "handlers busy"));
    }
    format!(
        "<header>\n<h1>{}</h1>\n{}{}</header>\n",
        Text(&experiment.title),
        time_label(experiment.time),
        tiles(&figures)
    )
}

/// Share of time that the handlers were busy.
fn utilisation(experiment: &ExperimentReport) -> Option<String> {
    let handlers = experiment.handlers.as_ref()?;
    let whole = experiment.requests.as_ref()?.duration_ns.saturating_mul(handlers.handlers);
    (whole > 0).then(|| Text(&percent(handlers.busy_ns, whole)).to_string())
}

fn setup(experiment: &ExperimentReport) -> String {
    let machine = experiment.observed.machine;
    let machine = machine
        .map(|speed| format!("<dt>this machine's speed</dt><dd>{}</dd>", speed.line()))
        .unwrap_or_default();
    let version = Text(&experiment.version);
    let mut text = format!("<dl><dt>refault</dt><dd>{version}</dd>{machine}</dl>\n<div class=\"facts\">\n");
    for group in &experiment.facts {
        let rows: String = group
            .facts
            .iter()
            .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", Text(name), Text(value)))
            .collect();
        text += &format!("<div><h3>{}</h3>\n<dl>{rows}</dl></div>\n", Text(&group.title));
    }
    text += "</div>\n";
    if let Some(handlers) = &experiment.handlers {
        let busy =
            utilisation(experiment).map_or(String::new(), |share| format!(", busy {share} of the time"));
        text += &format!(
            "<h3>Fault handlers</h3>\n<p>{}{busy}. {} handled, {} prefetched; a fault waited {} for a handler on average, and at most {} waited or were being handled at one time.</p>\n",
            plural(handlers.handlers, "fault handler", "fault handlers"),
            plural(handlers.faults, "fault was", "faults were"),
            plural(handlers.prefetched, "page", "pages"),
            duration(handlers.mean_wait_ns),
            count(handlers.most_outstanding),
        );
    }
    text
}

fn paper(published: &[Published]) -> String {
    let mut table = HtmlTable::new(&[
        ("figure", ""),
        ("published", ""),
        ("this run", ""),
        ("difference", "of this run from the publication"),
        ("source", "and the certainty of the figure"),
    ]);
    for figure in published {
        let difference = (figure.measured_ns as f64 / figure.published_ns.max(1) as f64 - 1.0) * 100.0;
        let cells = [
            duration(figure.published_ns),
            duration(figure.measured_ns),
            format!("{difference:+.1}\u{a0}%"),
            Text(&figure.source).to_string(),
        ];
        table.row(&Text(&figure.what).to_string(), &cells);
    }
    format!(
        "<p>Published figures of the system whose timing this run uses, and the same figures of this run.</p>\n{}",
        table.finish("numbers paper")
    )
}

fn seen(requests: &RequestFigures) -> String {
    let latency: Durations = requests.latency();
    if latency.max() == 0 {
        return "<p>No request succeeded, or none took any time.</p>\n".into();
    }
    let mut table = HtmlTable::new(&[
        ("requests", ""),
        ("mean", ""),
        ("p50", ""),
        ("p95", ""),
        ("p99", ""),
        ("p99.9", ""),
        ("max", ""),
    ]);
    let at = |share| duration(latency.at(share));
    let cells = [duration(latency.mean()), at(0.5), at(0.95), at(0.99), at(0.999), duration(latency.max())];
    table.row(&count(latency.count()), &cells);
    let shortest = latency.recorded().map(|(ns, _)| ns).find(|&ns| ns > 0).unwrap_or(1);
    let bins = LogBins::around(shortest, latency.max(), PER_DECADE);
    let curve = Curve { name: "request", class: "whole".into(), durations: &latency };
    format!(
        "<p>From arrival to completion, including requests without a fault. {} succeeded and {} failed, in {}.</p>\n{}{}",
        plural(requests.completed, "request", "requests"),
        count(requests.failed),
        duration(requests.duration_ns),
        table.finish("numbers requests"),
        cumulative::charts(&[curve], &bins, "request latency"),
    )
}

fn path(experiment: &ExperimentReport, digest: &Digest) -> String {
    let picture = path_picture::picture(&digest.by_request(), experiment.time == TimeBase::Virtual);
    format!(
        "<p>A program posts a request on memory that was never pinned. Steps 7 to 15 happen when a page is missing; the numbers beside them were measured in this run. When the page is present, step 15 follows step 7.</p>\n{picture}"
    )
}

fn all_counters(counters: &Value) -> String {
    let mut tables = String::new();
    for (title, part) in [("NIC", "nic"), ("IOMMU", "iommu")] {
        let Some(counts) = counters.get(part).and_then(Value::as_object) else { continue };
        let rows: String = counts
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_u64()?)))
            .map(|(name, value)| {
                format!("<dt>{}</dt><dd>{}</dd>", Text(&name.replace('_', " ")), count(value))
            })
            .collect();
        tables += &format!("<div><h3>{title}</h3>\n<dl>{rows}</dl></div>\n");
    }
    if tables.is_empty() {
        return "<p>They were not recorded.</p>\n".into();
    }
    format!(
        "<details><summary>All counters of NIC and IOMMU</summary>\n<div class=\"facts\">\n{tables}</div>\n</details>\n"
    )
}
