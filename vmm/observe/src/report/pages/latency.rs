//! Fault latency: for each scenario, a histogram divided by component, distribution curves, and the segments as a chart and a
//! table.

use super::scenarios::label;
use crate::report::charts::cumulative::{self, Curve};
use crate::report::charts::{bars, overview, ridges, stack};
use crate::report::digest::bins::LogBins;
use crate::report::digest::{Digest, Group, PARTS, PER_DECADE, component};
use crate::report::markup::{HtmlTable, Text};
use crate::report::units::{count, duration, percent_wide, plural};
use crate::trace::{Durations, SEGMENTS};

/// The groups of faults on a page: all, and by scenario.
pub(super) struct Groups {
    /// All faults.
    pub(super) all: Group,
    /// By label of the scenario, in the order of the page.
    pub(super) scenarios: Vec<(String, Group)>,
}

impl Groups {
    /// Groups faults by scenario: first those of `ran`, in order, then the others of the digest.
    pub(super) fn of(digest: &Digest, ran: impl Iterator<Item = (String, String)>) -> Self {
        let mut order: Vec<(String, String)> = Vec::new();
        for key in ran.chain(digest.labels.iter().cloned()) {
            if !order.contains(&key) {
                order.push(key);
            }
        }
        let group = |key: &(String, String)| {
            let index = digest.labels.iter().position(|known| known == key);
            (label(&key.0, &key.1), index.map(|index| digest.scenario(index)).unwrap_or_default())
        };
        Self { all: digest.all(), scenarios: order.iter().map(group).collect() }
    }

    /// The input of charts that compare scenarios.
    fn rows(&self) -> Vec<(String, &Group)> {
        self.scenarios.iter().map(|(name, group)| (name.clone(), group)).collect()
    }
}

/// Axes shared by all panels, so that scenarios can be compared by switching between them.
#[derive(Clone, Copy, Debug)]
struct Axes {
    totals: LogBins,
    parts: LogBins,
}

impl Axes {
    /// Axes that cover all faults of a run.
    fn of(all: &Group) -> Self {
        let shortest = |durations: &Durations| durations.recorded().map(|(ns, _)| ns).find(|&ns| ns > 0);
        let longest = if all.faults() == 0 { 1_000_000 } else { all.total.max() };
        let parts = all.segments.iter().chain(&all.parts).filter_map(shortest).min();
        Self {
            totals: LogBins::around(shortest(&all.total).unwrap_or(1_000), longest, PER_DECADE),
            parts: LogBins::around(parts.unwrap_or(100), longest, PER_DECADE),
        }
    }
}

/// The mean fault by segment, one bar for each scenario.
pub(super) fn stages(groups: &Groups) -> String {
    let mut rows = groups.rows();
    if rows.len() != 1 {
        rows.insert(0, ("all faults".into(), &groups.all));
    }
    match stack::chart(&rows) {
        none if none.is_empty() => "<p>No fault was resolved.</p>\n".into(),
        chart => format!(
            "<p>The mean fault from miss to copy, divided by segment. Slow faults dominate a mean: compare it with the median below.</p>\n{chart}"
        ),
    }
}

/// Tabs made of radio buttons, which work without a script; none if there is only one group.
pub(super) fn panels(groups: &Groups) -> String {
    let axes = Axes::of(&groups.all);
    let explained = "<p><b>Device</b>: from the miss to the page request, and from the matched response to the end of the copy; pages of a long request are prefetched, and wait for their turn. <b>IOMMU</b>: from the page request to its queue entry and interrupt, and from the response descriptor to the match. <b>Guest</b>: from the interrupt to the response; that is the kernel and the filesystem, and the time until a CPU of the guest runs them.</p>\n";
    if groups.scenarios.len() <= 1 {
        return format!(
            "{explained}<div class=\"only\">\n{}</div>\n",
            panel("All faults", &groups.all, &axes)
        );
    }
    let mut tabs = vec![("all scenarios", &groups.all)];
    tabs.extend(groups.scenarios.iter().map(|(name, group)| (name.as_str(), group)));
    let (mut inputs, mut chips, mut panels, mut rules) = <(String, String, String, String)>::default();
    for (index, (name, group)) in tabs.into_iter().enumerate() {
        let checked = if index == 0 { " checked" } else { "" };
        let class = if group.faults() == 0 { " class=\"empty\"" } else { "" };
        inputs += &format!("<input type=\"radio\" name=\"pick\" id=\"pick-{index}\"{checked}>\n");
        chips += &format!(
            "<label for=\"pick-{index}\"{class}>{} <small>{}</small></label>\n",
            Text(name),
            count(group.faults())
        );
        panels +=
            &format!("<div class=\"panel\" id=\"panel-{index}\">\n{}</div>\n", panel(name, group, &axes));
        rules += &format!(
            "#pick-{index}:checked~.panels>#panel-{index}{{display:block}}#pick-{index}:checked~.chips>[for=pick-{index}]{{background:var(--ink);color:var(--paper);border-color:var(--ink)}}#pick-{index}:focus-visible~.chips>[for=pick-{index}]{{outline:2px solid var(--device);outline-offset:2px}}\n"
        );
    }
    format!(
        "{explained}{}<style>\n{rules}</style>\n<div class=\"picker\">\n{inputs}<div class=\"chips\">\n{chips}</div>\n<div class=\"panels\">\n{panels}</div>\n</div>\n",
        overview::chart(&groups.rows())
    )
}

/// The panel of a group of faults.
fn panel(title: &str, group: &Group, axes: &Axes) -> String {
    let outcome = outcomes(group);
    if group.faults() == 0 {
        return format!("<h3>{}</h3>\n<p>No fault was resolved here. {outcome}</p>\n", Text(title));
    }
    let curves = [("device", 0), ("IOMMU", 1), ("guest", 2)];
    let parts = curves.map(|(name, part)| Curve {
        name,
        class: PARTS[part].class.into(),
        durations: &group.parts[part],
    });
    let whole = Curve { name: "whole fault", class: "whole".into(), durations: &group.total };
    let curves: Vec<Curve<'_>> = parts.into_iter().chain([whole]).collect();
    format!(
        "<h3>{}</h3>\n<p>{} resolved; median <b>{}</b>, 99th percentile <b>{}</b>, longest <b>{}</b>. {outcome}</p>\n{}<h4>Histogram of fault latency</h4>\n{}<h4>Share of faults that took no longer, and that took longer, than …</h4>\n{}<h4>The segments of the path</h4>\n<p class=\"caption\">Lines in a row: median and 99th percentile; at its end, the longest.</p>\n{}{}",
        Text(title),
        plural(group.faults(), "fault", "faults"),
        duration(group.total.at(0.5)),
        duration(group.total.at(0.99)),
        duration(group.total.max()),
        legend(group),
        bars::chart(group, &axes.totals),
        cumulative::charts(&curves, &axes.parts, "time"),
        ridges::chart(group, &axes.parts),
        segments(group),
    )
}

/// The other faults, in words.
fn outcomes(group: &Group) -> String {
    let [failed, coalesced, abandoned] = group.others;
    let mut text = String::new();
    if failed > 0 {
        text += &format!("{} failed: the guest refused the page, or the device gave up. ", count(failed));
    }
    if coalesced > 0 {
        text += &format!("{} joined another queue pair's fault on the same page. ", count(coalesced));
    }
    if abandoned > 0 {
        text += &format!(
            "{} have no recorded end: the queue pair was destroyed first, or events were lost. ",
            count(abandoned)
        );
    }
    text
}

/// The legend; "earlier rounds" only if there were any.
fn legend(group: &Group) -> String {
    let shown = PARTS.iter().take(if group.parts[3].max() > 0 { 4 } else { 3 });
    let keys: String = shown
        .map(|part| format!("<li><span class=\"key {}\"></span>{}</li>", part.class, part.name))
        .collect();
    format!("<ul class=\"legend\">{keys}<li><span class=\"key whole\"></span>whole fault</li></ul>\n")
}

/// The table of segments, in the order of the path.
fn segments(group: &Group) -> String {
    let mut table = HtmlTable::new(&[
        ("segment", ""),
        ("component", ""),
        ("faults", "faults in which both ends of the segment were recorded"),
        ("mean", ""),
        ("p50", "the median"),
        ("p95", "95 of 100 are at most this long"),
        ("p99", "99 of 100 are at most this long"),
        ("p99.9", "999 of 1000 are at most this long"),
        ("max", "the longest"),
        ("share of all time", ""),
    ]);
    let whole = group.total.sum();
    for (place, name) in SEGMENTS.iter().enumerate() {
        let durations = &group.segments[place];
        if durations.count() > 0 {
            let part = &PARTS[component(place) as usize];
            let who = format!("<span class=\"key s{place}\"></span>{}", part.name);
            table.row(&Text(name).to_string(), &cells(&who, &format!("s{place}"), durations, whole));
        }
    }
    let again = &group.parts[3];
    if again.max() > 0 {
        let who = "<span class=\"key again\"></span>all";
        table.row("page gone again: earlier rounds", &cells(who, "again", again, whole));
    }
    table.row("<b>whole fault</b>", &cells("", "whole", &group.total, whole));
    table.finish("numbers stages")
}

fn cells(who: &str, class: &str, durations: &Durations, whole: u128) -> Vec<String> {
    let width = 100.0 * durations.sum() as f64 / whole.max(1) as f64;
    let share = format!(
        "<span class=\"share\"><span class=\"{class}\" style=\"width:{width:.1}%\"></span></span><span class=\"percent\">{}</span>",
        Text(&percent_wide(durations.sum(), whole))
    );
    let at = |share| duration(durations.at(share));
    vec![
        who.into(),
        count(durations.count()),
        duration(durations.mean()),
        at(0.5),
        at(0.95),
        at(0.99),
        at(0.999),
        duration(durations.max()),
        share,
    ]
}
