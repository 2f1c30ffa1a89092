//! The distribution of every segment of the path, one row each over a common time axis.

use super::svg::{Drawing, Frame, TimeAxis};
use crate::report::digest::Group;
use crate::report::digest::bins::LogBins;
use crate::report::units::{count, duration};
use crate::trace::{Durations, SEGMENTS};

/// Height of a row, and of the tallest bar in it.
const ROW: f64 = 46.0;
const BAR: f64 = 36.0;

/// The marks in each row: quantile and label.
const MARKS: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (1.0, "max")];

/// A row: its name, class and durations.
type Row<'a> = (&'a str, String, &'a Durations);

/// One row for each recorded segment, and one for earlier rounds, if there were any.
pub(in crate::report) fn chart(group: &Group, bins: &LogBins) -> String {
    let segments = SEGMENTS.iter().zip(&group.segments).enumerate();
    let mut rows: Vec<Row<'_>> =
        segments.map(|(place, (name, durations))| (*name, format!("s{place}"), durations)).collect();
    rows.push(("page gone again: earlier rounds", "again".into(), &group.parts[3]));
    rows.retain(|(.., durations)| durations.max() > 0);
    if rows.is_empty() {
        return String::new();
    }
    let frame = Frame { left: 214.0, right: 62.0, top: 8.0, ..Frame::new(56.0 + ROW * rows.len() as f64) };
    let x = TimeAxis::new(frame, bins.edge(0), bins.edge(bins.len));
    let mut out = Drawing::default();
    x.draw(&mut out, "time in the segment (logarithmic); every row has its own scale of counts");
    for (index, row) in rows.iter().enumerate() {
        draw(&mut out, &x, frame.top + ROW * (index + 1) as f64, row, bins);
    }
    frame.finish("chart", "Histogram of the time in each segment of the path", &out)
}

fn draw(out: &mut Drawing, x: &TimeAxis, base: f64, (name, class, durations): &Row<'_>, bins: &LogBins) {
    let mut counts = vec![0u64; bins.len];
    for (ns, times) in durations.recorded().filter(|&(ns, _)| ns > 0) {
        counts[bins.bin(ns)] += times;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    out.group("bar", &tip(name, durations), |out| {
        out.rect("hit", (x.left(), base - BAR), (x.right(), base));
        for (bin, &faults) in counts.iter().enumerate().filter(|&(_, &faults)| faults > 0) {
            let height = (BAR * faults as f64 / most as f64).max(1.5);
            let (left, right) = (x.x(bins.edge(bin)), x.x(bins.edge(bin + 1)));
            out.rect(class, (left + 0.5, base - height), (right - 0.5, base));
        }
        for (share, mark) in MARKS {
            let at = x.x(durations.at(share) as f64);
            out.line(&format!("mark {mark}"), (at, base - BAR), (at, base));
        }
    });
    out.line("axis", (x.left(), base), (x.right(), base));
    out.text("row-name end", x.left() - 10.0, base - 17.0, name);
    out.text("tick end", x.left() - 10.0, base - 3.0, &format!("median {}", duration(durations.at(0.5))));
    out.text("tick", x.right() + 6.0, base - 3.0, &duration(durations.max()));
}

fn tip(name: &str, durations: &Durations) -> String {
    let marks = [("median", 0.5), ("95 % up to", 0.95), ("99 % up to", 0.99), ("99.9 % up to", 0.999)];
    let mut tip = format!("{name}\nrecorded in {} faults", count(durations.count()));
    for (words, share) in marks {
        tip += &format!("\n{words} {}", duration(durations.at(share)));
    }
    tip + &format!("\nlongest {}", duration(durations.max()))
}
