//! The page of a sweep: figures over one or more axes.

use super::{page, policies, section};
use crate::report::charts::heat::{self, HeatMap};
use crate::report::charts::lines::{self, LineChart};
use crate::report::experiment::TimeBase;
use crate::report::markup::Text;
use crate::report::sweep::{Axis, SweepTable};
use crate::report::units::{FigureUnit, count, plural};

/// Most maps for one figure.
const MAX_MAPS: usize = 24;

/// Renders the page.
pub(in crate::report) fn render(table: &SweepTable) -> String {
    let whole = table;
    let (table, seeds) = &whole.over_seeds();
    let figures = table.chosen();
    let charts = match table.axes.len() {
        0 => "<p>Nothing was varied: there is one point, in the table beside this page.</p>\n".into(),
        1 => over_one(table, &figures),
        // One map per figure, side by side.
        2 => multiples(&figures.iter().map(|&figure| over_two(table, figure)).collect::<String>()),
        _ => figures.iter().map(|&figure| over_more(table, figure)).collect(),
    };
    let shown: Vec<&str> = figures.iter().map(|&figure| table.figures[figure].as_str()).collect();
    let left: Vec<&str> =
        table.figures.iter().map(String::as_str).filter(|name| !shown.contains(name)).collect();
    let files = format!(
        "<p>Figures without a chart: {}.</p>\n<ul>\n<li><a href=\"table.csv\">table.csv</a>: every point and every figure</li>\n</ul>\n",
        if left.is_empty() { "none".into() } else { Text(&left.join(", ")).to_string() }
    );
    let title = format!("refault: sweep {}", Text(&table.name));
    let compared = policies::content(table);
    let compared =
        compared.map(|content| section("policies", "What a responder should do that faults", &content));
    let sections = [
        compared.unwrap_or_default(),
        section("sweep", "What was varied", &varied(whole)),
        section("figures", "Figures", &(averaged(*seeds) + &charts)),
        section("files", "All figures", &files),
    ];
    let head = format!("<header>\n<h1>{title}</h1>\n{}</header>\n", super::time_label(TimeBase::Virtual));
    page(&title, &(head + &sections.concat()))
}

/// The axes, the number of finished points, and what is the same at all of them.
fn varied(table: &SweepTable) -> String {
    let row = |(name, value): (&str, String)| format!("<dt>{}</dt><dd>{value}</dd>", Text(name));
    let axes = table.axes.iter().map(|axis| (axis.name.as_str(), Text(&axis.values.join(", ")).to_string()));
    let same = table.about.iter().map(|(name, value)| (name.as_str(), Text(value).to_string()));
    let expected: usize = table.axes.iter().map(|axis| axis.values.len()).product();
    let done = match expected.saturating_sub(table.rows.len()) {
        0 => format!("All {} are finished.", plural(expected as u64, "point", "points")),
        missing => format!(
            "<b>{} of {} are not finished</b>: they are empty in the charts.",
            count(missing as u64),
            plural(expected as u64, "point", "points")
        ),
    };
    let varied: String = axes.map(row).collect();
    let same: String = same.map(row).collect();
    let same =
        if same.is_empty() { same } else { format!("<h3>The same at all points</h3>\n<dl>{same}</dl>\n") };
    format!("<p>{done}</p>\n<dl>{varied}</dl>\n{same}")
}

/// A note about averages if seeds were varied.
fn averaged(seeds: Option<usize>) -> String {
    let many = seeds.map(|seeds| plural(seeds as u64, "run", "runs"));
    many.map_or(String::new(), |many| {
        format!("<p>Every value is the mean of {many}, one for each seed; the table has each of them.</p>\n")
    })
}

/// Line charts; durations share one chart.
fn over_one(table: &SweepTable, figures: &[usize]) -> String {
    let mut units: Vec<(FigureUnit, Vec<usize>)> = Vec::new();
    for &figure in figures {
        let unit = FigureUnit::of(&table.figures[figure]);
        match units.iter_mut().find(|(known, _)| *known == unit && unit == FigureUnit::Ns) {
            Some((_, members)) => members.push(figure),
            None => units.push((unit, vec![figure])),
        }
    }
    let axis = &table.axes[0];
    let chart = |(unit, members): &(FigureUnit, Vec<usize>)| {
        let values = |&figure: &usize| {
            let at = |place| table.value(&[place], figure);
            (table.figures[figure].as_str(), (0..axis.values.len()).map(at).collect())
        };
        let figures = members.iter().map(values).collect();
        lines::chart(&LineChart { unit: *unit, x: (&axis.name, &axis.values), figures })
    };
    format!("<div class=\"pair\">\n{}</div>\n", units.iter().map(chart).collect::<String>())
}

/// Maps side by side.
fn multiples(maps: &str) -> String {
    format!("<div class=\"multiples\">\n{maps}</div>\n")
}

/// The two axes with the most values, and the others.
fn placed(table: &SweepTable) -> (usize, usize, Vec<usize>) {
    let mut order: Vec<usize> = (0..table.axes.len()).collect();
    order.sort_by_key(|&axis| std::cmp::Reverse(table.axes[axis].values.len()));
    let mut others = order[2..].to_vec();
    others.sort_unstable();
    (order[0], order[1], others)
}

/// A map of one figure.
fn over_two(table: &SweepTable, figure: usize) -> String {
    map(table, figure, &vec![0; table.axes.len()], &table.figures[figure])
}

/// A map of one figure for each combination of values of the other axes.
fn over_more(table: &SweepTable, figure: usize) -> String {
    let (.., others) = placed(table);
    let choices = combinations(&table.axes, &others);
    let maps: String = choices
        .iter()
        .take(MAX_MAPS)
        .map(|choice| {
            let place = |&axis: &usize| {
                format!("{} {}", table.axes[axis].name, table.axes[axis].values[choice[axis]])
            };
            map(table, figure, choice, &others.iter().map(place).collect::<Vec<_>>().join(", "))
        })
        .collect();
    let more = match choices.len().saturating_sub(MAX_MAPS) {
        0 => String::new(),
        more => format!("<p>{} more combinations are in the table.</p>\n", count(more as u64)),
    };
    format!("<h3>{}</h3>\n{}{more}", Text(&table.figures[figure]), multiples(&maps))
}

/// The map of a figure for given values of the other axes. All maps of a figure share a colour scale.
fn map(table: &SweepTable, figure: usize, choice: &[usize], title: &str) -> String {
    let (x, y, _) = placed(table);
    let at = |x_value, y_value| {
        let mut point = choice.to_vec();
        (point[x], point[y]) = (x_value, y_value);
        table.value(&point, figure)
    };
    let all = || table.rows.iter().filter_map(|row| row.figures.get(figure).copied().flatten());
    let (columns, rows) = (table.axes[x].values.len(), table.axes[y].values.len());
    heat::chart(&HeatMap {
        title,
        x: (&table.axes[x].name, &table.axes[x].values),
        y: (&table.axes[y].name, &table.axes[y].values),
        cells: (0..rows).map(|row| (0..columns).map(|column| at(column, row)).collect()).collect(),
        unit: FigureUnit::of(&table.figures[figure]),
        range: (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max)),
    })
}

/// Every combination of values of `axes`, with the other axes at their first values.
fn combinations(all: &[Axis], axes: &[usize]) -> Vec<Vec<usize>> {
    let mut points = vec![vec![0; all.len()]];
    for &axis in axes {
        points = points
            .into_iter()
            .flat_map(|point| {
                (0..all[axis].values.len()).map(move |value| {
                    let mut point = point.clone();
                    point[axis] = value;
                    point
                })
            })
            .collect();
    }
    points
}
