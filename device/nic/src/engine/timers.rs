//! Moments at which a worker's queue pairs want to be looked at again.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::queue::completion::slot_of;

/// One worker's timers: at most one for each queue pair slot, and one for page requests.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(u64, u32)>,
    /// Deadline and QPN by slot.
    by_slot: FxHashMap<u32, (u64, u32)>,
    /// When the oldest page request or page fault of this worker is to be given up.
    pub(crate) page_requests_ns: Option<u64>,
}

impl Timers {
    /// Looks at `qpn` at `deadline_ns`, in place of an earlier wish.
    pub(crate) fn set(&mut self, qpn: u32, deadline_ns: u64) {
        if let Some(old) = self.by_slot.insert(slot_of(qpn), (deadline_ns, qpn)) {
            self.by_time.remove(&old);
        }
        self.by_time.insert((deadline_ns, qpn));
    }

    /// Checks page requests and page faults no later than `deadline_ns`.
    pub(crate) fn watch_page_requests(&mut self, deadline_ns: u64) {
        let earlier = self.page_requests_ns.is_none_or(|at| deadline_ns < at);
        if earlier {
            self.page_requests_ns = Some(deadline_ns);
        }
    }

    /// The next moment.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let first = self.by_time.first().map(|&(deadline, _)| deadline);
        first.into_iter().chain(self.page_requests_ns).min()
    }

    /// Takes one queue pair whose time has come.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<u32> {
        let &(deadline, qpn) = self.by_time.first()?;
        if deadline > now_ns {
            return None;
        }
        self.by_time.pop_first();
        self.by_slot.remove(&slot_of(qpn));
        Some(qpn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_timer_whoever_occupies_it() {
        let mut timers = Timers::default();
        timers.set(5, 100);
        timers.set(5 | 1 << 14, 50);
        timers.set(6, 70);
        assert_eq!(timers.next_ns(), Some(50));
        assert_eq!(timers.pop(49), None);
        assert_eq!(timers.pop(1000), Some(5 | 1 << 14));
        assert_eq!(timers.pop(1000), Some(6));
        assert_eq!((timers.pop(1000), timers.next_ns()), (None, None));
    }
}
