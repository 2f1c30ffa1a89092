//! What else a reader should know: losses, the guest's complaints, how to make the run again, what lies
//! beside the page.

use super::csv::COLUMNS;
use super::markup::{Table, Text};
use super::trace_json::MAX_FAULTS;
use super::units::{count, duration, plural, seconds};
use crate::demo::summary::{RunSummary, Setup};
use crate::trace::Observed;

/// Lines of the guest's log shown at most.
const MAX_LOG: usize = 40;

/// What the run was made with.
pub(super) fn setup(summary: &RunSummary) -> String {
    let setup = &summary.setup;
    let took = format!(
        "{}, of which {} until the guest program's first line",
        seconds(summary.seconds),
        seconds(summary.boot_seconds)
    );
    let rows = [
        ("refault", Text(&summary.version).to_string()),
        ("started", Text(&summary.started).to_string()),
        ("took", took),
        ("guest kernel", format!("{}, as packaged", Text(&setup.kernel))),
        ("guest CPUs", count(u64::from(setup.cpus))),
        ("virtualization", accel(setup)),
        ("file under DMA", super::units::bytes(setup.file_bytes)),
        ("queue pairs", format!("{}, writing at the same time", count(u64::from(setup.queue_pairs)))),
        ("scale", format!("{} × the scenarios' usual operations", setup.scale)),
    ];
    let rows: String = rows.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>")).collect();
    format!("<dl>{rows}</dl>\n")
}

fn accel(setup: &Setup) -> String {
    match setup.accel.as_str() {
        "tcg" => "tcg: the guest ran on KVM inside an emulated machine. Its times are those of emulation: compare them with each other, not with hardware".into(),
        "kvm" => "kvm: the guest ran on this machine's KVM".into(),
        other => Text(other).to_string(),
    }
}

/// What was not seen, or not kept.
pub(super) fn losses(observed: &Observed) -> String {
    let mut items = Vec::new();
    if observed.faults_dropped > 0 {
        items.push(format!(
            "{} counted in the table of scenarios but not kept one by one: the charts, the tables of stages and <code>faults.csv</code> show the first faults of each scenario, {} in all.",
            plural(observed.faults_dropped, "fault is", "faults are"),
            count(observed.faults_kept)
        ));
    }
    if observed.events_lost > 0 {
        items.push(format!(
            "{} not recorded, because events came faster than they could be assembled. Some faults miss a stage.",
            plural(observed.events_lost, "event was", "events were")
        ));
    }
    if observed.faults_open > 0 {
        items.push(format!(
            "{} without an end when the run was over.",
            plural(observed.faults_open, "fault was", "faults were")
        ));
    }
    for (what, times) in &observed.anomalies {
        items.push(format!("{}: {}.", plural(*times, "event did not fit", "events did not fit"), Text(what)));
    }
    if items.is_empty() {
        return "<p>Nothing was lost: every event was recorded, every fault was kept, and all of them fit together.</p>\n".into();
    }
    let items: String = items.iter().map(|item| format!("<li>{item}</li>")).collect();
    format!("<ul>{items}</ul>\n")
}

/// How long the guest waited for the device to forget.
pub(super) fn invalidations(observed: &Observed) -> String {
    if observed.invalidations == 0 {
        return "<p>No invalidation reached the device.</p>\n".into();
    }
    let times = observed.invalidation_ns;
    format!(
        "<p>When the filesystem moves a block, the kernel takes the page away and tells the device to forget its translation. It waits, with interrupts off, until every copy that used the old translation has landed; a fault under way is never waited for. {} reached the device: median <b>{}</b>, 99th percentile <b>{}</b>, longest <b>{}</b>.</p>\n",
        plural(observed.invalidations, "invalidation", "invalidations"),
        duration(times.p50),
        duration(times.p99),
        duration(times.max)
    )
}

/// Lines of the guest's log that no healthy run has.
pub(super) fn guest_log(lines: &[String]) -> String {
    if lines.is_empty() {
        return "<p>The guest's log is clean: no DMAR error, warning, stall or hung task.</p>\n".into();
    }
    let shown: String = lines.iter().take(MAX_LOG).map(|line| format!("{}\n", Text(line))).collect();
    let more = match lines.len().saturating_sub(MAX_LOG) {
        0 => String::new(),
        more => format!("<p>… and {more} more in <code>serial.log</code>.</p>\n"),
    };
    format!("<p class=\"fail\">✗ Lines that no healthy run has:</p>\n<pre>{shown}</pre>\n{more}")
}

/// How to make the run, and this page, again.
pub(super) fn reproduce(summary: &RunSummary) -> String {
    let command = match summary.setup.command.as_str() {
        "" => "cargo demo",
        command => command,
    };
    format!(
        "<p>The run:</p>\n<pre>{}</pre>\n<p>This page, from <code>faults.csv</code> and <code>summary.json</code> beside it:</p>\n<pre>refault report RUN_FOLDER</pre>\n",
        Text(command)
    )
}

/// What lies beside the page.
pub(super) fn files() -> String {
    let mut table = Table::new(&[("column", ""), ("what it holds", "")]);
    for (name, about) in COLUMNS {
        table.row(&format!("<code>{name}</code>"), &[about.into()]);
    }
    format!(
        "<ul>\n<li><a href=\"summary.json\">summary.json</a>: the table of scenarios, for programs</li>\n<li><a href=\"faults.csv\">faults.csv</a>: one line per fault</li>\n<li><a href=\"trace.json\">trace.json</a>: the timeline, for Perfetto (ui.perfetto.dev, “Open trace file”) or chrome://tracing; up to {} faults</li>\n<li><a href=\"serial.log\">serial.log</a>: what the guest's kernel said</li>\n<li><a href=\"output.log\">output.log</a>: what the program in the guest said</li>\n</ul>\n<details><summary>Columns of faults.csv</summary>\n<p>Ids are in hex, times in nanoseconds; stages that were not seen are empty.</p>\n{}</details>\n",
        count(MAX_FAULTS as u64),
        table.finish("columns")
    )
}
