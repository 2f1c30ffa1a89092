//! The walk of a radix tree in guest memory: 4 KiB tables of 64-bit words, each of which names a page or a table of the
//! next level.
//!
//! Each word is loaded in one piece and once, so a tree that the driver changes meanwhile yields what it held before or
//! after, word by word. No table is visited for more than one word: one that loops costs as many loads as any other.

use refault_bus::Iova;

use crate::cause::Cause;
use crate::memory::access::AccessError;

/// Words of one table, as log2.
const TABLE_BITS: u32 = 9;

/// Where a tree is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    /// The top table, 4 KiB aligned.
    pub(crate) root: u64,
    /// Tables on the way to a word of the last level.
    pub(crate) levels: u8,
}

/// What a word leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// A table of the next level, 4 KiB aligned.
    Table(u64),
    /// The end of the walk.
    End(T),
}

impl Tree {
    /// Numbers that the tree has words for, as log2.
    pub(crate) fn reach(self) -> u32 {
        TABLE_BITS * u32::from(self.levels)
    }

    /// Follows `index`, the number of a word of the last level, from the top. `load` loads a word; `read` says what it
    /// means, given the levels below its own.
    ///
    /// # Errors
    ///
    /// What `load` and `read` fail with. A word of the last level that names a table is [`Cause::NotMemory`].
    pub(crate) fn walk<T>(
        self,
        index: u64,
        mut load: impl FnMut(Iova) -> Result<u64, AccessError>,
        read: impl Fn(u64, u8) -> Result<Step<T>, Cause>,
    ) -> Result<T, AccessError> {
        let mut table = self.root;
        for level in (0..self.levels).rev() {
            let word = index >> (TABLE_BITS * u32::from(level)) & ((1 << TABLE_BITS) - 1);
            match read(load(Iova(table + word * 8))?, level)? {
                Step::Table(next) => table = next,
                Step::End(found) => return Ok(found),
            }
        }
        Err(AccessError::Denied(Cause::NotMemory))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The end of a walk of `words`, each at its address, and the addresses that were loaded. A word with bit 0 set names a
    /// page, zero is refused, and no other address can be loaded.
    fn walk(words: &[(u64, u64)], levels: u8, index: u64) -> (Result<(u64, u8), AccessError>, Vec<u64>) {
        let words: HashMap<u64, u64> = words.iter().copied().collect();
        let mut loads = Vec::new();
        let load = |at: Iova| {
            loads.push(at.0);
            words.get(&at.0).copied().ok_or(AccessError::Denied(Cause::Blocked))
        };
        let read = |word, level| match word {
            0 => Err(Cause::Bounds),
            word if word & 1 != 0 => Ok(Step::End((word & !1, level))),
            word => Ok(Step::Table(word)),
        };
        (Tree { root: 0x1000, levels }.walk(index, load, read), loads)
    }

    #[test]
    fn each_level_takes_its_nine_bits_of_the_index() {
        let words = [(0x1000 + 5 * 8, 0x2000), (0x2000 + 511 * 8, 0x3000), (0x3000, 0x7001)];
        let (found, loads) = walk(&words, 3, 5 << 18 | 511 << 9);
        assert_eq!(found, Ok((0x7000, 0)));
        assert_eq!(loads, [0x1028, 0x2ff8, 0x3000]);
    }

    #[test]
    fn a_page_ends_the_walk_at_any_level() {
        let (found, loads) = walk(&[(0x1008, 0x20_0001)], 2, 1 << 9 | 3);
        assert_eq!((found, loads.len()), (Ok((0x20_0000, 1)), 1));
    }

    #[test]
    fn what_a_word_is_refused_for_ends_the_walk() {
        assert_eq!(walk(&[(0x1000, 0)], 2, 0).0, Err(AccessError::Denied(Cause::Bounds)));
        assert_eq!(walk(&[(0x1000, 0x9000)], 2, 0).0, Err(AccessError::Denied(Cause::Blocked)));
    }

    #[test]
    fn a_table_that_names_itself_is_walked_once_a_level() {
        for levels in 0..=4 {
            let (found, loads) = walk(&[(0x1000, 0x1000)], levels, 0);
            assert_eq!(found, Err(AccessError::Denied(Cause::NotMemory)));
            assert_eq!(loads.len(), usize::from(levels));
        }
    }
}
