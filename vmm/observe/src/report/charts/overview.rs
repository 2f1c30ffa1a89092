//! All scenarios side by side, one line each from the median to the longest fault.

use super::svg::{Drawing, Frame, TimeAxis};
use crate::report::digest::Group;
use crate::report::digest::bins::LogBins;
use crate::report::units::{duration, plural};

/// The marks on a line: quantile, label, and CSS class.
const POINTS: [(f64, &str, &str); 3] =
    [(0.5, "median", "p50"), (0.99, "99 %", "p99"), (1.0, "longest", "max")];

/// The chart; empty if no scenario has a fault.
pub(in crate::report) fn chart(groups: &[(String, &Group)]) -> String {
    let rows: Vec<_> = groups.iter().filter(|(_, group)| group.faults() > 0).collect();
    if rows.is_empty() {
        return String::new();
    }
    let frame = Frame { left: 190.0, top: 8.0, ..Frame::new(60.0 + 24.0 * rows.len() as f64) };
    let low = rows.iter().map(|(_, group)| group.total.at(0.5)).min().unwrap_or(1);
    let high = rows.iter().map(|(_, group)| group.total.max()).max().unwrap_or(1);
    let bins = LogBins::around(low, high, 1);
    let x = TimeAxis::new(frame, bins.edge(0), bins.edge(bins.len));
    let mut out = Drawing::default();
    x.draw(&mut out, "fault latency, from miss to copy (logarithmic)");
    for (index, (name, group)) in rows.iter().enumerate() {
        let y = frame.top + 24.0 * index as f64 + 14.0;
        row(&mut out, &x, y, name, group);
        out.text("row-name end", frame.left - 12.0, y + 4.0, name);
    }
    let keys: String = POINTS
        .iter()
        .map(|(_, name, class)| format!("<li><span class=\"dot {class}\"></span>{name}</li>"))
        .collect();
    let about = "Median, 99th percentile and longest fault of each scenario";
    format!("<ul class=\"legend\">{keys}</ul>\n{}", frame.finish("chart", about, &out))
}

fn row(out: &mut Drawing, x: &TimeAxis, y: f64, name: &str, group: &Group) {
    let values = POINTS.map(|(share, ..)| group.total.at(share));
    let [p50, p99, max] = values.map(duration);
    let faults = plural(group.faults(), "fault", "faults");
    let tip = format!("{name}\n{faults}\nmedian {p50}\n99 % up to {p99}\nlongest {max}");
    out.group("range", &tip, |out| {
        let places = values.map(|ns| x.x(ns as f64));
        out.rect("hit", (x.left(), y - 12.0), (x.right(), y + 12.0));
        out.line("whisker", (places[0], y), (places[2], y));
        for (place, (_, _, class)) in places.into_iter().zip(POINTS).rev() {
            out.circle(&format!("dot {class}"), (place, y), 5.0);
        }
    });
}
