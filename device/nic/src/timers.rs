//! Timers of a worker.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::ids::slot_of;

/// At most one deadline for each slot.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    by_time: BTreeSet<(u64, u32)>,
    /// Deadline and number by slot.
    by_slot: FxHashMap<u32, (u64, u32)>,
}

impl Deadlines {
    /// Sets the deadline of `number`; it replaces an earlier one of the slot.
    pub(crate) fn set(&mut self, number: u32, deadline_ns: u64) {
        if let Some(old) = self.by_slot.insert(slot_of(number), (deadline_ns, number)) {
            self.by_time.remove(&old);
        }
        self.by_time.insert((deadline_ns, number));
    }

    fn next_ns(&self) -> Option<u64> {
        self.by_time.first().map(|&(deadline, _)| deadline)
    }

    /// Takes a number whose deadline has passed.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<u32> {
        let &(deadline, number) = self.by_time.first()?;
        if deadline > now_ns {
            return None;
        }
        self.by_time.pop_first();
        self.by_slot.remove(&slot_of(number));
        Some(number)
    }
}

/// One worker's timers: of its queue pairs, of its completion queues, and one for page requests.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    pub(crate) qps: Deadlines,
    pub(crate) cqs: Deadlines,
    /// Deadline of the oldest page request or page fault of this worker.
    pub(crate) page_requests_ns: Option<u64>,
}

impl Timers {
    /// Checks for overdue page requests and page faults no later than `deadline_ns`.
    pub(crate) fn watch_page_requests(&mut self, deadline_ns: u64) {
        let earlier = self.page_requests_ns.is_none_or(|at| deadline_ns < at);
        if earlier {
            self.page_requests_ns = Some(deadline_ns);
        }
    }

    /// The earliest deadline.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        [self.qps.next_ns(), self.cqs.next_ns(), self.page_requests_ns].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_timer_whatever_occupies_it() {
        let mut timers = Timers::default();
        timers.qps.set(5, 100);
        timers.qps.set(5 | 1 << 14, 50);
        timers.qps.set(6, 70);
        assert_eq!(timers.next_ns(), Some(50));
        assert_eq!(timers.qps.pop(49), None);
        assert_eq!(timers.qps.pop(1000), Some(5 | 1 << 14));
        assert_eq!(timers.qps.pop(1000), Some(6));
        assert_eq!((timers.qps.pop(1000), timers.next_ns()), (None, None));
    }

    #[test]
    fn the_next_deadline_is_the_earliest_of_all_kinds() {
        let mut timers = Timers::default();
        timers.qps.set(5, 100);
        timers.cqs.set(5, 60);
        timers.watch_page_requests(80);
        assert_eq!(timers.next_ns(), Some(60));
        assert_eq!((timers.cqs.pop(60), timers.next_ns()), (Some(5), Some(80)));
    }
}
