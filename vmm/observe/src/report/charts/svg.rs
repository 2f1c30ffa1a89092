//! SVG drawing: a canvas with axes, and basic shapes. Colours and fonts come from the style sheet, by class.

use std::fmt::{self, Display, Write};

use refault_bus::bits::index;

use crate::numbers::{integer, whole};
use crate::report::digest::bins::nice_step;
use crate::report::markup::Text;
use crate::report::units;

/// The canvas of a chart, in units of its view box.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct Frame {
    pub(in crate::report) width: f64,
    pub(in crate::report) height: f64,
    pub(in crate::report) left: f64,
    pub(in crate::report) right: f64,
    pub(in crate::report) top: f64,
    pub(in crate::report) bottom: f64,
}

impl Frame {
    /// A canvas of the page's width with room for axis labels.
    pub(in crate::report) const fn new(height: f64) -> Self {
        Self { width: 960.0, height, left: 70.0, right: 20.0, top: 14.0, bottom: 48.0 }
    }

    /// Right edge of the plot.
    pub(in crate::report) fn x_end(&self) -> f64 {
        self.width - self.right
    }

    /// Bottom edge of the plot.
    pub(in crate::report) fn y_end(&self) -> f64 {
        self.height - self.bottom
    }

    /// Width of the plot.
    pub(in crate::report) fn inner_width(&self) -> f64 {
        self.x_end() - self.left
    }

    /// Height of the plot.
    pub(in crate::report) fn inner_height(&self) -> f64 {
        self.y_end() - self.top
    }

    /// As [`Self::finish`], but in the canvas's own size instead of the page's width.
    pub(in crate::report) fn sized(&self, class: &str, about: &str, content: &Drawing) -> String {
        self.element(&format!(" style=\"width:{}px;min-width:0\"", N(self.width)), class, about, content)
    }

    /// The SVG element around `content`; `about` describes it for screen readers.
    pub(in crate::report) fn finish(&self, class: &str, about: &str, content: &Drawing) -> String {
        self.element("", class, about, content)
    }

    fn element(&self, style: &str, class: &str, about: &str, content: &Drawing) -> String {
        let (width, height) = (N(self.width), N(self.height));
        format!(
            "<div class=\"scroll\"><svg class=\"{class}\"{style} viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n{}</svg></div>\n",
            Text(about),
            content.0
        )
    }
}

/// Durations on a logarithmic horizontal axis.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct TimeAxis {
    frame: Frame,
    min: f64,
    max: f64,
}

impl TimeAxis {
    /// From `min` to `max`, both in nanoseconds and above zero.
    pub(in crate::report) fn new(frame: Frame, min: f64, max: f64) -> Self {
        Self { frame, min: min.max(1.0), max: max.max(min.max(1.0) * 10.0) }
    }

    /// The x coordinate of a duration, clamped to the axis.
    pub(in crate::report) fn x(&self, ns: f64) -> f64 {
        let share = (ns.clamp(self.min, self.max) / self.min).log10() / (self.max / self.min).log10();
        self.frame.left + share * self.frame.inner_width()
    }

    /// Left end of the axis.
    pub(in crate::report) fn left(&self) -> f64 {
        self.frame.left
    }

    /// Right end of the axis.
    pub(in crate::report) fn right(&self) -> f64 {
        self.frame.x_end()
    }

    /// Draws ticks, labels, grid and title.
    pub(in crate::report) fn draw(&self, out: &mut Drawing, title: &str) {
        let (top, bottom) = (self.frame.top, self.frame.y_end());
        let mut decade = 1u64;
        while decade as f64 <= self.max * 1.001 {
            if decade as f64 >= self.min * 0.999 {
                let x = self.x(decade as f64);
                out.line("grid", (x, top), (x, bottom));
                out.text("tick mid", x, bottom + 17.0, &round_duration(decade));
            }
            for factor in 2..10 {
                let at = (decade * factor) as f64;
                if at > self.min && at < self.max {
                    out.line("axis", (self.x(at), bottom), (self.x(at), bottom + 4.0));
                }
            }
            let Some(next) = decade.checked_mul(10).filter(|&next| next < 1 << 60) else { break };
            decade = next;
        }
        out.line("axis", (self.frame.left, bottom), (self.frame.x_end(), bottom));
        let middle = self.frame.left + self.frame.inner_width() / 2.0;
        out.text("label mid", middle, self.frame.height - 8.0, title);
    }
}

/// Durations on a linear horizontal axis from zero.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct LinearTime {
    frame: Frame,
    step: u64,
    max: u64,
}

impl LinearTime {
    /// From zero to at least `max` nanoseconds.
    pub(in crate::report) fn new(frame: Frame, max: u64) -> Self {
        let step = nice_step(max.div_ceil(8).max(1));
        Self { frame, step, max: max.max(1).div_ceil(step) * step }
    }

    /// The x coordinate of a duration.
    pub(in crate::report) fn x(&self, ns: f64) -> f64 {
        self.frame.left + ns / self.max as f64 * self.frame.inner_width()
    }

    /// Draws ticks, labels, grid and title.
    pub(in crate::report) fn draw(&self, out: &mut Drawing, title: &str) {
        let bottom = self.frame.y_end();
        for tick in (0..=self.max).step_by(index(self.step.max(1))) {
            let x = self.x(tick as f64);
            out.line(if tick == 0 { "axis" } else { "grid" }, (x, self.frame.top), (x, bottom));
            out.text("tick mid", x, bottom + 17.0, &units::tick(tick, self.max));
        }
        let middle = self.frame.left + self.frame.inner_width() / 2.0;
        out.text("label mid", middle, self.frame.height - 8.0, title);
    }
}

/// Counts on a linear vertical axis from zero.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct CountAxis {
    top: f64,
    bottom: f64,
    step: u64,
    max: u64,
}

impl CountAxis {
    /// From zero to at least `max`, between two heights.
    pub(in crate::report) fn new(top: f64, bottom: f64, max: u64) -> Self {
        let wanted = whole(((bottom - top) / 45.0).clamp(2.0, 6.0));
        let step = nice_step(max.div_ceil(wanted).max(1));
        Self { top, bottom, step, max: max.max(1).div_ceil(step) * step }
    }

    /// The y coordinate of a count.
    pub(in crate::report) fn y(&self, count: f64) -> f64 {
        self.bottom - count / self.max as f64 * (self.bottom - self.top)
    }

    /// Draws ticks, labels, grid and title.
    pub(in crate::report) fn draw(&self, frame: &Frame, out: &mut Drawing, title: &str) {
        for tick in (0..=self.max).step_by(index(self.step.max(1))) {
            let y = self.y(tick as f64);
            out.line(if tick == 0 { "axis" } else { "grid" }, (frame.left, y), (frame.x_end(), y));
            out.text("tick end", frame.left - 8.0, y + 4.0, &units::count(tick));
        }
        out.turned("label mid", (14.0, (self.top + self.bottom) / 2.0), -90, title);
    }
}

/// SVG elements under construction.
#[derive(Debug, Default)]
pub(in crate::report) struct Drawing(String);

impl Drawing {
    pub(in crate::report) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (x1, y1, x2, y2) = (N(from.0), N(from.1), N(to.0), N(to.1));
        self.put(format_args!("<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>\n"));
    }

    /// A rectangle between two corners.
    pub(in crate::report) fn rect(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (x, y) = (N(from.0), N(from.1));
        let (width, height) = (N((to.0 - from.0).max(0.0)), N((to.1 - from.1).max(0.0)));
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>\n"
        ));
    }

    /// A rectangle in a computed colour.
    pub(in crate::report) fn filled(&mut self, fill: &str, from: (f64, f64), to: (f64, f64)) {
        let (x, y) = (N(from.0), N(from.1));
        let (width, height) = (N((to.0 - from.0).max(0.0)), N((to.1 - from.1).max(0.0)));
        self.put(format_args!(
            "<rect fill=\"{fill}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>\n"
        ));
    }

    pub(in crate::report) fn circle(&mut self, class: &str, center: (f64, f64), radius: f64) {
        let (x, y, r) = (N(center.0), N(center.1), N(radius));
        self.put(format_args!("<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{r}\"/>\n"));
    }

    pub(in crate::report) fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let (x, y, text) = (N(x), N(y), Text(text));
        self.put(format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>\n"));
    }

    /// Text rotated clockwise, in degrees.
    pub(in crate::report) fn turned(&mut self, class: &str, at: (f64, f64), degrees: i32, text: &str) {
        let (x, y, text) = (N(at.0), N(at.1), Text(text));
        self.put(format_args!(
            "<text class=\"{class}\" transform=\"translate({x} {y}) rotate({degrees})\">{text}</text>\n"
        ));
    }

    /// A line through points.
    pub(in crate::report) fn path(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        self.put(format_args!("<path class=\"{class}\" d=\""));
        for (index, (x, y)) in points.enumerate() {
            self.put(format_args!("{}{} {}", if index == 0 { "M" } else { "L" }, N(x), N(y)));
        }
        self.put(format_args!("\"/>\n"));
    }

    /// A group with a tooltip.
    pub(in crate::report) fn group(&mut self, class: &str, tip: &str, content: impl FnOnce(&mut Self)) {
        self.put(format_args!("<g class=\"{class}\"><title>{}</title>\n", Text(tip)));
        content(self);
        self.put(format_args!("</g>\n"));
    }

    fn put(&mut self, what: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        self.0.write_fmt(what).unwrap_or_default();
    }
}

/// A coordinate with at most one decimal, which halves the file's size.
pub(in crate::report) struct N(pub(in crate::report) f64);

impl Display for N {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = integer((self.0 * 10.0).round());
        match tenths % 10 {
            0 => write!(f, "{}", tenths / 10),
            _ => write!(f, "{:.1}", tenths as f64 / 10.0),
        }
    }
}

/// The label of a power of ten: `100 µs`.
fn round_duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => (ns, "ns"),
        1_000..1_000_000 => (ns / 1_000, "µs"),
        1_000_000..1_000_000_000 => (ns / 1_000_000, "ms"),
        _ => (ns / 1_000_000_000, "s"),
    };
    format!("{value}\u{a0}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short() {
        let text = |n| N(n).to_string();
        assert_eq!([0.0, 1.04, -3.26, 12.0].map(text), ["0", "1", "-3.3", "12"]);
        assert_eq!(text(-0.04), "0");
    }

    #[test]
    fn a_decade_is_a_decade_wide() {
        let axis = TimeAxis::new(Frame::new(100.0), 1e3, 1e6);
        let width = axis.x(1e4) - axis.x(1e3);
        assert!((axis.x(1e6) - axis.x(1e5) - width).abs() < 1e-9);
        assert_eq!(axis.x(1.0), axis.x(1e3));
    }

    #[test]
    fn a_count_axis_holds_its_maximum() {
        for max in [0, 1, 3, 7, 1_234_567] {
            let axis = CountAxis::new(0.0, 200.0, max);
            assert!(axis.y(max as f64) >= 0.0 && axis.y(0.0) == 200.0);
            assert!(axis.max / axis.step <= 12);
        }
    }
}
