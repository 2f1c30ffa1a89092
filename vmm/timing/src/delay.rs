//! Reads and writes a [`Delay`] as TOML.

use super::LONGEST_NS;
use super::fields::{duration, fractional_duration, number};
use super::text::TextError;
use super::timing::Delay;
use super::tree::{Node, TomlTable, Value};
use super::units::show_duration;

/// The remedy in error messages: every form of a distribution.
const HELP: &str = "write \"220 us\", { uniform = [\"1 us\", \"3 us\"] }, { exponential = \"50 us\" }, \
    { log_normal = \"215 us\", sigma = 0.2 } or { table = [[0, \"1 us\"], [0.5, \"2 us\"], [1, \"9 us\"]] }";

/// Largest sigma. At 6 the 99th percentile is already a million times the median.
const MAX_SIGMA: f64 = 6.0;

/// Reads the value of the step `name`.
///
/// # Errors
/// `node` is not a distribution, or one of its parameters is out of range.
pub fn read(name: &str, node: &Node) -> Result<Delay, TextError> {
    let Value::Table(table) = &node.value else { return duration(name, node).map(Delay::Constant) };
    let wrong = |what: &str| node.location.error(format!("`{name}` {what}"), HELP);
    let mut kinds = table.entries.iter().filter(|(key, _)| *key != "sigma");
    let (Some((kind, entry)), None) = (kinds.next(), kinds.next()) else {
        return Err(wrong("does not name exactly one distribution"));
    };
    if let (Some(sigma), false) = (table.get("sigma"), kind == "log_normal") {
        let what = format!("`{name}` has a sigma, but is not log-normal");
        return Err(sigma.key.error(what, HELP));
    }
    let inner = format!("{name}.{kind}");
    match kind.as_str() {
        "uniform" => uniform(&inner, &entry.node),
        "exponential" => Ok(Delay::Exponential { mean: fractional_duration(&inner, &entry.node)? }),
        "log_normal" => log_normal(name, table, &entry.node),
        "table" => quantiles(&inner, &entry.node),
        _ => Err(entry.key.error(format!("`{name}` has no distribution called `{kind}`"), HELP)),
    }
}

fn uniform(name: &str, node: &Node) -> Result<Delay, TextError> {
    let Value::List(items) = &node.value else {
        return Err(node.location.error(format!("`{name}` is {}, not a pair", node.value.kind()), HELP));
    };
    let [low, high] = items.as_slice() else {
        return Err(node.location.error(format!("`{name}` has {} durations, not two", items.len()), HELP));
    };
    let (low, high, second) = (duration(name, low)?, duration(name, high)?, &high.location);
    if low > high {
        return Err(
            second.error(format!("`{name}` ends before it starts"), "write the shorter duration first")
        );
    }
    Ok(Delay::Uniform { low, high })
}

fn log_normal(name: &str, table: &TomlTable, median: &Node) -> Result<Delay, TextError> {
    let Some(sigma) = table.get("sigma") else {
        return Err(median.location.error(format!("`{name}` is log-normal without a sigma"), HELP));
    };
    let sigma = number(&format!("{name}.sigma"), &sigma.node, 0.0..=MAX_SIGMA)?;
    Ok(Delay::LogNormal { median: fractional_duration(&format!("{name}.log_normal"), median)?, sigma })
}

fn quantiles(name: &str, node: &Node) -> Result<Delay, TextError> {
    let Value::List(rows) = &node.value else {
        return Err(node.location.error(format!("`{name}` is {}, not a list", node.value.kind()), HELP));
    };
    let mut points: Vec<(f64, u64)> = Vec::with_capacity(rows.len());
    for row in rows {
        let point = quantile(name, row)?;
        if points.last().is_some_and(|last| point.0 < last.0 || point.1 < last.1) {
            let what = format!("`{name}` does not ascend here");
            return Err(row.location.error(what, "order shares and durations from low to high"));
        }
        points.push(point);
    }
    let ends = (points.first().map(|point| point.0), points.last().map(|point| point.0));
    if points.len() < 2 || ends != (Some(0.0), Some(1.0)) {
        let what = format!("`{name}` does not reach from share 0 to share 1");
        return Err(node
            .location
            .error(what, "write a row for 0 (the shortest) and one for 1 (the longest)"));
    }
    Ok(Delay::Table(points))
}

fn quantile(name: &str, row: &Node) -> Result<(f64, u64), TextError> {
    match &row.value {
        Value::List(pair) => match pair.as_slice() {
            [share, ns] => Ok((number(name, share, 0.0..=1.0)?, duration(name, ns)?)),
            _ => Err(row.location.error(format!("`{name}` has a row that is not a pair"), HELP)),
        },
        _ => Err(row.location.error(format!("`{name}` has a row that is not a pair"), HELP)),
    }
}

/// Formats a delay as TOML that [`read`] reads back.
pub fn write(delay: &Delay) -> String {
    match delay {
        Delay::Constant(ns) => quoted(*ns),
        Delay::Uniform { low, high } => format!("{{ uniform = [{}, {}] }}", quoted(*low), quoted(*high)),
        Delay::Exponential { mean } => format!("{{ exponential = \"{mean} ns\" }}"),
        Delay::LogNormal { median, sigma } => format!("{{ log_normal = \"{median} ns\", sigma = {sigma} }}"),
        Delay::Table(points) => {
            let rows = points.iter().map(|(share, ns)| format!("[{share}, {}]", quoted(*ns)));
            format!("{{ table = [{}] }}", rows.collect::<Vec<_>>().join(", "))
        }
    }
}

/// As [`write()`], without quotes.
impl std::fmt::Display for Delay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&write(self).replace('"', ""))
    }
}

fn quoted(ns: u64) -> String {
    format!("\"{}\"", show_duration(ns.min(LONGEST_NS)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree;

    fn parsed(value: &str) -> Result<Delay, TextError> {
        let root = tree::parse("x.toml", &format!("step = {value}\n"))?;
        let Value::Table(table) = &root.value else { panic!("a file is a table") };
        read("step", &table.get("step").expect("it was written").node)
    }

    #[test]
    fn every_distribution_can_be_written() {
        let cases = [
            ("\"220 us\"", Delay::Constant(220_000)),
            ("{ uniform = [\"1 us\", \"3 us\"] }", Delay::Uniform { low: 1000, high: 3000 }),
            ("{ exponential = \"0.5 us\" }", Delay::Exponential { mean: 500.0 }),
            ("{ log_normal = \"1 ms\", sigma = 1 }", Delay::LogNormal { median: 1e6, sigma: 1.0 }),
            ("{ table = [[0, \"1 us\"], [1.0, \"2 us\"]] }", Delay::Table(vec![(0.0, 1000), (1.0, 2000)])),
        ];
        for (text, delay) in cases {
            assert_eq!(parsed(text), Ok(delay), "{text}");
        }
    }

    #[test]
    fn an_invalid_delay_is_refused_with_a_reason() {
        let cases = [
            ("220", "is an integer, not a duration with a unit"),
            ("\"220\"", "is \"220\", not a duration"),
            ("\"-1 us\"", "which is negative"),
            ("\"2 h\"", "not a duration"),
            ("\"3601 s\"", "longer than an hour"),
            ("\"0.5 ns\"", "finer than the clock"),
            ("{ uniform = [\"3 us\", \"1 us\"] }", "ends before it starts"),
            ("{ uniform = [\"3 us\"] }", "has 1 durations, not two"),
            ("{ normal = \"3 us\" }", "no distribution called `normal`"),
            ("{ log_normal = \"3 us\" }", "without a sigma"),
            ("{ log_normal = \"3 us\", sigma = -1 }", "`step.sigma` is -1, out of range"),
            ("{ exponential = \"3 us\", sigma = 1 }", "has a sigma, but is not log-normal"),
            ("{ exponential = \"3 us\", uniform = [] }", "does not name exactly one distribution"),
            ("{ table = [[0, \"1 us\"], [0.5, \"2 us\"]] }", "does not reach from share 0 to share 1"),
            ("{ table = [[0, \"3 us\"], [1, \"2 us\"]] }", "does not ascend here"),
            ("{ table = [[0, \"3 us\", 1], [1, \"2 us\"]] }", "a row that is not a pair"),
        ];
        for (text, reason) in cases {
            let error = parsed(text).expect_err(text);
            assert!(error.what.contains(reason), "{text}: {error}");
            assert_eq!((error.line, error.file.as_str(), error.remedy.is_empty()), (1, "x.toml", false));
        }
    }

    fn delays() -> impl Strategy<Value = Delay> {
        let ns = 0u64..=LONGEST_NS;
        prop_oneof![
            ns.clone().prop_map(Delay::Constant),
            (ns.clone(), ns.clone()).prop_map(|(a, b)| Delay::Uniform { low: a.min(b), high: a.max(b) }),
            (0.0..1e12).prop_map(|mean| Delay::Exponential { mean }),
            (0.0..1e12, 0.0..MAX_SIGMA).prop_map(|(median, sigma)| Delay::LogNormal { median, sigma }),
            (ns.clone(), ns.clone(), 0.0..=1.0).prop_map(|(a, b, share)| {
                Delay::Table(vec![(0.0, a.min(b)), (share, a.min(b)), (1.0, a.max(b))])
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(delay in delays()) {
            prop_assert_eq!(parsed(&write(&delay)), Ok(delay));
        }
    }
}
