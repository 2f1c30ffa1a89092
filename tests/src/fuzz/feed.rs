//! Bytes as a sequence of choices.

/// The bytes of an input, taken from the front. Once they are used up every choice is zero, so that an input can be
/// cut anywhere.
pub struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    /// All of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all bytes are used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A number of 16 bits.
    pub fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number of 64 bits, all of them from the input.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// A number below `end`, which is at most 256; zero if `end` is zero.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()).checked_rem(end).unwrap_or(0)
    }

    /// One of `choices`, which are at most 256.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Up to `most` bytes, at most 255: their number first.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = self.below(most + 1).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A number as devices find it in registers and tables: small, a page's address with flags, one bit, nearly all ones, or
    /// anything. Its first byte says which.
    pub fn word(&mut self) -> u64 {
        let kind = self.byte();
        let low = u64::from(kind & 0x1f);
        match kind >> 5 {
            0 => low,
            1 => u64::from(self.byte()),
            2 => u64::from(self.half()),
            3 => u64::from(self.half()) << 16 | u64::from(self.half()),
            4 | 5 => u64::from(self.half()) << 12 | low,
            6 if low < 16 => 1 << (self.byte() & 63),
            6 => !u64::from(self.byte()),
            _ => self.long(),
        }
    }

    /// The low half of such a number.
    pub fn word32(&mut self) -> u32 {
        refault_bus::bits::low_u32(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_ends_in_zeroes() {
        let mut feed = Feed::new(&[3, 0x85, 1, 2]);
        assert_eq!((feed.below(2), feed.word()), (1, 0x0020_1005));
        assert!(feed.is_empty());
        assert_eq!((feed.word(), feed.long(), feed.bytes(8)), (0, 0, &[][..]));
    }
}
