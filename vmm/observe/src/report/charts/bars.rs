//! Histogram of fault latency, divided by component.

use super::svg::{CountAxis, Drawing, Frame, TimeAxis};
use crate::numbers::whole;
use crate::report::digest::bins::LogBins;
use crate::report::digest::{Group, LatencyBar, PARTS};
use crate::report::units::{duration, percent, plural};

/// Bars over fault latency, each divided in proportion to the components' time. `bins` has
/// [`PER_DECADE`](crate::report::digest::PER_DECADE) bins per decade.
pub(in crate::report) fn chart(group: &Group, bins: &LogBins) -> String {
    let frame = Frame::new(300.0);
    let bars: Vec<LatencyBar> = (0..bins.len).map(|bin| group.bar_of(bins, bin)).collect();
    let mut out = Drawing::default();
    let x = TimeAxis::new(frame, bins.edge(0), bins.edge(bins.len));
    let y = CountAxis::new(frame.top, frame.y_end(), bars.iter().map(|bar| bar.faults).max().unwrap_or(0));
    x.draw(&mut out, "fault latency, from miss to copy (logarithmic)");
    y.draw(&frame, &mut out, "faults");
    for (bin, bar) in bars.iter().enumerate().filter(|(_, bar)| bar.faults > 0) {
        let (from, to) = (bins.edge(bin), bins.edge(bin + 1));
        out.group("bar", &tip((from, to), bar), |out| {
            let (left, right) = (x.x(from) + 0.75, x.x(to) - 0.75);
            out.rect("hit", (left, frame.top), (right, frame.y_end()));
            divided(out, &y, (left, right), bar);
        });
    }
    frame.finish("chart", "Histogram of fault latency, each bar divided by component", &out)
}

fn divided(out: &mut Drawing, y: &CountAxis, (left, right): (f64, f64), bar: &LatencyBar) {
    // A single fault must stay visible next to thousands.
    let height = (y.y(0.0) - y.y(bar.faults as f64)).max(2.0);
    let mut low = y.y(0.0);
    for (part, &sum) in PARTS.iter().zip(&bar.parts) {
        let high = low - height * sum as f64 / bar.total.max(1) as f64;
        if low - high > 0.05 {
            out.rect(part.class, (left, high), (right, low));
        }
        low = high;
    }
}

fn tip((from, to): (f64, f64), bar: &LatencyBar) -> String {
    let (from, to) = (duration(whole(from)), duration(whole(to)));
    let mut tip = format!("{} of {from} to {to}", plural(bar.faults, "fault", "faults"));
    for (part, &sum) in PARTS.iter().zip(&bar.parts) {
        if sum > 0 {
            let mean = duration(sum / bar.faults.max(1));
            tip += &format!("\n{}: {} (mean {mean})", part.name, percent(sum, bar.total));
        }
    }
    tip
}
