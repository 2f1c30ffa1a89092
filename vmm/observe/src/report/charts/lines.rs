//! A line chart: figures over one axis.

use refault_bus::bits::index;

use super::svg::{CountAxis, Drawing, Frame};
use crate::numbers::{exponent, whole};
use crate::report::markup::Text;
use crate::report::units::FigureUnit;

/// The input of the chart.
pub(in crate::report) struct LineChart<'a> {
    /// Unit of all figures.
    pub(in crate::report) unit: FigureUnit,
    /// Name and values of the horizontal axis.
    pub(in crate::report) x: (&'a str, &'a [String]),
    /// Name of each figure, and its values along the axis; `None` if the point is not finished.
    pub(in crate::report) figures: Vec<(&'a str, Vec<Option<f64>>)>,
}

/// The chart with its legend.
pub(in crate::report) fn chart(lines: &LineChart<'_>) -> String {
    let frame = Frame { width: 540.0, left: 84.0, right: 26.0, ..Frame::new(300.0) };
    let values = || lines.figures.iter().flat_map(|(_, values)| values.iter().copied().flatten());
    let x = Places::new(&frame, lines.x.1);
    let y = Height::new(&frame, values());
    let mut out = Drawing::default();
    x.draw(&mut out, &frame, lines.x.0, lines.x.1);
    y.draw(&mut out, &frame, lines.unit);
    for (index, (name, values)) in lines.figures.iter().enumerate() {
        let points = x.places.iter().zip(values).filter_map(|(&x, value)| Some((x, y.y((*value)?))));
        out.path(&format!("run-{index}"), points);
        for ((&place, &value), label) in x.places.iter().zip(values).zip(lines.x.1) {
            if let Some(value) = value {
                let tip = format!("{name}\n{} {label}\n{}", lines.x.0, lines.unit.format(value));
                out.group("point", &tip, |out| out.circle(&format!("run-{index}"), (place, y.y(value)), 4.0));
            }
        }
    }
    let keys: String = lines
        .figures
        .iter()
        .enumerate()
        .map(|(index, (name, _))| format!("<li><span class=\"key run-{index}\"></span>{}</li>", Text(name)))
        .collect();
    let about = lines.figures.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    format!("<div><ul class=\"legend\">{keys}</ul>\n{}</div>\n", frame.finish("chart half", &about, &out))
}

/// Positions of the axis values: numbers to scale, words evenly spaced.
struct Places {
    places: Vec<f64>,
    kind: &'static str,
}

impl Places {
    fn new(frame: &Frame, values: &[String]) -> Self {
        let numbers: Option<Vec<f64>> = values.iter().map(|value| value.parse().ok()).collect();
        let spread = |place: &dyn Fn(f64) -> f64, numbers: &[f64]| -> Vec<f64> {
            let (first, last) = (place(numbers[0]), place(numbers[numbers.len() - 1]));
            let share = |number| (place(number) - first) / (last - first);
            numbers
                .iter()
                .map(|&number| frame.left + 14.0 + share(number) * (frame.inner_width() - 28.0))
                .collect()
        };
        match numbers {
            Some(numbers)
                if numbers.len() > 1
                    && numbers[0] > 0.0
                    && numbers[numbers.len() - 1] / numbers[0] >= 10.0 =>
            {
                Self { places: spread(&f64::log10, &numbers), kind: " (logarithmic)" }
            }
            Some(numbers) if numbers.len() > 1 && numbers[0] < numbers[numbers.len() - 1] => {
                Self { places: spread(&|number| number, &numbers), kind: "" }
            }
            _ => {
                let step = frame.inner_width() / values.len().max(1) as f64;
                Self {
                    places: (0..values.len()).map(|at| frame.left + step * (at as f64 + 0.5)).collect(),
                    kind: "",
                }
            }
        }
    }

    fn draw(&self, out: &mut Drawing, frame: &Frame, title: &str, values: &[String]) {
        let bottom = frame.y_end();
        let mut free = 0.0;
        for (&x, value) in self.places.iter().zip(values) {
            out.line("axis", (x, bottom), (x, bottom + 4.0));
            // Labels that would overlap the one before are only in tooltips.
            let half = 3.6 * value.chars().count() as f64;
            if x - half > free {
                out.text("tick mid", x, bottom + 17.0, value);
                free = x + half + 4.0;
            }
        }
        let middle = frame.left + frame.inner_width() / 2.0;
        out.text("label mid", middle, frame.height - 8.0, &format!("{title}{}", self.kind));
    }
}

/// The vertical axis: logarithmic if the values span a wide range, otherwise from zero.
enum Height {
    Log { frame: Frame, low: i32, high: i32 },
    Linear { axis: CountAxis, per_count: f64, steps: u64 },
}

impl Height {
    fn new(frame: &Frame, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) =
            values.fold((f64::MAX, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
        if low > 0.0 && high / low > 20.0 {
            let (low, high) = (exponent(low.log10().floor()), exponent(high.log10().ceil()));
            return Self::Log { frame: *frame, low, high };
        }
        // Counts thousandths of the next power of ten, because ticks are integers and shares are not.
        let per_count = 10f64.powi(exponent(high.max(1e-9).log10().ceil()) - 3);
        let steps = whole((high / per_count).ceil().max(1.0));
        Self::Linear { axis: CountAxis::new(frame.top, frame.y_end(), steps), per_count, steps }
    }

    fn y(&self, value: f64) -> f64 {
        match self {
            Self::Log { frame, low, high } => {
                let share = (value.max(1e-300).log10() - f64::from(*low)) / f64::from((high - low).max(1));
                frame.y_end() - share * frame.inner_height()
            }
            Self::Linear { axis, per_count, .. } => axis.y(value / per_count),
        }
    }

    fn draw(&self, out: &mut Drawing, frame: &Frame, unit: FigureUnit) {
        let kind = match self {
            Self::Log { low, high, .. } => {
                for decade in *low..=*high {
                    self.tick(out, frame, unit, 10f64.powi(decade));
                }
                " (logarithmic)"
            }
            Self::Linear { per_count, steps, .. } => {
                let step = crate::report::digest::bins::nice_step(steps.div_ceil(5).max(1));
                for tick in (0..=steps.div_ceil(step) * step).step_by(index(step)) {
                    self.tick(out, frame, unit, tick as f64 * per_count);
                }
                ""
            }
        };
        out.line("axis", (frame.left, frame.y_end()), (frame.x_end(), frame.y_end()));
        out.turned(
            "label mid",
            (13.0, frame.top + frame.inner_height() / 2.0),
            -90,
            &format!("{}{kind}", unit.name()),
        );
    }

    fn tick(&self, out: &mut Drawing, frame: &Frame, unit: FigureUnit, value: f64) {
        let y = self.y(value);
        if y >= frame.top - 1.0 {
            out.line("grid", (frame.left, y), (frame.x_end(), y));
            out.text("tick end", frame.left - 8.0, y + 4.0, &unit.format(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn numbers_stand_by_their_size_and_words_side_by_side() {
        let frame = Frame::new(300.0);
        let gaps = |values: &[&str]| {
            let places = Places::new(&frame, &words(values)).places;
            places.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
        };
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        let log = gaps(&["1", "10", "100"]);
        assert!(near(log[0], log[1]));
        let linear = gaps(&["1", "2", "4"]);
        assert!(near(linear[0] * 2.0, linear[1]));
        let side = gaps(&["odp", "pasid", "9"]);
        assert!(near(side[0], side[1]));
        assert_eq!(Places::new(&frame, &words(&["5"])).places.len(), 1);
    }

    #[test]
    fn every_value_is_inside() {
        let frame = Frame::new(300.0);
        for values in [vec![0.0, 0.93], vec![1.0, 5e6], vec![3.0], vec![0.0], vec![1234.5, 1300.0]] {
            let height = Height::new(&frame, values.iter().copied());
            for value in values {
                let y = height.y(value);
                assert!(y >= frame.top - 0.01 && y <= frame.y_end() + 0.01, "{value} at {y}");
            }
        }
    }
}
