//! Chance that a seed repeats.

use crate::units::Rate;

/// A sequence of random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Chance {
    /// The sequence number `stream` of this seed. Sequences of different numbers have nothing to do with each other.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut first = Self(seed);
        let seed = first.next();
        Self(Self(seed ^ stream.wrapping_mul(STEP)).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The upper half of the product is below the bound, so nothing is cut off.
        let high = (u128::from(self.next()) * u128::from(bound)) >> 64;
        u64::try_from(high).unwrap_or(0)
    }

    /// Whether something of this rate happens now. Draws a number in any case: later draws do not depend on the rate.
    pub(crate) fn happens(&mut self, rate: Rate) -> bool {
        self.below(Rate::ALWAYS.parts().into()) < u64::from(rate.parts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_met() {
        let rate: Rate = "10%".parse().unwrap();
        let mut chance = Chance::new(1, 0);
        let count = (0..100_000).filter(|_| chance.happens(rate)).count();
        assert!((9_700..10_300).contains(&count), "{count}");
        assert!((0..1000).all(|_| chance.happens(Rate::ALWAYS) && !chance.happens(Rate::NEVER)));
    }

    #[test]
    fn streams_and_seeds_differ() {
        let draw = |seed, stream| Chance::new(seed, stream).next();
        let mut draws: Vec<_> =
            (0..8).flat_map(|seed| (0..8).map(move |stream| draw(seed, stream))).collect();
        draws.sort_unstable();
        draws.dedup();
        assert_eq!(draws.len(), 64);
    }
}
