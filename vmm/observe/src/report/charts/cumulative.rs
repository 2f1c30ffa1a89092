//! Distributions as curves: the share that took no longer than a time and, on a logarithmic axis, the share that took longer.

use super::svg::{Drawing, Frame, TimeAxis};
use crate::numbers::exponent;
use crate::report::digest::bins::LogBins;
use crate::report::units::{duration, percent_of};
use crate::trace::Durations;

/// A distribution to draw.
pub(in crate::report) struct Curve<'a> {
    /// Its label.
    pub(in crate::report) name: &'a str,
    /// CSS class of its colour.
    pub(in crate::report) class: String,
    /// The distribution.
    pub(in crate::report) durations: &'a Durations,
}

/// Both charts side by side, over the same axis. `what` labels the time axis.
pub(in crate::report) fn charts(curves: &[Curve<'_>], bins: &LogBins, what: &str) -> String {
    let done = chart(curves, bins, what, &Shares::Done);
    let most = curves.iter().map(|curve| curve.durations.count()).max().unwrap_or(0);
    let decades = (most.max(2) as f64).log10().ceil().clamp(1.0, 8.0);
    let left = chart(curves, bins, what, &Shares::Left { decades });
    format!("<div class=\"pair\">\n{done}{left}</div>\n")
}

/// The vertical axis.
enum Shares {
    /// The share that took no longer, linear.
    Done,
    /// The share that took longer, logarithmic: each decade of the tail has the same height.
    Left { decades: f64 },
}

/// A point of a curve: the duration, the share before it and the share with it.
type Point = (u64, f64, f64);

fn chart(curves: &[Curve<'_>], bins: &LogBins, what: &str, shares: &Shares) -> String {
    let frame = Frame { width: 540.0, left: 80.0, right: 26.0, ..Frame::new(300.0) };
    let mut out = Drawing::default();
    let x = TimeAxis::new(frame, bins.edge(0), bins.edge(bins.len));
    x.draw(&mut out, &format!("{what} (logarithmic)"));
    shares.draw(&frame, &mut out);
    for curve in curves.iter().filter(|curve| curve.durations.count() > 0) {
        let points = steps(curve.durations, &x);
        let line: Vec<(f64, f64)> = points
            .iter()
            .flat_map(|&(ns, before, with)| {
                let x = x.x(ns as f64);
                [(x, shares.height(&frame, before)), (x, shares.height(&frame, with))]
            })
            .collect();
        out.group("curve", &tip(curve), |out| {
            out.path("hit", line.iter().copied());
            out.path(&curve.class, line.iter().copied());
        });
    }
    let about = format!("{}: {what}", shares.title());
    frame.finish("chart half", &about, &out)
}

/// The distinguishable points of a distribution.
fn steps(durations: &Durations, x: &TimeAxis) -> Vec<Point> {
    let all = durations.count() as f64;
    let mut points: Vec<Point> = Vec::new();
    let mut done = 0;
    for (ns, times) in durations.recorded() {
        let before = done as f64 / all;
        done += times;
        let with = done as f64 / all;
        match points.last_mut() {
            // The tail has few values, so all of them are drawn.
            Some(last) if done + 64 < durations.count() && x.x(ns as f64) - x.x(last.0 as f64) < 0.7 => {
                last.2 = with
            }
            _ => points.push((ns, before, with)),
        }
    }
    points
}

fn tip(curve: &Curve<'_>) -> String {
    let at = |share| duration(curve.durations.at(share));
    format!(
        "{}\nmedian {}\n95 % up to {}\n99 % up to {}\n99.9 % up to {}\nlongest {}",
        curve.name,
        at(0.5),
        at(0.95),
        at(0.99),
        at(0.999),
        duration(curve.durations.max())
    )
}

impl Shares {
    fn title(&self) -> &'static str {
        match self {
            Self::Done => "share that took no longer",
            Self::Left { .. } => "share that took longer (logarithmic)",
        }
    }

    /// The y coordinate of a share that took no longer.
    fn height(&self, frame: &Frame, done: f64) -> f64 {
        let down = match *self {
            Self::Done => 1.0 - done,
            Self::Left { decades } => (-(1.0 - done).max(1e-12).log10() / decades).min(1.0),
        };
        frame.top + down * frame.inner_height()
    }

    fn draw(&self, frame: &Frame, out: &mut Drawing) {
        let ticks: Vec<f64> = match *self {
            Self::Done => vec![0.0, 0.25, 0.5, 0.75, 1.0],
            Self::Left { decades } => (0..=exponent(decades)).map(|nines| 1.0 - 10f64.powi(-nines)).collect(),
        };
        for done in ticks {
            let y = self.height(frame, done);
            out.line("grid", (frame.left, y), (frame.x_end(), y));
            let share = if matches!(self, Self::Done) { done } else { 1.0 - done };
            out.text("tick end", frame.left - 8.0, y + 4.0, &percent_of(share));
        }
        out.turned("label mid", (13.0, frame.top + frame.inner_height() / 2.0), -90, self.title());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis() -> TimeAxis {
        let bins = LogBins::around(1_000, 1_000_000, 12);
        TimeAxis::new(Frame::new(300.0), bins.edge(0), bins.edge(bins.len))
    }

    #[test]
    fn a_curve_begins_at_nothing_and_ends_at_all() {
        let mut durations = Durations::new();
        (1..=100_000u64).for_each(|ns| durations.record(1_000 + ns * 9));
        let points = steps(&durations, &axis());
        assert_eq!(points.first().map(|point| point.1), Some(0.0));
        assert_eq!(points.last().map(|point| (point.0, point.2)), Some((901_000, 1.0)));
        assert!(points.windows(2).all(|pair| pair[0].2 <= pair[1].1 + 1e-12 && pair[0].0 < pair[1].0));
        assert!(points.len() < 1500, "{}", points.len());
    }

    #[test]
    fn every_decade_of_the_tail_has_the_same_height() {
        let frame = Frame::new(300.0);
        let shares = Shares::Left { decades: 4.0 };
        let height = |done| shares.height(&frame, done);
        assert_eq!((height(0.0), height(1.0)), (frame.top, frame.y_end()));
        assert!((height(0.9) - height(0.0) - (height(0.99) - height(0.9))).abs() < 1e-6);
    }
}
