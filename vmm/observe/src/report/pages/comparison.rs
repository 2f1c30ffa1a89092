//! The page that compares several runs.

use super::scenarios::label;
use super::{page, section};
use crate::report::charts::cumulative::{self, Curve};
use crate::report::charts::{overview, stack};
use crate::report::digest::bins::LogBins;
use crate::report::digest::{Digest, Group, PER_DECADE};
use crate::report::experiment::TimeBase;
use crate::report::markup::{HtmlTable, Text};
use crate::report::units::{count, duration};
use crate::trace::{Durations, SEGMENTS};

/// A run in a comparison.
pub(in crate::report) struct Compared {
    /// Its unique name in the comparison.
    pub(in crate::report) name: String,
    /// Its title on its own page.
    pub(in crate::report) title: String,
    /// The clock of its times.
    pub(in crate::report) time: TimeBase,
    /// Its statistics.
    pub(in crate::report) digest: Digest,
    /// Faults without a record, and lost events.
    pub(in crate::report) missing: (u64, u64),
}

/// The compared quantiles.
const POINTS: [(&str, f64); 5] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Renders the page. The first run is the baseline.
pub(in crate::report) fn render(runs: &[Compared]) -> String {
    let groups: Vec<Group> = runs.iter().map(|run| run.digest.all()).collect();
    let rows: Vec<(String, &Group)> = runs.iter().map(|run| run.name.clone()).zip(&groups).collect();
    let mut sections = vec![
        section("runs", "The runs", &list(runs, &groups)),
        section("percentiles", "Latency of whole faults", &percentiles(&rows)),
        section("curves", "The distributions, one above the other", &curves(&rows)),
        section("stages", "The mean fault, segment by segment", &stages(&rows)),
        section("segments", "Median of every segment", &segments(&rows)),
    ];
    let common = common(runs);
    if !common.is_empty() {
        sections.push(section("scenarios", "Scenario by scenario", &scenarios(runs, &common)));
    }
    let title = format!("refault: {} runs compared", runs.len());
    let note = clocks(runs);
    page(&title, &(format!("<header>\n<h1>{title}</h1>\n{note}</header>\n") + &sections.concat()))
}

/// States whether the runs' times are comparable.
fn clocks(runs: &[Compared]) -> String {
    let mut kinds: Vec<TimeBase> = Vec::new();
    for run in runs {
        if !kinds.contains(&run.time) {
            kinds.push(run.time);
        }
    }
    let [only] = kinds[..] else {
        return "<p class=\"time\"><b>Times: of different clocks.</b> The table below names each run's clock. Wall time of an emulated CPU, wall time of a real guest and virtual time of the model are not comparable: compare shares and shapes, not nanoseconds.</p>\n".into();
    };
    super::time_label(only)
}

fn list(runs: &[Compared], groups: &[Group]) -> String {
    let mut table = HtmlTable::new(&[
        ("run", ""),
        ("description", ""),
        ("clock", ""),
        ("resolved", "faults that ended in a copy"),
        ("failed", ""),
        ("coalesced", "accesses that joined another queue pair's fault"),
        ("not in the charts", "faults without a record, and lost events"),
    ]);
    for ((index, run), group) in runs.iter().enumerate().zip(groups) {
        let [failed, coalesced, _] = group.others;
        let missing = match run.missing {
            (0, 0) => "nothing".into(),
            (faults, events) => format!("{} faults, {} events", count(faults), count(events)),
        };
        let cells = [
            Text(&run.title).to_string(),
            run.time.label().into(),
            count(group.faults()),
            count(failed),
            count(coalesced),
            missing,
        ];
        table.row(&format!("<span class=\"key run-{index}\"></span>{}", Text(&run.name)), &cells);
    }
    table.finish("numbers runs")
}

/// A duration with its ratio to the first run's.
fn with_ratio(ns: u64, first: u64, is_first: bool) -> String {
    if is_first || first == 0 {
        return duration(ns);
    }
    format!("{}<small>× {}</small>", duration(ns), ratio(ns as f64 / first as f64))
}

fn ratio(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.2}") } else { format!("{ratio:.0}") }
}

fn percentiles(rows: &[(String, &Group)]) -> String {
    let mut columns = vec![("run", ""), ("mean", "")];
    columns.extend(POINTS.iter().map(|(name, _)| (*name, "")));
    let mut table = HtmlTable::new(&columns);
    let first = &rows[0].1.total;
    for (index, (name, group)) in rows.iter().enumerate() {
        let mut cells = vec![with_ratio(group.total.mean(), first.mean(), index == 0)];
        for (_, share) in POINTS {
            cells.push(with_ratio(group.total.at(share), first.at(share), index == 0));
        }
        table.row(&format!("<span class=\"key run-{index}\"></span>{}", Text(name)), &cells);
    }
    format!(
        "<p>Below each time is its ratio to that of the first run.</p>\n{}",
        table.finish("numbers compare")
    )
}

/// One axis for all runs.
fn bins(rows: &[(String, &Group)]) -> LogBins {
    let seen = || rows.iter().map(|(_, group)| &group.total).filter(|total| total.count() > 0);
    let low = seen().map(|total| total.min().max(1)).min().unwrap_or(1_000);
    let high = seen().map(Durations::max).max().unwrap_or(1_000_000);
    LogBins::around(low, high, PER_DECADE)
}

fn curves(rows: &[(String, &Group)]) -> String {
    let curves: Vec<Curve<'_>> = rows
        .iter()
        .enumerate()
        .map(|(index, (name, group))| Curve { name, class: format!("run-{index}"), durations: &group.total })
        .collect();
    let keys: String = rows
        .iter()
        .enumerate()
        .map(|(index, (name, _))| format!("<li><span class=\"key run-{index}\"></span>{}</li>", Text(name)))
        .collect();
    format!(
        "<ul class=\"legend\">{keys}</ul>\n{}<h4>Median, 99th percentile and longest</h4>\n{}",
        cumulative::charts(&curves, &bins(rows), "fault latency"),
        overview::chart(rows)
    )
}

fn stages(rows: &[(String, &Group)]) -> String {
    match stack::chart(rows) {
        none if none.is_empty() => "<p>No run resolved a fault.</p>\n".into(),
        chart => chart,
    }
}

/// The table with a row for each segment and a column for each run.
fn segments(rows: &[(String, &Group)]) -> String {
    let mut columns = vec![("segment", "")];
    columns.extend(rows.iter().map(|(name, _)| (name.as_str(), "")));
    let mut table = HtmlTable::new(&columns);
    for (place, name) in SEGMENTS.iter().enumerate() {
        let durations = |group: &Group| (group.segments[place].count(), group.segments[place].at(0.5));
        if rows.iter().all(|(_, group)| durations(group).0 == 0) {
            continue;
        }
        let first = durations(rows[0].1).1;
        let cells: Vec<String> = rows
            .iter()
            .enumerate()
            .map(|(index, (_, group))| match durations(group) {
                (0, _) => "–".into(),
                (_, median) => with_ratio(median, first, index == 0),
            })
            .collect();
        table.row(&format!("<span class=\"key s{place}\"></span>{}", Text(name)), &cells);
    }
    table.finish("numbers compare")
}

/// Scenarios that at least two runs have.
fn common(runs: &[Compared]) -> Vec<(String, String)> {
    let mut common: Vec<(String, String)> = Vec::new();
    for key in runs.iter().flat_map(|run| &run.digest.labels).filter(|key| !key.0.is_empty()) {
        let holders = runs.iter().filter(|run| run.digest.labels.contains(key)).count();
        if holders > 1 && !common.contains(key) {
            common.push(key.clone());
        }
    }
    common
}

fn scenarios(runs: &[Compared], common: &[(String, String)]) -> String {
    let titles: Vec<(String, &str)> = runs
        .iter()
        .flat_map(|run| [(format!("{}: median", run.name), ""), (format!("{}: p99", run.name), "")])
        .collect();
    let mut columns = vec![("scenario", "")];
    columns.extend(titles.iter().map(|(title, about)| (title.as_str(), *about)));
    let mut table = HtmlTable::new(&columns);
    for key in common {
        let totals: Vec<Option<Group>> = runs
            .iter()
            .map(|run| {
                let index = run.digest.labels.iter().position(|known| known == key)?;
                Some(run.digest.scenario(index)).filter(|group| group.faults() > 0)
            })
            .collect();
        let at = |index: usize, share| totals[index].as_ref().map(|group: &Group| group.total.at(share));
        let mut cells = Vec::new();
        for index in 0..runs.len() {
            for share in [0.5, 0.99] {
                let first = at(0, share).unwrap_or(0);
                cells.push(at(index, share).map_or("–".into(), |ns| with_ratio(ns, first, index == 0)));
            }
        }
        table.row(&Text(&label(&key.0, &key.1)).to_string(), &cells);
    }
    table.finish("numbers compare")
}
