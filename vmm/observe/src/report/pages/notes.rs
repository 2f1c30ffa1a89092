//! Notes of a page: configuration, losses, the guest's log, how to repeat the run, and its files.

use crate::report::charts::cumulative::{self, Curve};
use crate::report::digest::PER_DECADE;
use crate::report::digest::bins::LogBins;
use crate::report::files::faults::COLUMNS;
use crate::report::files::timeline::MAX_FAULTS;
use crate::report::markup::{HtmlTable, Text};
use crate::report::units::{bytes, count, duration, plural, seconds};
use crate::summary::{RunSetup, RunSummary};
use crate::trace::{Durations, Observed};

/// Most lines of the guest's log that are shown.
const MAX_LOG: usize = 40;

/// Configuration of the run.
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
        ("host", host(setup)),
        ("file under DMA", bytes(setup.file_bytes)),
        ("queue pairs", format!("{}, writing concurrently", count(u64::from(setup.queue_pairs)))),
        ("scale", format!("{} × the scenarios' usual goals", setup.scale)),
        ("the guest's speed", setup.guest_speed.line()),
    ];
    let machine = summary.observed.machine.map(|speed| ("this machine's speed", speed.line()));
    let slowed = setup.timing.as_deref().map(|timing| ("device timing", slowed(timing)));
    let links: Vec<_> = summary.links.iter().map(|link| ("wire", Text(&link.line()).to_string())).collect();
    let rows: String = rows
        .iter()
        .chain(&machine)
        .chain(&slowed)
        .chain(&links)
        .map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>"))
        .collect();
    format!("<dl>{rows}</dl>\n")
}

fn slowed(timing: &str) -> String {
    format!(
        "<b>slowed down</b> to {}: steps of the NIC and the IOMMU took at least as long as it says; the guest's own steps took their real time",
        Text(timing)
    )
}

fn host(setup: &RunSetup) -> String {
    const EMULATED: &str =
        "Its times are those of emulation: compare them with each other, not with hardware";
    match setup.host.as_str() {
        "qemu" => format!("qemu: QEMU emulated the guest's CPUs, and the devices ran beside it. {EMULATED}"),
        "nested" => format!("nested: the guest ran on KVM inside an emulated machine. {EMULATED}"),
        "refault" => "refault: the guest ran on this machine's KVM".into(),
        other => Text(other).to_string(),
    }
}

/// Events and records that were lost or dropped.
pub(super) fn losses(observed: &Observed) -> String {
    let mut items = Vec::new();
    if observed.faults_dropped > 0 {
        items.push(format!(
            "{} counted in the table of scenarios but not recorded: the charts, the tables of stages and <code>faults.csv</code> show the first faults of each scenario, {} in all.",
            plural(observed.faults_dropped, "fault is", "faults are"),
            count(observed.faults_kept)
        ));
    }
    if observed.events_lost > 0 {
        items.push(format!(
            "{} lost, because events arrived faster than they could be assembled. Some faults lack a stage.",
            plural(observed.events_lost, "event was", "events were")
        ));
    }
    if observed.faults_open > 0 {
        items.push(format!(
            "{} still open when the run ended.",
            plural(observed.faults_open, "fault was", "faults were")
        ));
    }
    let unkept = observed.requests_dropped + observed.requests_lost;
    if unkept > 0 {
        items.push(format!(
            "{} not kept, for lack of room: <code>requests.csv</code> has the first of each scenario. Sample fewer with <code>--sample</code>.",
            plural(unkept, "sampled request was", "sampled requests were")
        ));
    }
    for (what, times) in &observed.anomalies {
        items.push(format!("{}: {}.", plural(*times, "event did not fit", "events did not fit"), Text(what)));
    }
    // The accuracy of the guest's part.
    let guest =
        observed.guest.as_ref().map(|guest| format!("<p>Guest events: {}.</p>\n", Text(&guest.line())));
    let guest = guest.unwrap_or_default();
    if items.is_empty() {
        return format!(
            "<p>Nothing was lost: every event was recorded, every fault was kept, and all events fit together.</p>\n{guest}"
        );
    }
    let items: String = items.iter().map(|item| format!("<li>{item}</li>")).collect();
    format!("<ul>{items}</ul>\n{guest}")
}

/// Durations of invalidations. `kept` covers those with a record.
pub(super) fn invalidations(observed: &Observed, kept: &Durations) -> String {
    if observed.invalidations == 0 {
        return "<p>No invalidation reached the device.</p>\n".into();
    }
    let times = observed.invalidation_ns;
    let text = format!(
        "<p>When a page is unmapped, the kernel invalidates the device's translation. It waits, with interrupts off, until every copy that used the old translation has landed; it never waits for a fault in flight. {} reached the device: median <b>{}</b>, 99th percentile <b>{}</b>, longest <b>{}</b>.</p>\n",
        plural(observed.invalidations, "invalidation", "invalidations"),
        duration(times.p50),
        duration(times.p99),
        duration(times.max)
    );
    if kept.max() == 0 {
        return text;
    }
    let partly = match observed.invalidations.saturating_sub(kept.count()) {
        0 => String::new(),
        more => format!(
            "<p>The curves cover the first {}; {} more are counted above.</p>\n",
            count(kept.count()),
            count(more)
        ),
    };
    let shortest = kept.recorded().map(|(ns, _)| ns).find(|&ns| ns > 0).unwrap_or(1);
    let curve = Curve { name: "invalidation", class: "whole".into(), durations: kept };
    let bins = LogBins::around(shortest, kept.max(), PER_DECADE);
    text + &partly + &cumulative::charts(&[curve], &bins, "time until completion")
}

/// Lines of the guest's log that a healthy run does not have.
pub(super) fn guest_log(lines: &[String]) -> String {
    if lines.is_empty() {
        return "<p>The guest's log is clean: no DMAR error, warning, stall or hung task.</p>\n".into();
    }
    let shown: String = lines.iter().take(MAX_LOG).map(|line| format!("{}\n", Text(line))).collect();
    let more = match lines.len().saturating_sub(MAX_LOG) {
        0 => String::new(),
        more => format!("<p>… and {more} more in <code>serial.log</code>.</p>\n"),
    };
    format!("<p class=\"fail\">✗ Lines that a healthy run does not have:</p>\n<pre>{shown}</pre>\n{more}")
}

/// How to repeat the run, if known, and how to make this page again from its files.
pub(super) fn reproduce(command: &str, made_of: &str) -> String {
    let run = match command {
        "" => String::new(),
        command => format!("<p>The run:</p>\n<pre>{}</pre>\n", Text(command)),
    };
    format!(
        "{run}<p>This page, from {made_of} beside it:</p>\n<pre>refault report RUN_FOLDER</pre>\n<p>A comparison of this run with others:</p>\n<pre>refault report RUN_FOLDER OTHER_FOLDER --out comparison.html</pre>\n"
    )
}

/// A file beside a page, and its contents.
type Beside = (&'static str, &'static str);

/// The files of every run.
const FILES: [Beside; 4] = [
    ("faults.csv", "one line per fault"),
    ("requests.csv", "one line per sampled request, from doorbell to completion"),
    ("invalidations.csv", "one line per invalidation"),
    ("trace.json", "the timeline, for Perfetto (ui.perfetto.dev, “Open trace file”) or chrome://tracing"),
];

/// The list of files beside the page: those of every run, and `more`.
pub(super) fn files(more: &[Beside]) -> String {
    let mut table = HtmlTable::new(&[("column", ""), ("contents", "")]);
    for (name, about) in COLUMNS {
        table.row(&format!("<code>{name}</code>"), &[about.into()]);
    }
    let item = |(name, about): &Beside| {
        let most = format!("; up to {} faults", count(MAX_FAULTS as u64));
        let most = if *name == "trace.json" { most.as_str() } else { "" };
        format!("<li><a href=\"{name}\">{name}</a>: {about}{most}</li>\n")
    };
    let items: String = FILES.iter().chain(more).map(item).collect();
    format!(
        "<ul>\n{items}</ul>\n<details><summary>Columns of faults.csv</summary>\n<p>Ids are in hex, times in nanoseconds; stages that were not recorded are empty.</p>\n{}</details>\n",
        table.finish("columns")
    )
}
