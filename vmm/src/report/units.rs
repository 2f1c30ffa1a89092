//! Numbers as people read them: three significant digits and a unit.

/// A duration: `740 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`.
pub(super) fn duration(ns: u64) -> String {
    match ns {
        0 => "0".into(),
        1..1_000 => format!("{ns}\u{a0}ns"),
        _ => scaled(ns as f64, 1000.0, &["ns", "µs", "ms", "s"]),
    }
}

/// A duration in seconds: `8.25 s`, `2 min 31 s`.
pub(super) fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    if whole < 100 {
        return duration((seconds.max(0.0) * 1e9) as u64);
    }
    format!("{}\u{a0}min {}\u{a0}s", whole / 60, whole % 60)
}

/// An amount of data: `512 B`, `64.0 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}\u{a0}B"),
        _ => scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
    }
}

/// A rate of data; a dash if no time passed.
pub(super) fn bytes_per_second(amount: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return "–".into();
    }
    format!("{}/s", bytes((amount as f64 / seconds) as u64))
}

/// A count, in groups of three digits: `1 234 567`.
pub(super) fn count(number: u64) -> String {
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
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part == 0 {
        return "0\u{a0}%".into();
    }
    match 100.0 * part as f64 / whole as f64 {
        tiny if tiny < 0.1 => "<\u{a0}0.1\u{a0}%".into(),
        small if small < 9.95 => format!("{small:.1}\u{a0}%"),
        share => format!("{share:.0}\u{a0}%"),
    }
}

/// `one fault`, `7 faults`.
pub(super) fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{}\u{a0}{}", count(number), if number == 1 { one } else { many })
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
    fn small_shares_are_not_nothing() {
        assert_eq!(percent(1, 1_000_000), "<\u{a0}0.1\u{a0}%");
        assert_eq!((percent(0, 0), percent(1, 3)), ("0\u{a0}%".into(), "33\u{a0}%".into()));
    }
}
