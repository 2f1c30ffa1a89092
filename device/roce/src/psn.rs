use std::fmt;

/// Number of bits of a packet sequence number.
const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;

/// A packet sequence number: 24 bits that wrap around (IBTA volume 1, §9.7.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Psn(u32);

impl Psn {
    /// The low 24 bits of `value`.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value & MASK)
    }

    /// As a number below 2^24.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The one `packets` later.
    #[must_use]
    pub const fn after(self, packets: u32) -> Self {
        Self::new(self.0.wrapping_add(packets))
    }

    /// How many packets this one comes after `other`: -2^23 to 2^23 - 1, negative if it comes before.
    #[must_use]
    #[expect(clippy::cast_possible_wrap, reason = "the sign is that of the 24-bit difference")]
    pub const fn distance_from(self, other: Self) -> i32 {
        (self.0.wrapping_sub(other.0) << (32 - BITS)) as i32 >> (32 - BITS)
    }

    /// Whether this is one of the `packets` numbers from `first` on.
    #[must_use]
    pub const fn is_within(self, first: Self, packets: u32) -> bool {
        self.0.wrapping_sub(first.0) & MASK < packets
    }
}

impl fmt::Debug for Psn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

impl fmt::Display for Psn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_at_24_bits() {
        assert_eq!(Psn::new(0xff_ffff).after(1), Psn::new(0));
        assert_eq!(Psn::new(0x0100_0005), Psn::new(5));
    }

    #[test]
    fn distances_have_the_sign_of_the_24_bit_difference() {
        let distance = |a, b| Psn::new(a).distance_from(Psn::new(b));
        assert_eq!((distance(2, 0xff_fffe), distance(0xff_fffe, 2)), (4, -4));
        assert_eq!((distance(0x7f_ffff, 0), distance(0x80_0000, 0)), (0x7f_ffff, -0x80_0000));
        assert_eq!(distance(7, 7), 0);
    }

    #[test]
    fn a_range_may_wrap() {
        let first = Psn::new(0xff_fffe);
        let inside: Vec<_> = (0..6).map(|after| first.after(after).is_within(first, 4)).collect();
        assert_eq!(inside, [true, true, true, true, false, false]);
        assert!(!first.after(MASK).is_within(first, 4));
    }
}
