//! Formats numbers for people: three significant digits and a unit.

use crate::numbers::whole;

/// A duration: `740 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`.
pub fn duration(ns: u64) -> String {
    match ns {
        0 => "0".into(),
        1..1_000 => format!("{ns}\u{a0}ns"),
        _ => scaled(ns as f64, 1000.0, &["ns", "µs", "ms", "s"]),
    }
}

/// A duration in seconds: `8.25 s`, `2 min 31 s`.
pub fn seconds(seconds: f64) -> String {
    let rounded = whole(seconds.round());
    if rounded < 100 {
        return duration(whole(seconds * 1e9));
    }
    format!("{}\u{a0}min {}\u{a0}s", rounded / 60, rounded % 60)
}

/// An amount of data: `512 B`, `64.0 MiB`.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}\u{a0}B"),
        _ => scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
    }
}

/// A data rate: `1.20 GiB/s`; a dash if no time passed.
pub fn bytes_per_second(amount: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return "–".into();
    }
    format!("{}/s", bytes(whole(amount as f64 / seconds)))
}

/// A count, in groups of three digits: `1 234 567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// A share: `37 %`, `0.4 %`, `< 0.1 %`.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part == 0 {
        return "0\u{a0}%".into();
    }
    match 100.0 * part as f64 / whole as f64 {
        tiny if tiny < 0.1 => "<\u{a0}0.1\u{a0}%".into(),
        small if small < 9.95 => format!("{small:.1}\u{a0}%"),
        share => format!("{share:.0}\u{a0}%"),
    }
}

/// As [`percent`], for sums that exceed 64 bits.
pub fn percent_wide(part: u128, whole: u128) -> String {
    let shift = (128 - whole.leading_zeros()).saturating_sub(60);
    let narrow = |sum: u128| u64::try_from(sum >> shift).unwrap_or(u64::MAX);
    percent(narrow(part), narrow(whole))
}

/// A round share between 0 and 1: `75 %`, `0.01 %`.
pub fn percent_of(share: f64) -> String {
    let text = format!("{:.6}", share * 100.0);
    format!("{}\u{a0}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A round duration on an axis up to `max`, in the unit that suits the whole axis: `0`, `250 µs`, `1.5 ms`.
pub fn tick(ns: u64, max: u64) -> String {
    let (unit, name) = match max {
        0..2_000 => (1.0, "ns"),
        2_000..2_000_000 => (1e3, "µs"),
        2_000_000..2_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    if ns == 0 { "0".into() } else { format!("{}\u{a0}{name}", ns as f64 / unit) }
}

/// `one fault`, `7 faults`.
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{}\u{a0}{}", count(number), if number == 1 { one } else { many })
}

/// The unit of a figure in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureUnit {
    /// A duration in nanoseconds.
    Ns,
    /// An amount of data.
    Bytes,
    /// A rate per second.
    PerSecond,
    /// Megabytes (10^6 bytes) per second.
    Megabytes,
    /// A share from 0 to 1.
    Share,
    /// A plain number.
    Plain,
}

impl FigureUnit {
    /// The unit that the suffix of a column's name implies.
    pub fn of(column: &str) -> Self {
        const ENDS: [(&str, FigureUnit); 6] = [
            ("_ns", FigureUnit::Ns),
            ("mb_per_s", FigureUnit::Megabytes),
            ("_bytes", FigureUnit::Bytes),
            ("_per_s", FigureUnit::PerSecond),
            ("_share", FigureUnit::Share),
            ("utilisation", FigureUnit::Share),
        ];
        ENDS.iter().find(|(end, _)| column.ends_with(end)).map_or(Self::Plain, |&(_, unit)| unit)
    }

    /// Label of an axis.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ns => "time",
            Self::Bytes => "data",
            Self::PerSecond => "per second",
            Self::Megabytes => "megabytes per second",
            Self::Share => "share",
            Self::Plain => "number",
        }
    }

    /// Formats a value with its unit.
    pub fn format(self, value: f64) -> String {
        match self {
            Self::Ns => duration(whole(value.round())),
            Self::Bytes => bytes(whole(value)),
            Self::Megabytes => format!("{}\u{a0}MB/s", short(value)),
            Self::PerSecond => format!("{}/s", short(value)),
            Self::Share => format!("{}\u{a0}%", short(value * 100.0)),
            Self::Plain => short(value),
        }
    }
}

/// Three significant digits: `0.25`, `12.3`, `4.56 k`, `1.20 M`.
pub fn short(value: f64) -> String {
    match value.abs() {
        1000.0.. => scaled(value, 1000.0, &["", "k", "M", "G", "T"]),
        100.0.. => format!("{value:.0}"),
        _ => {
            let text = format!("{:.*}", if value.abs() < 10.0 { 2 } else { 1 }, value);
            let text = text.trim_end_matches('0').trim_end_matches('.');
            if text == "-0" { "0".into() } else { text.into() }
        }
    }
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = units[0];
    for next in &units[1..] {
        if value < step * 0.9995 {
            break;
        }
        value /= step;
        unit = next;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$}\u{a0}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        let durations = [(0, "0"), (999, "999 ns"), (1000, "1.00 µs"), (12_345, "12.3 µs")];
        let longer = [(999_999, "1.00 ms"), (123_456_789, "123 ms"), (61_000_000_000, "61.0 s")];
        for (ns, text) in durations.into_iter().chain(longer) {
            assert_eq!(duration(ns).replace('\u{a0}', " "), text);
        }
        assert_eq!(bytes(1023), "1023\u{a0}B");
        assert_eq!(bytes(64 << 20), "64.0\u{a0}MiB");
        assert_eq!(bytes(u64::MAX), "16777216\u{a0}TiB");
        assert_eq!(seconds(151.4), "2\u{a0}min 31\u{a0}s");
        assert_eq!(seconds(8.25), "8.25\u{a0}s");
        assert_eq!(bytes_per_second(0, 0.0), "–");
    }

    #[test]
    fn counts_are_grouped_from_the_right() {
        let plain = |number| count(number).replace('\u{202f}', " ");
        assert_eq!(["0", "12", "123", "1 234", "1 234 567"], [0, 12, 123, 1234, 1_234_567].map(plain)[..]);
        assert_eq!(plural(1, "fault", "faults"), "1\u{a0}fault");
    }

    #[test]
    fn ticks_and_shares_have_no_needless_digits() {
        let shares = [1.0, 0.25, 0.1, 0.01, 0.001, 0.0001, 0.000_001, 0.0].map(percent_of);
        let words = ["100 %", "25 %", "10 %", "1 %", "0.1 %", "0.01 %", "0.0001 %", "0 %"];
        assert_eq!(shares.map(|share| share.replace('\u{a0}', " ")), words);
        let ticks =
            [(0, 5_000), (500, 5_000), (2_000, 5_000), (500_000, 2_000_000)].map(|(ns, max)| tick(ns, max));
        assert_eq!(ticks.map(|tick| tick.replace('\u{a0}', " ")), ["0", "0.5 µs", "2 µs", "0.5 ms"]);
    }

    #[test]
    fn the_unit_follows_from_the_columns_name() {
        let said = |column: &str, value| FigureUnit::of(column).format(value).replace('\u{a0}', " ");
        assert_eq!(said("fault_p50_ns", 1234.4), "1.23 µs");
        assert_eq!(said("requests_per_s", 1_234_567.0), "1.23 M/s");
        assert_eq!(said("mb_per_s", 12.5), "12.5 MB/s");
        assert_eq!(said("handler_utilisation", 0.876), "87.6 %");
        assert_eq!([said("faults", 7.0), said("faults", 0.0), said("faults", 9999.0)], ["7", "0", "10.0 k"]);
    }

    #[test]
    fn small_shares_do_not_round_to_zero() {
        assert_eq!(percent(1, 1_000_000), "<\u{a0}0.1\u{a0}%");
        assert_eq!((percent(0, 0), percent(1, 3)), ("0\u{a0}%".into(), "33\u{a0}%".into()));
    }
}
