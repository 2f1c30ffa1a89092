//! The order in which the messages of the target are accessed.

use rand_pcg::Pcg64Mcg;

use refault_bus::bits::{index, low_u32};

use super::dice::one_of;
use crate::scenario::{Load, Pattern};
use refault_timing::sample::unit_interval;

/// The order of messages that a [`Pattern`] describes.
pub(super) struct Sequence {
    /// Messages in the target.
    count: u64,
    next: u64,
    kind: Kind,
}

enum Kind {
    /// Steps of this many messages; each round starts one message further.
    Strided(u64),
    Random,
    /// Cumulative weights by rank, and the message of each rank.
    Zipf {
        sums: Vec<f64>,
        order: Vec<u32>,
    },
}

impl Sequence {
    /// The order for a load. `dice` shuffles the ranks of [`Pattern::Zipf`].
    pub(super) fn new(load: &Load, dice: &mut Pcg64Mcg) -> Self {
        let count = (load.region_bytes / u64::from(load.message_bytes)).max(1);
        let kind = match load.pattern {
            Pattern::Sequential => Kind::Strided(1),
            Pattern::Strided { stride_bytes } => {
                Kind::Strided((stride_bytes / u64::from(load.message_bytes)).clamp(1, count))
            }
            Pattern::Random => Kind::Random,
            Pattern::Zipf { theta } => zipf(count, theta, dice),
        };
        Self { count, next: 0, kind }
    }

    /// The index of the next message.
    pub(super) fn next(&mut self, dice: &mut Pcg64Mcg) -> u64 {
        match &self.kind {
            Kind::Random => one_of(dice, self.count),
            Kind::Zipf { sums, order } => {
                let total = sums.last().copied().unwrap_or(0.0);
                let at = unit_interval(dice) * total;
                let rank = sums.partition_point(|&sum| sum <= at).min(order.len() - 1);
                u64::from(order[rank])
            }
            Kind::Strided(step) => {
                let message = self.next;
                self.next += step;
                if self.next >= self.count {
                    // The next round starts one message further than this one.
                    self.next = (message % step + 1) % step.min(&self.count);
                }
                message
            }
        }
    }
}

fn zipf(count: u64, theta: f64, dice: &mut Pcg64Mcg) -> Kind {
    let mut sum = 0.0;
    let sums = (1..=count).map(|rank| {
        sum += 1.0 / libm::pow(rank as f64, theta);
        sum
    });
    let sums = sums.collect();
    let mut order: Vec<u32> = (0..low_u32(count)).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, index(one_of(dice, last as u64 + 1)));
    }
    Kind::Zipf { sums, order }
}

#[cfg(test)]
mod tests {
    use super::super::dice::{Stream, dice};
    use super::*;
    use crate::scenario::Arrival;

    fn messages(pattern: Pattern, count: u64, taken: usize) -> Vec<u64> {
        let load = Load {
            pattern,
            message_bytes: 4096,
            region_bytes: count * 4096,
            queue_pairs: 1,
            depth: 1,
            arrival: Arrival::Closed,
            write_share: 1.0,
            cold_share: 0.0,
            bystanders: 0,
            warm: false,
            large_pages: false,
        };
        let mut dice = dice(3, Stream::Load);
        let mut sequence = Sequence::new(&load, &mut dice);
        (0..taken).map(|_| sequence.next(&mut dice)).collect()
    }

    #[test]
    fn strided_rounds_visit_every_message_once() {
        assert_eq!(messages(Pattern::Sequential, 3, 5), [0, 1, 2, 0, 1]);
        let strided = Pattern::Strided { stride_bytes: 3 * 4096 };
        assert_eq!(messages(strided, 8, 10), [0, 3, 6, 1, 4, 7, 2, 5, 0, 3]);
        let far = Pattern::Strided { stride_bytes: 1 << 40 };
        assert_eq!(messages(far, 3, 4), [0, 1, 2, 0]);
    }

    #[test]
    fn zipf_is_skewed_and_random_is_uniform() {
        let counts = |pattern| {
            let mut counts = vec![0u32; 100];
            messages(pattern, 100, 100_000).iter().for_each(|&at| counts[at as usize] += 1);
            counts.sort_unstable();
            counts
        };
        let random = counts(Pattern::Random);
        assert!(random[0] > 850 && random[99] < 1150, "{random:?}");
        // Of 100 with weights 1/n the first has 1 of 5.187.
        let zipf = counts(Pattern::Zipf { theta: 1.0 });
        assert!((18_700..19_900).contains(&zipf[99]), "{zipf:?}");
        assert!(zipf[0] < 300);
    }
}
