//! Slots that are found by number without a lock and never move; memory grows with the highest number in use.

use std::collections::VecDeque;
use std::sync::OnceLock;

/// Slots of one chunk.
const CHUNK: usize = 256;

/// Slots `0..limit`. A slot exists once [`Self::grow_to`] has reached its chunk.
pub(crate) struct Slab<T> {
    chunks: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Slab<T> {
    /// Room for `limit` slots, none of them allocated yet.
    pub(crate) fn new(limit: u32) -> Self {
        Self { chunks: (0..(limit as usize).div_ceil(CHUNK)).map(|_| OnceLock::new()).collect() }
    }

    /// Slot `index`, if its chunk exists.
    pub(crate) fn find(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    /// Slot `index`, allocated if need be; `None` beyond the limit.
    pub(crate) fn grow_to(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        let chunk = self.chunks.get(index / CHUNK)?;
        chunk.get_or_init(|| (0..CHUNK).map(|_| T::default()).collect()).get(index % CHUNK)
    }

    /// All slots that exist.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().filter_map(OnceLock::get).flatten()
    }
}

/// Free slots that are kept before the first of them is used again. Each one comes back with another variant, so a number
/// comes back after this many times the number of variants.
const RESTING: usize = 1024;

/// Gives out slot numbers together with a variant that differs from the slot's last one, so that a stale
/// number of a destroyed object does not name its successor.
#[derive(Debug)]
pub(crate) struct Numbers {
    limit: u32,
    next: u32,
    variants: u32,
    free: VecDeque<(u32, u32)>,
}

impl Numbers {
    /// Numbers `0..limit`, each in turn with variants `1..=variants`.
    pub(crate) fn new(limit: u32, variants: u32) -> Self {
        Self { limit, next: 0, variants, free: VecDeque::new() }
    }

    /// A free slot and its variant: a fresh slot, until enough have been used; then the one that has been free longest.
    pub(crate) fn take(&mut self) -> Option<(u32, u32)> {
        if self.next < self.limit && self.free.len() < RESTING {
            self.next += 1;
            return Some((self.next - 1, 1));
        }
        self.free.pop_front()
    }

    /// Takes a slot back.
    pub(crate) fn give_back(&mut self, index: u32, variant: u32) {
        self.free.push_back((index, variant % self.variants + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[test]
    fn a_number_comes_back_with_another_variant() {
        let mut numbers = Numbers::new(1, 3);
        for variant in [1, 2, 3, 1] {
            assert_eq!(numbers.take(), Some((0, variant)));
            assert_eq!(numbers.take(), None);
            numbers.give_back(0, variant);
        }
    }

    proptest! {
        /// However objects come and go, a number comes back after at least [`RESTING`] others for each of the variants
        /// but one; or, where there are not as many slots, after as many as were free.
        #[test]
        fn a_number_is_not_given_out_again_soon(
            (limit, most) in prop_oneof![Just((4096, 64)), Just((4096, 3000)), Just((8, 4))],
            destroy in vec(any::<Index>(), 20_000),
        ) {
            const VARIANTS: u32 = 7;
            let apart = RESTING.min((limit - most) as usize) * (VARIANTS as usize - 1);
            let mut numbers = Numbers::new(limit, VARIANTS);
            let (mut live, mut last) = (Vec::new(), HashMap::new());
            for (now, destroy) in destroy.into_iter().enumerate() {
                if live.len() == most as usize {
                    let (index, variant) = live.swap_remove(destroy.index(live.len()));
                    numbers.give_back(index, variant);
                }
                let number = numbers.take().expect("a free slot");
                if let Some(before) = last.insert(number, now) {
                    prop_assert!(now - before >= apart, "{number:?} at {before} and {now}");
                }
                live.push(number);
            }
            prop_assert!(numbers.next as usize <= most as usize + RESTING, "memory for {} objects", numbers.next);
        }
    }

    #[test]
    fn slots_exist_once_grown_to() {
        let slab = Slab::<u32>::new(1000);
        assert_eq!(slab.find(300), None);
        assert_eq!(slab.grow_to(300), Some(&0));
        assert_eq!(slab.find(511), Some(&0));
        assert_eq!((slab.find(0), slab.grow_to(1024)), (None, None));
        assert_eq!(slab.iter().count(), 256);
    }
}
