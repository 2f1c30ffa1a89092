//! A heat map: a figure over two axes.

use refault_bus::bits::{index, low_u8};

use super::svg::{Drawing, Frame};
use crate::numbers::whole;
use crate::report::units::FigureUnit;

/// The colour map cividis, from low to high (Nuñez, Anderton and Renslow 2018): its lightness increases evenly, and it looks
/// alike with and without a colour vision deficiency.
const COLOURS: [(u8, u8, u8); 9] = [
    (0, 34, 78),
    (26, 56, 111),
    (64, 77, 108),
    (92, 99, 110),
    (120, 121, 121),
    (152, 145, 118),
    (185, 171, 107),
    (220, 199, 89),
    (254, 232, 56),
];

const CELL: (f64, f64) = (76.0, 30.0);

/// The input of the chart.
pub(in crate::report) struct HeatMap<'a> {
    /// Title above the map.
    pub(in crate::report) title: &'a str,
    /// Name and values of the horizontal axis.
    pub(in crate::report) x: (&'a str, &'a [String]),
    /// Name and values of the vertical axis.
    pub(in crate::report) y: (&'a str, &'a [String]),
    /// `cells[y][x]`; `None` if the point is not finished.
    pub(in crate::report) cells: Vec<Vec<Option<f64>>>,
    /// Unit of the values.
    pub(in crate::report) unit: FigureUnit,
    /// Lowest and highest value over all maps that share a colour scale.
    pub(in crate::report) range: (f64, f64),
}

/// The map with its colour scale.
pub(in crate::report) fn chart(map: &HeatMap<'_>) -> String {
    let (columns, rows) = (map.x.1.len(), map.y.1.len());
    let widest = map.y.1.iter().map(|value| value.chars().count()).max().unwrap_or(0) as f64;
    let frame = Frame {
        width: 0.0,
        height: 0.0,
        left: 34.0 + 7.0 * widest.min(24.0),
        right: 16.0,
        top: 30.0,
        bottom: 106.0,
    };
    let width = frame.left + frame.right + (CELL.0 * columns as f64).max(250.0);
    let frame = Frame { width, height: frame.top + frame.bottom + CELL.1 * rows as f64, ..frame };
    let scale = Scale::new(map.range);
    let mut out = Drawing::default();
    out.text("title", frame.left, 18.0, map.title);
    for (y, row) in map.cells.iter().enumerate() {
        for (x, &value) in row.iter().enumerate() {
            cell(&mut out, map, &scale, (x, y), (&frame, value));
        }
    }
    axes(&mut out, map, &frame);
    scale.legend(&mut out, &frame, map.unit);
    frame.sized("chart heat", map.title, &out)
}

/// Origin of a cell; the first row is at the bottom.
fn corner(frame: &Frame, rows: usize, (x, y): (usize, usize)) -> (f64, f64) {
    (frame.left + CELL.0 * x as f64, frame.top + CELL.1 * (rows - 1 - y) as f64)
}

fn cell(
    out: &mut Drawing,
    map: &HeatMap<'_>,
    scale: &Scale,
    (x, y): (usize, usize),
    (frame, value): (&Frame, Option<f64>),
) {
    let (left, top) = corner(frame, map.y.1.len(), (x, y));
    let to = (left + CELL.0 - 1.0, top + CELL.1 - 1.0);
    let words = value.map_or("–".into(), |value| map.unit.format(value));
    let tip = format!("{} {}\n{} {}\n{words}", map.x.0, map.x.1[x], map.y.0, map.y.1[y]);
    out.group("cell", &tip, |out| {
        let class = match value.map(|value| scale.share(value)) {
            Some(share) => {
                out.filled(&colour(share), (left, top), to);
                if share < 0.55 { "on-dark mid" } else { "on-light mid" }
            }
            None => {
                out.rect("unknown", (left, top), to);
                "tick mid"
            }
        };
        out.text(class, left + CELL.0 / 2.0, top + CELL.1 / 2.0 + 4.0, &words);
    });
}

fn axes(out: &mut Drawing, map: &HeatMap<'_>, frame: &Frame) {
    let bottom = frame.y_end();
    for (x, value) in map.x.1.iter().enumerate() {
        out.text("tick mid", frame.left + CELL.0 * (x as f64 + 0.5), bottom + 16.0, &shortened(value, 11));
    }
    for (y, value) in map.y.1.iter().enumerate() {
        let (_, top) = corner(frame, map.y.1.len(), (0, y));
        out.text("tick end", frame.left - 7.0, top + CELL.1 / 2.0 + 4.0, &shortened(value, 24));
    }
    out.text("label mid", frame.left + CELL.0 * map.x.1.len() as f64 / 2.0, bottom + 34.0, map.x.0);
    out.turned("label mid", (12.0, (frame.top + bottom) / 2.0), -90, map.y.0);
}

/// Truncates to at most `most` characters.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        text.into()
    } else {
        text.chars().take(most - 1).chain(['…']).collect()
    }
}

/// Maps values to the colour scale; logarithmic if they span a wide range.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    fn new((low, high): (f64, f64)) -> Self {
        Self { low, high, log: low > 0.0 && high / low > 20.0 }
    }

    fn share(&self, value: f64) -> f64 {
        let place = |value: f64| if self.log { value.max(self.low).log10() } else { value };
        let span = place(self.high) - place(self.low);
        if span > 0.0 { ((place(value) - place(self.low)) / span).clamp(0.0, 1.0) } else { 0.5 }
    }

    fn value(&self, share: f64) -> f64 {
        if self.log {
            self.low * (self.high / self.low).powf(share)
        } else {
            self.low + share * (self.high - self.low)
        }
    }

    /// A colour strip with values at its ends and in the middle.
    fn legend(&self, out: &mut Drawing, frame: &Frame, unit: FigureUnit) {
        let (top, width) = (frame.height - 38.0, 240.0);
        for step in 0..48 {
            let from = frame.left + width * f64::from(step) / 48.0;
            let fill = colour((f64::from(step) + 0.5) / 48.0);
            out.filled(&fill, (from, top), (from + width / 48.0 + 0.3, top + 10.0));
        }
        for (share, class) in [(0.0, "tick"), (0.5, "tick mid"), (1.0, "tick end")] {
            out.text(class, frame.left + width * share, top + 25.0, &unit.format(self.value(share)));
        }
        let kind = if self.log { "logarithmic" } else { "linear" };
        out.text("tick", frame.left, top - 4.0, &format!("colour scale: {kind}"));
    }
}

/// The colour of a share from 0 to 1.
fn colour(share: f64) -> String {
    let place = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let low = index(whole(place)).min(COLOURS.len() - 2);
    let mix = |from: u8, to: u8| {
        low_u8(whole((f64::from(from) + (place - low as f64) * (f64::from(to) - f64::from(from))).round()))
    };
    let (from, to) = (COLOURS[low], COLOURS[low + 1]);
    format!("#{:02x}{:02x}{:02x}", mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_scale_are_the_ends_of_the_colours() {
        for range in [(1.0, 1000.0), (0.0, 5.0), (-3.0, 4.0)] {
            let scale = Scale::new(range);
            assert_eq!((scale.share(range.0), scale.share(range.1)), (0.0, 1.0));
            assert!((scale.value(1.0) - range.1).abs() < 1e-9 && (scale.value(0.0) - range.0).abs() < 1e-9);
        }
        assert_eq!((colour(0.0), colour(1.0)), ("#00224e".to_owned(), "#fee838".to_owned()));
        assert_eq!(Scale::new((7.0, 7.0)).share(7.0), 0.5);
    }

    #[test]
    fn higher_values_are_lighter() {
        let light = |step: u32| {
            let text = colour(f64::from(step) / 40.0);
            let part = |from| f64::from(u8::from_str_radix(&text[from..from + 2], 16).unwrap());
            0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
        };
        assert!((0..40).all(|step| light(step) < light(step + 1)));
    }
}
