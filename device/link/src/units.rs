//! Rates, durations, sizes and bandwidths, as text and as numbers.

use std::fmt;
use std::str::FromStr;

/// How often something happens by chance, in parts of 10^9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate(u32);

impl Rate {
    /// It does not happen.
    pub const NEVER: Self = Self(0);
    /// It happens each time.
    pub const ALWAYS: Self = Self(1_000_000_000);

    /// A rate of `parts` in 10^9; above that it is [`Self::ALWAYS`].
    #[must_use]
    pub const fn new(parts: u32) -> Self {
        if parts > Self::ALWAYS.0 { Self::ALWAYS } else { Self(parts) }
    }

    /// Parts of 10^9.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }
}

/// `1%` or `0.05%`. The error says what is expected.
impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "a rate from 0% to 100%, such as 1% or 0.05%";
        let percent = text.strip_suffix('%').ok_or(EXPECTED)?;
        let parts = decimal(percent, 7).and_then(|parts| u32::try_from(parts).ok()).ok_or(EXPECTED)?;
        if parts > Self::ALWAYS.0 { Err(EXPECTED) } else { Ok(Self(parts)) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000_000, self.0 % 10_000_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let digits = format!("{rest:07}");
        write!(f, "{whole}.{}%", digits.trim_end_matches('0'))
    }
}

const TIMES: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// Nanoseconds of `10us`, `1.5ms`, `2s`.
pub(crate) fn duration(text: &str) -> Option<u64> {
    let at = text.find(|character: char| character.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let &(_, scale) = TIMES.iter().find(|(name, _)| *name == unit)?;
    scaled(number, scale)
}

/// The same back, in the largest unit in which it is a whole number.
pub(crate) fn duration_text(ns: u64) -> String {
    let fits = TIMES.iter().rev().find(|(_, scale)| ns.is_multiple_of(*scale) && ns > 0);
    let (unit, scale) = fits.unwrap_or(&TIMES[0]);
    format!("{}{unit}", ns / scale)
}

const BANDWIDTHS: [(&str, u64); 4] = [("", 1), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
const SIZES: [(&str, u64); 3] = [("", 1), ("K", 1 << 10), ("M", 1 << 20)];

/// Bits in a second of `10G`, `100M`, `2.5G`.
pub(crate) fn bandwidth(text: &str) -> Option<u64> {
    suffixed(text, &BANDWIDTHS).filter(|&bits| bits > 0)
}

/// Bytes of `1M`, `64K`, `1500`.
pub(crate) fn size(text: &str) -> Option<u64> {
    suffixed(text, &SIZES)
}

pub(crate) fn bandwidth_text(bits: u64) -> String {
    suffixed_text(bits, &BANDWIDTHS)
}

pub(crate) fn size_text(bytes: u64) -> String {
    suffixed_text(bytes, &SIZES)
}

fn suffixed(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let at = text.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let &(_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    scaled(number, scale)
}

fn suffixed_text(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, scale)| value.is_multiple_of(*scale) && value > 0);
    let (unit, scale) = fits.unwrap_or(&units[0]);
    format!("{}{unit}", value / scale)
}

/// `number`, which may have a fraction, times `scale`; what is below one unit is cut off.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let billionths = u128::from(decimal(number, 9)?);
    u64::try_from(billionths * u128::from(scale) / 1_000_000_000).ok()
}

/// A decimal number times 10^`digits`; digits after that many places are an error.
fn decimal(text: &str, digits: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    let fraction = fraction.unwrap_or("0");
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || fraction.len() > digits {
        return None;
    }
    format!("{whole}{fraction:0<digits$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_percentages() {
        let parts = ["0%", "1%", "0.05%", "100%", "0.0000001%"].map(|text| text.parse().map(Rate::parts));
        assert_eq!(parts, [0, 10_000_000, 500_000, 1_000_000_000, 1].map(Ok));
        for wrong in
            ["", "%", "1", "100.1%", "-1%", "1.%", ".5%", "1e3%", "0.00000001%", "99999999999999999999%"]
        {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for parts in [0, 1, 10, 500_000, 12_345_678, 1_000_000_000] {
            let rate = Rate::new(parts);
            assert_eq!(rate.to_string().parse(), Ok(rate), "{rate}");
        }
        for number in [0, 1, 999, 1000, 1024, 1_500_000, 3 << 20, 7_000_000_000] {
            assert_eq!(duration(&duration_text(number)), Some(number));
            assert_eq!(size(&size_text(number)), Some(number));
            assert_eq!(bandwidth(&bandwidth_text(number)), Some(number).filter(|&bits| bits > 0));
        }
    }

    #[test]
    fn times_and_bandwidths_have_units() {
        assert_eq!(
            ["10us", "1.5ms", "2s", "7ns"].map(duration),
            [10_000, 1_500_000, 2_000_000_000, 7].map(Some)
        );
        assert_eq!(["2.5G", "100M", "9"].map(bandwidth), [2_500_000_000, 100_000_000, 9].map(Some));
        for wrong in ["10", "us", "1m", "-1s", "99999999999s", "1 s"] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
        assert_eq!([bandwidth("0"), bandwidth("1T"), size("1G"), size("")], [None; 4]);
    }
}
