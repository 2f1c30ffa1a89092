//! The run over time: faults resolved, faults open, and invalidations.

use super::svg::{CountAxis, Drawing, Frame};
use crate::numbers::whole;
use crate::report::digest::Digest;
use crate::report::digest::bins::nice_step;
use crate::report::digest::series::{Interval, TimeSeries};
use crate::report::units::{self, count, duration};

/// Labels closer to the one before than this are only in tooltips.
const LABEL_GAP: f64 = 22.0;

/// Height of a track and of the gap below it.
const TRACK: f64 = 150.0;
const GAP: f64 = 26.0;

/// The charts over one time axis; empty if nothing happened. `labels` are the scenarios' names.
pub(in crate::report) fn chart(digest: &Digest, labels: &[String]) -> String {
    let series = &digest.series;
    if series.steps.is_empty() {
        return String::new();
    }
    let scenarios = labels.len() > 1;
    let mut tracks = vec![Track::RESOLVED, Track::OPEN];
    if digest.invalidations.count() > 0 {
        tracks.push(Track::INVALIDATED);
    }
    let top = if scenarios { 116.0 } else { 14.0 };
    let height = top + (TRACK + GAP) * tracks.len() as f64 - GAP + 48.0;
    let frame = Frame { left: 88.0, top, ..Frame::new(height) };
    let time = Time { frame, series };
    let mut out = Drawing::default();
    if scenarios {
        time.scenarios(&mut out, &digest.spans, labels);
    }
    for (index, track) in tracks.iter().enumerate() {
        let from = frame.top + (TRACK + GAP) * index as f64;
        time.track(&mut out, track, (from, from + TRACK));
    }
    time.tips(&mut out);
    time.ticks(&mut out);
    frame.finish("chart", "Faults resolved, faults open and invalidations over the run", &out)
}

/// One quantity over time.
struct Track {
    title: &'static str,
    value: fn(&Interval, u64) -> f64,
}

impl Track {
    const RESOLVED: Self =
        Self { title: "faults resolved per second", value: |at, step| rate(at.ended, step) };
    const OPEN: Self = Self { title: "faults open, mean", value: |at, step| at.open_ns as f64 / step as f64 };
    const INVALIDATED: Self =
        Self { title: "invalidations per second", value: |at, step| rate(at.invalidated, step) };
}

fn rate(events: u64, step: u64) -> f64 {
    events as f64 * 1e9 / step as f64
}

/// The time axis.
struct Time<'a> {
    frame: Frame,
    series: &'a TimeSeries,
}

impl Time<'_> {
    /// The x coordinate of an interval's start.
    fn x(&self, place: f64) -> f64 {
        self.frame.left + place / self.series.steps.len() as f64 * self.frame.inner_width()
    }

    fn x_of(&self, ns: u64) -> f64 {
        self.x(ns.saturating_sub(self.series.begin(0)) as f64 / self.series.step as f64)
    }

    /// The quantity as an area chart.
    fn track(&self, out: &mut Drawing, track: &Track, (top, bottom): (f64, f64)) {
        let values: Vec<f64> =
            self.series.steps.iter().map(|step| (track.value)(step, self.series.step)).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        let y = CountAxis::new(top, bottom, whole(most.ceil()));
        y.draw(&self.frame, out, track.title);
        let corners = values.iter().enumerate().flat_map(|(place, &value)| {
            [(self.x(place as f64), y.y(value)), (self.x(place as f64 + 1.0), y.y(value))]
        });
        let ends = [(self.frame.left, bottom), (self.frame.x_end(), bottom)];
        out.path("area", [ends[0]].into_iter().chain(corners).chain([ends[1]]));
    }

    /// The tooltip of an interval.
    fn tips(&self, out: &mut Drawing) {
        for (place, step) in self.series.steps.iter().enumerate() {
            if *step != Interval::default() {
                let (left, right) = (self.x(place as f64), self.x(place as f64 + 1.0));
                out.group("bar", &self.tip(place, step), |out| {
                    out.rect("hit", (left, self.frame.top), (right, self.frame.y_end()));
                });
            }
        }
    }

    /// A band for each scenario, from its first miss to its last end.
    fn scenarios(&self, out: &mut Drawing, spans: &[(u64, u64)], labels: &[String]) {
        let mut seen: Vec<_> = spans.iter().zip(labels).filter(|((from, to), _)| from <= to).collect();
        seen.sort();
        let mut labelled = 0.0;
        for (index, (&(from, to), label)) in seen.into_iter().enumerate() {
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
        let (begin, end) = (series.begin(0), series.begin(series.steps.len()));
        let between = nice_step(((end - begin) / 8).max(1));
        let mut at = begin.div_ceil(between) * between;
        while at <= end {
            out.line("axis", (self.x_of(at), bottom), (self.x_of(at), bottom + 5.0));
            out.text("tick mid", self.x_of(at), bottom + 18.0, &units::tick(at, end));
            at += between;
        }
        let middle = self.frame.left + self.frame.inner_width() / 2.0;
        let title = format!("time since the recorder's start, in intervals of {}", duration(series.step));
        out.text("label mid", middle, self.frame.height - 8.0, &title);
    }

    fn tip(&self, place: usize, step: &Interval) -> String {
        let (at, length) = (self.series.begin(place), self.series.step);
        let mut tip = format!(
            "from {}, for {}\n{} resolved: {} per second\n{:.1} open on average",
            units::tick(at, self.series.begin(self.series.steps.len())),
            duration(length),
            count(step.ended),
            count(whole(rate(step.ended, length).round())),
            step.open_ns as f64 / length as f64
        );
        if step.invalidated > 0 {
            tip += &format!("\n{} invalidations", count(step.invalidated));
        }
        tip
    }
}
