//! The run over time: how many faults were resolved, and how many were open at once.

use super::quantities::Series;
use super::svg::{CountAxis, Drawing, Frame};
use super::units::{count, duration};
use crate::trace::FaultRecord;

/// Steps of time that the chart shows.
const STEPS: usize = 240;

/// Labels nearer to the one before than this are left to hovering.
const LABEL_GAP: f64 = 22.0;

/// The two charts over one axis of time; nothing if there is no fault.
pub(super) fn chart(faults: &[FaultRecord], labels: &[String]) -> String {
    let series = Series::of(faults, STEPS);
    if series.ended.is_empty() {
        return String::new();
    }
    let frame = Frame { left: 88.0, top: 92.0, ..Frame::new(470.0) };
    let time = Time { frame, series: &series };
    let middle = frame.top + frame.inner_height() / 2.0;
    let mut out = Drawing::default();
    time.scenarios(&mut out, faults, labels);
    let per_second = 1e9 / series.step as f64;
    let most = series.ended.iter().map(|&ended| (ended as f64 * per_second).ceil() as u64).max();
    let rate = CountAxis::new(frame.top, middle - 14.0, most.unwrap_or(0));
    rate.draw(&frame, &mut out, "resolved per second");
    let open = CountAxis::new(middle + 14.0, frame.y_end(), series.open.iter().copied().max().unwrap_or(0));
    open.draw(&frame, &mut out, "open at once");
    for (bin, (&ended, &most_open)) in series.ended.iter().zip(&series.open).enumerate() {
        let (left, right) = (time.x(bin as f64), time.x(bin as f64 + 1.0));
        out.group("bar", &time.tip(bin, ended, most_open), |out| {
            out.rect("hit", (left, frame.top), (right, frame.y_end()));
            out.rect("neutral", (left, rate.y(ended as f64 * per_second)), (right - 0.5, rate.y(0.0)));
            out.rect("neutral", (left, open.y(most_open as f64)), (right - 0.5, open.y(0.0)));
        });
    }
    time.ticks(&mut out);
    frame.finish("chart", "Faults resolved per second, and faults open at once, over the run", &out)
}

/// The axis of time.
struct Time<'a> {
    frame: Frame,
    series: &'a Series,
}

impl Time<'_> {
    /// Where a step begins.
    fn x(&self, bin: f64) -> f64 {
        self.frame.left + bin / self.series.ended.len() as f64 * self.frame.inner_width()
    }

    fn x_of(&self, ns: u64) -> f64 {
        self.x(ns.saturating_sub(self.series.origin) as f64 / self.series.step as f64)
    }

    /// A band for each scenario, from its first miss to its last end.
    fn scenarios(&self, out: &mut Drawing, faults: &[FaultRecord], labels: &[String]) {
        let mut spans = vec![(u64::MAX, 0); labels.len()];
        for fault in faults {
            if let Some(span) = spans.get_mut(usize::from(fault.scenario)) {
                span.0 = span.0.min(fault.times.miss);
                span.1 = span.1.max(fault.times.end);
            }
        }
        let mut seen: Vec<_> = spans.into_iter().zip(labels).filter(|((from, to), _)| from <= to).collect();
        seen.sort();
        let mut labelled = 0.0;
        for (index, ((from, to), label)) in seen.into_iter().enumerate() {
            let (left, right) = (self.x_of(from), self.x_of(to));
            let class = if index % 2 == 0 { "even" } else { "odd" };
            let top = self.frame.top - 14.0;
            out.group(class, &format!("{label}\n{}", duration(to - from)), |out| {
                out.rect("band", (left, top), (right, self.frame.y_end()));
                let middle = (left + right) / 2.0;
                if middle - labelled > LABEL_GAP {
                    out.turned("tick end", (middle + 3.0, top - 5.0), 35, label);
                    labelled = middle;
                }
            });
        }
    }

    fn ticks(&self, out: &mut Drawing) {
        let (series, bottom) = (self.series, self.frame.y_end());
        let steps = series.ended.len() as u64;
        let between = super::quantities::nice_step((steps * series.step / 8).max(1));
        let mut at = series.origin.div_ceil(between) * between;
        while at <= series.origin + steps * series.step {
            out.line("axis", (self.x_of(at), bottom), (self.x_of(at), bottom + 5.0));
            out.text("tick mid", self.x_of(at), bottom + 18.0, &clock(at, between));
            at += between;
        }
        let middle = self.frame.left + self.frame.inner_width() / 2.0;
        out.text("label mid", middle, self.frame.height - 8.0, "time since the recorder's start");
    }

    fn tip(&self, bin: usize, ended: u64, open: u64) -> String {
        let from = self.series.origin + bin as u64 * self.series.step;
        let rate = (ended as f64 * 1e9 / self.series.step as f64).round() as u64;
        let (at, step) = (clock(from, self.series.step), duration(self.series.step));
        format!(
            "at {at}, for {step}\n{} resolved: {} per second\nat most {} open at once",
            count(ended),
            count(rate),
            count(open)
        )
    }
}

/// A point in time, as exactly as steps of `step` want.
fn clock(ns: u64, step: u64) -> String {
    let (unit, name) = match step {
        1_000_000_000.. => (1_000_000_000, "s"),
        1_000_000.. => (1_000_000, "ms"),
        1_000.. => (1_000, "µs"),
        _ => (1, "ns"),
    };
    format!("{}\u{a0}{name}", count(ns / unit))
}
