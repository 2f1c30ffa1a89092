//! Durations and sizes in files: a string of a number and a unit.

/// Units of time, in nanoseconds.
const TIMES: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];

/// Units of size, in bytes.
const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("K", 1 << 10),
    ("KiB", 1 << 10),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
];

/// The remedy in error messages about durations.
pub const DURATION_HELP: &str = "write a number and ns, us, ms or s, such as \"220 us\" or \"1.5 ms\"";

/// The remedy in error messages about sizes.
pub const SIZE_HELP: &str =
    "write a number and B, K, M or G (or KiB, MiB, GiB), such as \"4K\" or \"64 MiB\"";

/// Parses a duration such as `"1.5 ms"` into nanoseconds.
pub fn duration(text: &str) -> Option<f64> {
    let (number, unit) = split(text)?;
    let scale = TIMES.iter().find(|(name, _)| *name == unit)?.1;
    Some(number * scale)
}

/// Parses a size such as `"64 MiB"` into bytes; `None` if it is not a whole number of bytes.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes = number * SIZES.iter().find(|(name, _)| *name == unit)?.1 as f64;
    // Above 9e15 an f64 no longer holds every integer.
    (bytes.fract() == 0.0 && bytes.abs() < 9e15 && bytes >= 0.0).then(|| saturated(bytes))
}

/// The integer part of `number`; zero for negative numbers and NaN, and at most [`u64::MAX`].
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as documented")]
pub(crate) fn saturated(number: f64) -> u64 {
    number as u64
}

/// Formats nanoseconds in the largest unit that needs no fraction: `220 us`.
pub fn show_duration(ns: u64) -> String {
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)];
    let fits = units.into_iter().find(|(_, scale)| ns > 0 && ns.is_multiple_of(*scale));
    fits.map_or_else(|| format!("{ns} ns"), |(unit, scale)| format!("{} {unit}", ns / scale))
}

/// Formats bytes in the largest unit that needs no fraction: `64 MiB`.
pub fn show_size(bytes: u64) -> String {
    let fits = [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    fits.map_or_else(|| format!("{bytes} B"), |(unit, shift)| format!("{} {unit}", bytes >> shift))
}

/// Splits a number from its unit. No exponents and no infinities: people do not write those.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '_'))?;
    let number = text[..end].replace('_', "").parse().ok()?;
    Some((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        let read = ["220 us", "1.5ms", " 0 ns ", "10 s", "1_000 us", "-3 us"].map(duration);
        let expected = [220_000.0, 1_500_000.0, 0.0, 1e10, 1e6, -3000.0];
        assert_eq!(read, expected.map(Some));
        for wrong in ["", "220", "us", "220 µs", "1 minute", "1.2.3 us", "220 US", "1e3 us", "nan us"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_size_is_whole_bytes_in_powers_of_two() {
        let read = ["4K", "4 KiB", "64 MiB", "1G", "512 B", "1.5 MiB"].map(size);
        assert_eq!(read, [4096, 4096, 64 << 20, 1 << 30, 512, 3 << 19].map(Some));
        for wrong in ["4", "4 KB", "-4K", "0.3 B", "", "K", "9999999999 GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ns in 0u64..1 << 42, digits in 0u32..12) {
            let ns = ns / 10u64.pow(digits) * 10u64.pow(digits);
            prop_assert_eq!(duration(&show_duration(ns)).map(|read| read.round() as u64), Some(ns));
            prop_assert_eq!(size(&show_size(ns)), Some(ns));
        }
    }
}
