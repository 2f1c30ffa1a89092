//! The mean fault by segment, in the order of the path, one bar for each group of faults.

use super::svg::{Drawing, Frame, LinearTime};
use crate::numbers;
use crate::report::digest::Group;
use crate::report::markup::Text;
use crate::report::units::{duration, percent};
use crate::trace::SEGMENTS;

/// Segments in stacking order: the time in earlier rounds comes first.
fn order() -> impl Iterator<Item = (usize, &'static str, String)> {
    let again = (SEGMENTS.len(), "earlier rounds", "again".to_owned());
    let segments = SEGMENTS.iter().enumerate().map(|(place, name)| (place, *name, format!("s{place}")));
    [again].into_iter().chain(segments)
}

/// The chart; empty if no group has a fault.
pub(in crate::report) fn chart(groups: &[(String, &Group)]) -> String {
    let rows: Vec<_> = groups.iter().filter(|(_, group)| group.faults() > 0).collect();
    if rows.is_empty() {
        return String::new();
    }
    let frame = Frame { left: 190.0, right: 78.0, top: 8.0, ..Frame::new(60.0 + 26.0 * rows.len() as f64) };
    let longest = rows.iter().map(|(_, group)| group.total.mean()).max().unwrap_or(0);
    let x = LinearTime::new(frame, longest);
    let mut out = Drawing::default();
    x.draw(&mut out, "mean time of a fault");
    for (index, (name, group)) in rows.iter().enumerate() {
        let top = frame.top + 26.0 * index as f64 + 4.0;
        out.text("row-name end", frame.left - 10.0, top + 13.0, name);
        bar(&mut out, &x, top, name, group);
    }
    let about = "Mean time of a fault, divided by the segments of the path";
    legend(&rows) + &frame.finish("chart stack", about, &out)
}

fn bar(out: &mut Drawing, x: &LinearTime, top: f64, name: &str, group: &Group) {
    let whole = group.total.mean();
    let mut at = 0.0;
    for (place, segment, class) in order() {
        let mean = group.mean_of(place);
        if mean > 0.0 {
            let share = percent(numbers::whole(mean), whole);
            let tip = format!("{name}\n{segment}: mean {}, {share}", duration(numbers::whole(mean)));
            out.group("cell", &tip, |out| out.rect(&class, (x.x(at), top), (x.x(at + mean), top + 18.0)));
        }
        at += mean;
    }
    out.text("tick", x.x(at) + 7.0, top + 13.0, &duration(whole));
}

/// The legend, with the segments that occur.
fn legend(rows: &[&(String, &Group)]) -> String {
    let seen = order().filter(|(place, ..)| rows.iter().any(|(_, group)| group.mean_of(*place) > 0.0));
    let keys: String = seen
        .map(|(_, name, class)| format!("<li><span class=\"key {class}\"></span>{}</li>", Text(name)))
        .collect();
    format!("<ul class=\"legend\">{keys}</ul>\n")
}
