//! Indices of rings, which count freely and wrap.

use crate::cause::Cause;

/// How many entries of a ring of `1 << log` the producer has published beyond the consumer. Both indices count
/// freely and wrap.
///
/// # Errors
///
/// The producer is further ahead than the ring is long.
pub(crate) fn published(producer: u32, consumer: u32, log: u8) -> Result<u32, Cause> {
    let count = producer.wrapping_sub(consumer);
    if count <= 1 << log { Ok(count) } else { Err(Cause::Bounds) }
}

/// The phase that entry `index` of a ring of `1 << log` is written with: 1 in the first pass over the ring.
pub(crate) fn phase(index: u32, log: u8) -> u32 {
    !(index >> log) & 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_holds_no_more_than_its_length_across_the_wrap() {
        assert_eq!(published(3, u32::MAX - 4, 3), Ok(8));
        assert_eq!(published(4, u32::MAX - 4, 3), Err(Cause::Bounds));
        assert_eq!(published(4, 5, 3), Err(Cause::Bounds));
    }

    #[test]
    fn the_phase_turns_with_each_pass_and_survives_the_wrap() {
        assert_eq!([0, 7, 8, 15, 16].map(|index| phase(index, 3)), [1, 1, 0, 0, 1]);
        assert_eq!((phase(u32::MAX, 3), phase(0, 3)), (0, 1));
    }
}
