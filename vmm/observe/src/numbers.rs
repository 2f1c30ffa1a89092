//! Integers out of floating-point figures: the one place that casts them.
//!
//! All drop the fraction, turn NaN into zero, and give the nearest bound to what lies beyond.

/// The integer part of a figure that is not negative: zero for negative ones.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as documented")]
pub const fn whole(figure: f64) -> u64 {
    figure as u64
}

/// The integer part of a figure with a sign.
#[expect(clippy::cast_possible_truncation, reason = "as documented")]
pub const fn integer(figure: f64) -> i128 {
    figure as i128
}

/// The integer part of a power of ten's exponent, or another small figure.
#[expect(clippy::cast_possible_truncation, reason = "as documented")]
pub const fn exponent(figure: f64) -> i32 {
    figure as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_dropped_and_bounds_hold() {
        assert_eq!([2.9, -2.9, f64::NAN, f64::INFINITY].map(whole), [2, 0, 0, u64::MAX]);
        assert_eq!([2.9, -2.9, f64::NAN].map(integer), [2, -2, 0]);
        assert_eq!([-2.9, 1e12, f64::NEG_INFINITY].map(exponent), [-2, i32::MAX, i32::MIN]);
    }
}
