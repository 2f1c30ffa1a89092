//! Aligns the guest's clock with the recorder's.
//!
//! The result is a straight line: the recorder's lead as a function of the guest's time. Each cause and its effect lie on
//! known sides of that line, so the possible lines form a convex polygon in the plane of offset and drift, which every such
//! pair cuts by a half-plane. The only assumptions are that both clocks run at constant rates, and that no effect precedes
//! its cause. If the polygon becomes empty, one assumption is violated.

use crate::numbers::integer;

/// Largest relative difference of the clocks' rates.
const DRIFT: f64 = 1e-3;
/// Vertices closer than this, in nanoseconds, are merged: the precision of `f64` for these numbers.
const SAME: f64 = 1e-3;

/// A constraint on the two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// At the guest's time (first), the recorder's clock read at least the second.
    AtLeast(u64, u64),
    /// At the guest's time (first), the recorder's clock read at most the second.
    AtMost(u64, u64),
}

/// The possible lines, relative to a guest time and an offset.
#[derive(Clone, Debug)]
pub(super) struct ClockLines {
    /// The guest time to which offsets refer.
    middle: u64,
    /// Half of the covered time span, in nanoseconds.
    half: f64,
    /// The offset to which all others are relative.
    base: i128,
    /// Corners of the polygon: offset in the middle, and its increase up to the end.
    corners: Vec<(f64, f64)>,
}

/// One line: converts the guest's time to the recorder's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ClockLine {
    middle: u64,
    half: f64,
    base: i128,
    offset: f64,
    rise: f64,
}

impl ClockLines {
    /// All lines over a span of guest time that pass within `far` nanoseconds of a pair of times.
    pub(super) fn near(span: (u64, u64), pair: (u64, u64), far: f64) -> Self {
        let half = (span.1.saturating_sub(span.0) / 2).max(1) as f64;
        let (middle, base) = (span.0.midpoint(span.1), i128::from(pair.1) - i128::from(pair.0));
        let rise = DRIFT * half;
        let far = far + rise;
        Self { middle, half, base, corners: vec![(-far, -rise), (far, -rise), (far, rise), (-far, rise)] }
    }

    /// The lines that satisfy further constraints.
    pub(super) fn with(mut self, known: impl IntoIterator<Item = Known>) -> Self {
        for fact in known {
            if self.corners.is_empty() {
                break;
            }
            self.cut(fact);
        }
        self
    }

    /// The central line; `None` if no line is possible.
    pub(super) fn center(&self) -> Option<ClockLine> {
        let count = self.corners.len() as f64;
        if self.corners.is_empty() {
            return None;
        }
        let sum = |part: fn(&(f64, f64)) -> f64| self.corners.iter().map(part).sum::<f64>();
        let (offset, rise) = (sum(|corner| corner.0) / count, sum(|corner| corner.1) / count);
        Some(ClockLine { middle: self.middle, half: self.half, base: self.base, offset, rise })
    }

    /// Worst-case error of the central line anywhere in the span, in nanoseconds.
    pub(super) fn uncertainty(&self) -> Option<f64> {
        let center = self.center()?;
        let away = |corner: &(f64, f64), side: f64| {
            (corner.0 - center.offset + side * (corner.1 - center.rise)).abs()
        };
        let both = self.corners.iter().flat_map(|corner| [away(corner, 1.0), away(corner, -1.0)]);
        Some(both.fold(0.0, f64::max))
    }

    /// The range of offsets in the middle of the span, in nanoseconds.
    pub(super) fn offsets_ns(&self) -> Option<(i64, i64)> {
        let all = || self.corners.iter().map(|corner| corner.0);
        let whole = |offset: f64| i64::try_from(self.base + integer(offset)).unwrap_or(i64::MAX);
        let (low, high) = (all().reduce(f64::min)?, all().reduce(f64::max)?);
        Some((whole(low.floor()), whole(high.ceil())))
    }

    /// Cuts off lines that violate a constraint (Sutherland-Hodgman clipping).
    fn cut(&mut self, fact: Known) {
        let (guest, recorder, sign) = match fact {
            Known::AtLeast(guest, recorder) => (guest, recorder, 1.0),
            Known::AtMost(guest, recorder) => (guest, recorder, -1.0),
        };
        let at = (i128::from(guest) - i128::from(self.middle)) as f64 / self.half;
        let bound = (i128::from(recorder) - i128::from(guest) - self.base) as f64;
        let inside = |corner: &(f64, f64)| sign * (corner.0 + at * corner.1 - bound);
        let mut left: Vec<(f64, f64)> = Vec::with_capacity(self.corners.len() + 1);
        let mut add = |corner: (f64, f64)| {
            let same =
                |other: &(f64, f64)| (other.0 - corner.0).abs() < SAME && (other.1 - corner.1).abs() < SAME;
            if !left.iter().any(same) {
                left.push(corner);
            }
        };
        let next = self.corners.iter().cycle().skip(1);
        for (here, there) in self.corners.iter().zip(next) {
            let (from, to) = (inside(here), inside(there));
            if from >= 0.0 {
                add(*here);
            }
            if (from < 0.0) != (to < 0.0) {
                let part = from / (from - to);
                add((here.0 + part * (there.0 - here.0), here.1 + part * (there.1 - here.1)));
            }
        }
        self.corners = left;
    }
}

impl ClockLine {
    /// Converts a guest time; zero if it is before the recorder's start.
    pub(super) fn recorder(&self, guest: u64) -> u64 {
        let at = (i128::from(guest) - i128::from(self.middle)) as f64 / self.half;
        let offset = self.base + integer((self.offset + at * self.rise).round());
        u64::try_from(i128::from(guest) + offset).unwrap_or(0)
    }

    /// The recorder's lead in the middle of the span, in nanoseconds.
    pub(super) fn offset_ns(&self) -> i64 {
        i64::try_from(self.base + integer(self.offset.round())).unwrap_or(i64::MAX)
    }

    /// How much faster the recorder's clock runs, in parts per billion.
    pub(super) fn drift_ppb(&self) -> i64 {
        i64::try_from(integer(1e9 * self.rise / self.half)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A guest clock behind the recorder's.
    fn recorder(guest: u64, drift: f64) -> u64 {
        (guest as f64 * (1.0 + drift)) as u64 + 77_000_000
    }

    fn facts(drift: f64, delays: &[(u64, u64)]) -> Vec<Known> {
        let at = |index: usize| 1_000_000_000 + 10_000_000 * index as u64;
        let pairs = delays.iter().enumerate().flat_map(|(index, &(before, after))| {
            let (sent, answered) = (recorder(at(index), drift), recorder(at(index) + 50_000, drift));
            [Known::AtLeast(at(index) + before, sent), Known::AtMost(at(index) + 50_000 - after, answered)]
        });
        pairs.collect()
    }

    fn lines(known: &[Known]) -> ClockLines {
        let span = (1_000_000_000, 2_000_000_000);
        ClockLines::near(span, (0, 77_000_000), 1e9).with(known.iter().copied())
    }

    #[test]
    fn offset_and_drift_are_within_the_uncertainty() {
        let delays: Vec<_> =
            (0..100).map(|i| (500 + i * 7919 % 20_000, 300 + i * 104_729 % 30_000)).collect();
        for drift in [0.0, 3e-5, -2e-4] {
            let lines = lines(&facts(drift, &delays));
            let (line, error) = (lines.center().expect("possible"), lines.uncertainty().expect("possible"));
            assert!(error < 20_000.0, "{error}");
            for guest in [1_000_000_000, 1_500_000_000, 2_000_000_000] {
                let off = line.recorder(guest) as f64 - recorder(guest, drift) as f64;
                assert!(off.abs() <= error + 2.0, "{off} of {error} at a drift of {drift}");
            }
            assert!(line.drift_ppb().abs_diff((1e9 * drift) as i64) < 60_000, "{}", line.drift_ppb());
        }
    }

    #[test]
    fn an_effect_before_its_cause_leaves_no_line() {
        let mut known = facts(0.0, &[(1000, 1000); 10]);
        known.push(Known::AtMost(1_045_000_000, recorder(1_045_000_000, 0.0) - 10_000));
        assert_eq!(lines(&known).center(), None);
        assert_eq!(lines(&known).uncertainty(), None);
    }

    #[test]
    fn without_constraints_all_lines_are_possible() {
        assert!(lines(&[]).uncertainty().is_some_and(|error| error >= 1e9));
    }

    proptest! {
        #[test]
        fn the_true_line_is_never_cut_away(
            delays in proptest::collection::vec((5u64..25_000, 5u64..25_000), 1..60), drift in -5e-4..5e-4f64) {
            let lines = lines(&facts(drift, &delays));
            let (line, error) = (lines.center().unwrap(), lines.uncertainty().unwrap());
            for guest in [1_000_000_000u64, 1_300_000_000, 2_000_000_000] {
                let off = line.recorder(guest) as f64 - recorder(guest, drift) as f64;
                prop_assert!(off.abs() <= error + 3.0, "{} of {}", off, error);
            }
        }
    }
}
