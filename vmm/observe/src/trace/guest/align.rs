//! The guest's clock against the recorder's.
//!
//! What is looked for is a straight line: how far the recorder's clock is ahead, by the guest's time. Each pair of
//! times of which one caused the other lies on a known side of it; so the lines that are possible are a convex polygon
//! in the plane of offset and drift, and half-planes cut it smaller. Nothing is assumed but that both clocks run
//! evenly, and that nothing happens before its cause. If nothing is left of the polygon, one of the two is wrong.

/// Most that the clocks' rates may differ.
const DRIFT: f64 = 1e-3;
/// Vertices that differ by less, in nanoseconds, are one: what 64-bit floats leave of these numbers.
const SAME: f64 = 1e-3;

/// Something that is known of the two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// At this time of the guest, the recorder's clock showed no less than that.
    AtLeast(u64, u64),
    /// No more.
    AtMost(u64, u64),
}

/// The lines that are possible, around a guest's time and an offset.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// The guest's time at which offsets are told.
    middle: u64,
    /// Half of the time that the line is for, in nanoseconds.
    half: f64,
    /// What all offsets are told from.
    base: i128,
    /// Corners: offset in the middle, and what is added up to the end.
    corners: Vec<(f64, f64)>,
}

/// One line: how to tell the recorder's time from the guest's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    middle: u64,
    half: f64,
    base: i128,
    offset: f64,
    rise: f64,
}

impl Lines {
    /// All lines over a span of the guest's time that pass at most `far` nanoseconds from a pair of times.
    pub(super) fn near(span: (u64, u64), pair: (u64, u64), far: f64) -> Self {
        let half = (span.1.saturating_sub(span.0) / 2).max(1) as f64;
        let (middle, base) = (span.0.midpoint(span.1), i128::from(pair.1) - i128::from(pair.0));
        let rise = DRIFT * half;
        let far = far + rise;
        Self { middle, half, base, corners: vec![(-far, -rise), (far, -rise), (far, rise), (-far, rise)] }
    }

    /// Those of them that agree with what is known.
    pub(super) fn with(mut self, known: impl IntoIterator<Item = Known>) -> Self {
        for fact in known {
            if self.corners.is_empty() {
                break;
            }
            self.cut(fact);
        }
        self
    }

    /// The one in their middle, if there is any.
    pub(super) fn center(&self) -> Option<Line> {
        let count = self.corners.len() as f64;
        if self.corners.is_empty() {
            return None;
        }
        let sum = |part: fn(&(f64, f64)) -> f64| self.corners.iter().map(part).sum::<f64>();
        let (offset, rise) = (sum(|corner| corner.0) / count, sum(|corner| corner.1) / count);
        Some(Line { middle: self.middle, half: self.half, base: self.base, offset, rise })
    }

    /// By how much the center may be wrong, at worst, anywhere in the span: nanoseconds.
    pub(super) fn uncertainty(&self) -> Option<f64> {
        let center = self.center()?;
        let away = |corner: &(f64, f64), side: f64| {
            (corner.0 - center.offset + side * (corner.1 - center.rise)).abs()
        };
        let both = self.corners.iter().flat_map(|corner| [away(corner, 1.0), away(corner, -1.0)]);
        Some(both.fold(0.0, f64::max))
    }

    /// Offsets that are possible in the middle of the span, in nanoseconds.
    pub(super) fn offsets_ns(&self) -> Option<(i64, i64)> {
        let all = || self.corners.iter().map(|corner| corner.0);
        let whole = |offset: f64| i64::try_from(self.base + offset as i128).unwrap_or(i64::MAX);
        let (low, high) = (all().reduce(f64::min)?, all().reduce(f64::max)?);
        Some((whole(low.floor()), whole(high.ceil())))
    }

    /// Cuts away what contradicts a fact (Sutherland and Hodgman).
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

impl Line {
    /// The recorder's time at a time of the guest; zero if that is before its start.
    pub(super) fn recorder(&self, guest: u64) -> u64 {
        let at = (i128::from(guest) - i128::from(self.middle)) as f64 / self.half;
        let offset = self.base + (self.offset + at * self.rise).round() as i128;
        u64::try_from(i128::from(guest) + offset).unwrap_or(0)
    }

    /// How far the recorder is ahead in the middle of the span.
    pub(super) fn offset_ns(&self) -> i64 {
        i64::try_from(self.base + self.offset.round() as i128).unwrap_or(i64::MAX)
    }

    /// By how much it runs faster, in parts of 1,000,000,000.
    pub(super) fn drift_ppb(&self) -> i64 {
        (1e9 * self.rise / self.half) as i64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A guest's clock behind the recorder's, and slower.
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

    fn lines(known: &[Known]) -> Lines {
        let span = (1_000_000_000, 2_000_000_000);
        Lines::near(span, (0, 77_000_000), 1e9).with(known.iter().copied())
    }

    #[test]
    fn offset_and_drift_are_found_within_what_is_promised() {
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
    fn an_answer_before_its_question_leaves_no_line() {
        let mut known = facts(0.0, &[(1000, 1000); 10]);
        known.push(Known::AtMost(1_045_000_000, recorder(1_045_000_000, 0.0) - 10_000));
        assert_eq!(lines(&known).center(), None);
        assert_eq!(lines(&known).uncertainty(), None);
    }

    #[test]
    fn without_any_pair_all_lines_are_possible() {
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
