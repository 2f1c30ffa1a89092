//! The low bits of a word: the one place where a conversion is meant to drop bits. And the one that drops none on a machine
//! of 64 bits, [`index`].
//!
//! Registers, descriptors and table entries pack fields into wider words. Shifted down, such a field is the low part
//! of a word whose high part belongs to other fields.

/// Bits 7:0 of `word`.
#[expect(clippy::cast_possible_truncation, reason = "dropping the high bits is its purpose")]
pub const fn low_u8(word: u64) -> u8 {
    word as u8
}

/// Bits 15:0 of `word`.
#[expect(clippy::cast_possible_truncation, reason = "dropping the high bits is its purpose")]
pub const fn low_u16(word: u64) -> u16 {
    word as u16
}

/// Bits 31:0 of `word`.
#[expect(clippy::cast_possible_truncation, reason = "dropping the high bits is its purpose")]
pub const fn low_u32(word: u64) -> u32 {
    word as u32
}

/// Bits 63:32 of `word`.
pub const fn high_u32(word: u64) -> u32 {
    low_u32(word >> 32)
}

/// `number` as an index or a length in memory; at most [`usize::MAX`], which no slice has.
pub fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_takes_its_part() {
        let word = 0x1122_3344_5566_7788;
        assert_eq!((low_u8(word), low_u16(word)), (0x88, 0x7788));
        assert_eq!((low_u32(word), high_u32(word)), (0x5566_7788, 0x1122_3344));
    }
}
